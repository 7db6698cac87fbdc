# syntax=docker/dockerfile:1
# The command line: docker run --rm --volume "$PWD:/videos:ro" IMAGE ask --url HOST:8001 /videos/a.mp4 "What happens?"
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
FROM ${PYTHON_IMAGE}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/locked/client.txt /tmp/requirements/locked/client.txt
RUN python -m pip install --require-hashes --no-deps --only-binary :all: --requirement /tmp/requirements/locked/client.txt
COPY client /tmp/client
RUN python -m pip install --no-deps --no-build-isolation /tmp/client \
    && useradd --create-home --uid 1000 client
USER 1000
WORKDIR /home/client
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["sh", "-c", "umask 077 && exec qwen3-vl \"$@\"", "qwen3-vl"]
CMD ["--help"]
