# lsx serve worker on an NVIDIA GPU, whose driver is the host's. The bundle, with its plans, is mounted at /bundle. From the
# repository's root:
#   docker build -f deploy/worker.Dockerfile -t lsx-worker .
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS python
# The distribution's Python, whatever its latest fix is.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*

FROM python AS wheel
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY lsx lsx
RUN python3 -m venv /venv && /venv/bin/pip wheel --no-cache-dir --no-deps -w /wheels .

FROM python
# tensorrt for a data centre's GPUs; rtx is TensorRT for RTX, gpu is ONNX Runtime's CUDA
ARG BACKEND=tensorrt
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
RUN python3 -m venv /opt/lsx \
    && /opt/lsx/bin/pip install --no-cache-dir -c /wheels/constraints.txt "$(echo /wheels/lsx-*.whl)[serve,traces,${BACKEND}]" \
    && rm -rf /wheels && useradd --uid 10001 --create-home lsx && mkdir /lsx-data && chown lsx /lsx-data
ENV PATH=/opt/lsx/bin:$PATH PYTHONUNBUFFERED=1 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /
VOLUME /lsx-data
ENTRYPOINT ["lsx"]
CMD ["serve", "worker", "/bundle", "--workers", "gpu:0"]
