# The same command line as an image, for machines without Python; the action builds it where it finds none.
#   docker run --rm --volume /var/run/docker.sock:/var/run/docker.sock --volume "$PWD:/work" cuda-matrix run --out results
# Another base, for example of a mirror: --build-arg BASE=registry.example/python:3.13-slim
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
COPY requirements.lock /build/
RUN python3 -m venv /opt/cuda-matrix \
 && /opt/cuda-matrix/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /build/requirements.lock
COPY src/cuda_matrix /build/cuda_matrix
RUN cp -r /build/cuda_matrix "$(/opt/cuda-matrix/bin/python -c 'import site; print(site.getsitepackages()[0])')/" \
 && /opt/cuda-matrix/bin/pip uninstall --quiet --yes pip \
 && /opt/cuda-matrix/bin/python -m compileall -q /opt/cuda-matrix/lib

FROM ${BASE}
COPY --from=build /opt/cuda-matrix /opt/cuda-matrix
ENV PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
# Isolated: no module of the mounted folder can stand in for one of ours.
ENTRYPOINT ["/opt/cuda-matrix/bin/python", "-I", "-m", "cuda_matrix"]
CMD ["--help"]
