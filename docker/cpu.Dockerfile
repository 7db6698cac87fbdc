# syntax=docker/dockerfile:1
# The server on a CPU: Triton 2.51 out of its wheel, the PyTorch engine, ONNX Runtime.
# Python's own images have the shared libpython that Triton's stub embeds, and Debian 12 the glibc (2.35 or later)
# that it needs.
FROM python:3.11.14-slim-bookworm AS packages
# PyTorch's CPU builds lie in an index of their own: give its address here, or the build with CUDA comes, which
# works but is gigabytes larger.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/serve.txt requirements/triton.txt /tmp/requirements/
RUN python -m venv /opt/qwen3-vl/.venv \
    && /opt/qwen3-vl/.venv/bin/pip install --requirement /tmp/requirements/serve.txt
COPY build /opt/qwen3-vl/build
COPY requirements /opt/qwen3-vl/requirements
# The server is unpacked now, so that nothing is fetched at start.
RUN PYTHONPATH=/opt/qwen3-vl/build /opt/qwen3-vl/.venv/bin/python -c \
    "from pathlib import Path; from server import triton; triton.find(Path('/opt/qwen3-vl/.cache/triton'))"

FROM python:3.11.14-slim-bookworm
RUN useradd --create-home --uid 1000 server \
    && mkdir --parents /data/checkpoints /data/media /data/repository \
    && chown --recursive 1000 /data
COPY --from=packages --chown=1000 /opt/qwen3-vl /opt/qwen3-vl
COPY --chown=1000 model_repository /opt/qwen3-vl/model_repository
USER 1000
WORKDIR /opt/qwen3-vl
# The checkpoint, where MODEL is a name on the hub.
ENV HF_HOME=/data/checkpoints MODEL=""
# The folder below which video_uri may name files; empty: none.
ENV MEDIA_ROOT=""
VOLUME ["/data"]
EXPOSE 8000 8001 8002 8003
# Ready is what a model has answered (build/server/health.py), not what listens.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8003/ready', timeout=4)"]
# The supervisor ends Triton and its stages when it is told to stop.
STOPSIGNAL SIGTERM
CMD ["sh", "-c", "exec .venv/bin/python build/serve.py --model \"$MODEL\" --media-root \"$MEDIA_ROOT\" \
    --repository /data/repository --host 0.0.0.0"]
