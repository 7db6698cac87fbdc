# syntax=docker/dockerfile:1
# Builds repositories for the GPU that it runs on. A plan is loaded only by the TensorRT that built it: the base is the
# server's own, and the bindings are installed in the version of the library that the base has.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.07-py3
FROM ${TRITON_IMAGE}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1
COPY requirements /opt/qwen3-vl/requirements
WORKDIR /opt/qwen3-vl
# NVIDIA's images say in TRT_VERSION which TensorRT they have (11.1.0.106 in this one): no lock can know it.
RUN : "${TRT_VERSION:?the base image does not say which TensorRT it has}" \
    && python3 -m venv --system-site-packages .venv \
    && .venv/bin/pip install --require-hashes --no-deps --only-binary :all: --requirement requirements/locked/build.txt \
    && .venv/bin/pip install "tensorrt==${TRT_VERSION}"
COPY client /tmp/client
RUN .venv/bin/pip install --no-deps --no-build-isolation /tmp/client
COPY build /opt/qwen3-vl/build
COPY client/examples /opt/qwen3-vl/client/examples
COPY model_repository /opt/qwen3-vl/model_repository
RUN mkdir --parents /data/media /data/home && chown --recursive 1000 /data && chmod --recursive 700 /data
USER 1000
WORKDIR /data
ENV HF_HOME=/data/checkpoints PYTHONPATH=/opt/qwen3-vl:/opt/qwen3-vl/model_repository/video_preprocess/1 PYTHONDONTWRITEBYTECODE=1
# Code that is compiled for the card is kept and loaded here: the root file system may be read-only, and nothing in
# /tmp is executed.
ENV HOME=/data/home XDG_CACHE_HOME=/data/home/.cache TORCHINDUCTOR_CACHE_DIR=/data/home/.cache/inductor
VOLUME ["/data"]
ENTRYPOINT ["sh", "-c", "umask 077 && exec /opt/qwen3-vl/.venv/bin/python -m build.gpu --output /data/gpu \"$@\"", "build.gpu"]
CMD ["--help"]
