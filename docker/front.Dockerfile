# syntax=docker/dockerfile:1
# The API and the page in one application, which asks a server and keeps uploads below its media root.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
FROM ${PYTHON_IMAGE}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/locked/front.txt /tmp/requirements/locked/
RUN python -m pip install --require-hashes --no-deps --only-binary :all: --requirement /tmp/requirements/locked/front.txt
COPY client /tmp/client
RUN python -m pip install --no-deps --no-build-isolation /tmp/client \
    && useradd --create-home --uid 1000 front \
    && mkdir --parents /data/media \
    && chown --recursive 1000 /data \
    && chmod --recursive 700 /data
USER 1000
WORKDIR /home/front
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
VOLUME ["/data/media"]
EXPOSE 8080
STOPSIGNAL SIGINT
ENTRYPOINT ["sh", "-c", "umask 077 && exec \"$@\"", "front"]
CMD ["qwen3-vl-front", "--help"]
