# syntax=docker/dockerfile:1
# The server for a repository that the builder made: Triton with its TensorRT and Python backends, TensorRT-LLM or
# PyTorch in the decoder.
#
# Not NVIDIA's image with TensorRT-LLM (26.07-trtllm-python-py3): it holds 1.2.1, which takes one embedding per request
# where a video has one per pair of frames, and of backends only TensorRT-LLM's and Python's, where stage 2 is a plan.
# This one has both backends; TensorRT-LLM is installed beside it as NVIDIA's installation page says.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.07-py3
FROM ${TRITON_IMAGE}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1
# TensorRT-LLM starts its worker through MPI; Triton, the compiler of the PyTorch engine's kernels, builds their launchers.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libopenmpi-dev python3-dev \
    && rm --recursive --force /var/lib/apt/lists/*
# Stage 3's engine, as in ENGINE for the builder.
ARG ENGINE=tensorrt_llm
COPY requirements /opt/qwen3-vl/requirements
RUN python3 -m pip install --require-hashes --no-deps \
    --requirement "/opt/qwen3-vl/requirements/locked/gpu_${ENGINE}.txt"
COPY client /tmp/client
RUN python3 -m pip install --no-deps --no-build-isolation /tmp/client
COPY build /opt/qwen3-vl/build
RUN mkdir --parents /data/media /data/home && chown --recursive 1000 /data && chmod --recursive 700 /data
USER 1000
WORKDIR /data
ENV PYTHONPATH=/opt/qwen3-vl PYTHONDONTWRITEBYTECODE=1
# Code that is compiled for the card is kept and loaded here: the root file system may be read-only, and nothing in
# /tmp is executed.
ENV HOME=/data/home XDG_CACHE_HOME=/data/home/.cache TORCHINDUCTOR_CACHE_DIR=/data/home/.cache/inductor
VOLUME ["/data"]
EXPOSE 8000 8001 8002 8003
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8003/ready', timeout=4)"]
STOPSIGNAL SIGTERM
# Refuses a repository for another card or version before anything is loaded.
CMD ["sh", "-c", "umask 077 && exec python3 -m build.serve /data/gpu/repository --host 0.0.0.0 --log /data/triton.log"]
