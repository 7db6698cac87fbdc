# syntax=docker/dockerfile:1
# The server on a CPU: Triton 2.51 out of its wheel, the PyTorch engine, ONNX Runtime.
# Python's own images have the shared libpython that Triton's stub embeds, and Debian 12 the glibc (2.35 or later)
# that it needs.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
FROM ${PYTHON_IMAGE} AS packages
# PyTorch's CPU builds lie in an index of their own: give its address here, or the build with CUDA comes, which
# works but is gigabytes larger. Only PyTorch is looked for there.
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements /opt/qwen3-vl/requirements
WORKDIR /opt/qwen3-vl
RUN python -m venv .venv \
    && .venv/bin/pip install --require-hashes --no-deps --only-binary :all: --requirement requirements/locked/serve.txt \
    && .venv/bin/pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} --requirement requirements/torch.txt
COPY client /tmp/client
RUN .venv/bin/pip install --no-deps --no-build-isolation /tmp/client
COPY build /opt/qwen3-vl/build
# The server is unpacked now, so that nothing is fetched at start.
RUN .venv/bin/python -c \
    "from pathlib import Path; from build.serve.server import triton; triton.find(Path('.cache/triton'))"

FROM ${PYTHON_IMAGE}
RUN useradd --create-home --uid 1000 server \
    && mkdir --parents /data/checkpoints /data/media /data/cache /data/repository \
    && chown --recursive 1000 /data \
    && chmod --recursive 700 /data
# Root's: the server cannot change what it runs.
COPY --from=packages /opt/qwen3-vl /opt/qwen3-vl
COPY model_repository /opt/qwen3-vl/model_repository
USER 1000
WORKDIR /opt/qwen3-vl
# The checkpoint, where MODEL is a name on the hub.
ENV HF_HOME=/data/checkpoints MODEL=""
# The folder below which video_uri may name files; empty: none.
ENV MEDIA_ROOT=""
# Libraries keep what they like below HOME; the root file system may be read-only.
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
VOLUME ["/data"]
EXPOSE 8000 8001 8002 8003
# Ready is what a model has answered (build/serve/supervisor/health.py), not what listens.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8003/ready', timeout=4)"]
# The supervisor ends Triton and its stages when it is told to stop.
STOPSIGNAL SIGTERM
CMD ["sh", "-c", "umask 077 && exec .venv/bin/python -m build.serve --model \"$MODEL\" --media-root \"$MEDIA_ROOT\" \
    --repository /data/repository --log /data/triton.log --host 0.0.0.0 --set video_preprocess.cache_directory=/data/cache"]
