# Two images: `server` (MLflow, optuna-dashboard; no torch) and `worker` (trains).
# Packages are those of requirements/, with their hashes.
# A digest fixes the image; a tag may be moved: `--build-arg PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:...`
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app/src:/app PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    GIT_PYTHON_REFRESH=quiet MLFLOW_DISABLE_TELEMETRY=true
# A new volume takes the owner of the folder on which it is mounted.
RUN useradd --create-home --uid 1000 whichlora && install --directory --owner whichlora /artifacts /work /cache
WORKDIR /app
COPY requirements requirements

FROM base AS server
RUN pip install --no-deps --require-hashes --requirement requirements/server.txt
COPY src src
USER whichlora

FROM base AS worker
RUN pip install --no-deps --require-hashes --requirement requirements/worker.txt
# An additional index for pip with another build of torch, such as one for CPUs, whose hash is not among those of the lock.
ARG PIP_EXTRA_INDEX_URL=
RUN if [ -z "$PIP_EXTRA_INDEX_URL" ]; \
    then pip install --no-deps --require-hashes --requirement requirements/torch.txt; \
    else pip install "$(grep --only-matching '^torch==[0-9.]*' requirements/torch.txt)"; fi
COPY . .
USER whichlora
