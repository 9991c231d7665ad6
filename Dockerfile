# Two images: `server` (MLflow, optuna-dashboard; no torch) and `worker` (trains).
# Package versions are those that pyproject.toml allows.
FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app/src:/app PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    GIT_PYTHON_REFRESH=quiet MLFLOW_DISABLE_TELEMETRY=true
# An additional index for pip, such as one with a CPU build of torch.
ARG PIP_EXTRA_INDEX_URL=
# A new volume takes the owner of the folder on which it is mounted.
RUN useradd --create-home --uid 1000 whichlora && install --directory --owner whichlora /artifacts /work /cache
WORKDIR /app
COPY pyproject.toml .

FROM base AS server
RUN python -c 'import re, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    shared = [r for r in project["dependencies"] if re.match(r"(click|filelock|mlflow|optuna|psycopg)\b", r)]; \
    print(*shared, *project["optional-dependencies"]["server"], sep="\n")' > wanted.txt \
    && pip install --requirement wanted.txt
COPY src src
USER whichlora

FROM base AS worker
# First and in its own layer, which has gigabytes and rarely changes.
RUN pip install "torch==2.13.0"
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    print(*project["dependencies"], sep="\n")' > wanted.txt \
    && pip install --requirement wanted.txt
COPY . .
USER whichlora
