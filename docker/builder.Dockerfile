# syntax=docker/dockerfile:1
# Builds repositories for the GPU that it runs on. A plan is loaded only by the TensorRT that built it: the base is the
# server's own, and the bindings are installed in the version of the library that the base has.
FROM nvcr.io/nvidia/tritonserver:26.07-py3
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1
COPY requirements/build.txt requirements/serve.txt /tmp/requirements/
# NVIDIA's images say in TRT_VERSION which TensorRT they have (11.1.0.106 in this one).
RUN : "${TRT_VERSION:?the base image does not say which TensorRT it has}" \
    && python3 -m venv --system-site-packages /opt/qwen3-vl/.venv \
    && /opt/qwen3-vl/.venv/bin/pip install --requirement /tmp/requirements/build.txt "tensorrt==${TRT_VERSION}"
COPY build /opt/qwen3-vl/build
COPY client/examples /opt/qwen3-vl/client/examples
COPY model_repository /opt/qwen3-vl/model_repository
COPY requirements /opt/qwen3-vl/requirements
RUN mkdir --parents /data/media && chown --recursive 1000 /data
USER 1000
WORKDIR /data
ENV HF_HOME=/data/checkpoints PYTHONPATH=/opt/qwen3-vl/build
VOLUME ["/data"]
ENTRYPOINT ["/opt/qwen3-vl/.venv/bin/python", "-m", "engines", "--output", "/data/engines"]
CMD ["--help"]
