# syntax=docker/dockerfile:1
# The command line: docker run --rm --volume "$PWD:/videos:ro" IMAGE ask --url HOST:8001 /videos/a.mp4 "What happens?"
FROM python:3.11.14-slim-bookworm
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/client.txt /tmp/requirements/client.txt
RUN python -m pip install --requirement /tmp/requirements/client.txt
COPY client /opt/client
RUN python -m pip install --no-deps /opt/client \
    && useradd --create-home --uid 1000 client
USER 1000
WORKDIR /home/client
ENTRYPOINT ["qwen3-vl"]
CMD ["--help"]
