# lsx serve without workers: HTTP and the keeper. No CUDA, no model. From the repository's root:
#   docker build -f deploy/http.Dockerfile -t lsx-http .
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY lsx lsx
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

FROM python:3.12-slim
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt "$(echo /wheels/lsx-*.whl)[serve,traces]" && rm -rf /wheels \
    && useradd --uid 10001 --create-home lsx && mkdir /lsx-data && chown lsx /lsx-data
USER 10001
ENV PYTHONUNBUFFERED=1
WORKDIR /
VOLUME /lsx-data
EXPOSE 8000
ENTRYPOINT ["lsx"]
CMD ["serve", "--workers", "none", "--host", "0.0.0.0"]
