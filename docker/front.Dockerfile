# syntax=docker/dockerfile:1
# The API and the page, which ask a server and keep uploads below its media root: the command says which of the two.
FROM python:3.11.14-slim-bookworm
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/client.txt requirements/api.txt requirements/web.txt /tmp/requirements/
RUN python -m pip install --requirement /tmp/requirements/api.txt --requirement /tmp/requirements/web.txt
COPY client /opt/client
RUN python -m pip install --no-deps /opt/client \
    && useradd --create-home --uid 1000 front \
    && mkdir --parents /data/media \
    && chown --recursive 1000 /data
USER 1000
WORKDIR /home/front
VOLUME ["/data"]
EXPOSE 8080 7860
STOPSIGNAL SIGINT
CMD ["qwen3-vl-api", "--help"]
