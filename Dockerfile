# The same command line as an image, for machines without Python:
#   docker run --rm -v /var/run/docker.sock:/var/run/docker.sock -v "$PWD:/work" cuda-matrix run --out results
FROM python:3.13-slim AS build
COPY requirements.lock /build/
RUN python -m venv /opt/cuda-matrix \
 && /opt/cuda-matrix/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /build/requirements.lock
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN python -m venv /opt/builder && /opt/builder/bin/pip install --no-cache-dir build \
 && /opt/builder/bin/python -m build --wheel --outdir /build/dist /build \
 && /opt/cuda-matrix/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /build/dist/*.whl

FROM python:3.13-slim
COPY --from=build /opt/cuda-matrix /opt/cuda-matrix
ENV PATH=/opt/cuda-matrix/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
ENTRYPOINT ["cuda-matrix"]
CMD ["--help"]
