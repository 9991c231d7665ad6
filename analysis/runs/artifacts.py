"""Makes artifacts of runs available as local files."""

from __future__ import annotations

from pathlib import Path

import mlflow
import platformdirs

from whichlora.tracking.sqlite import artifact_folder

THREADS = 8
"""Number of files read concurrently: a tracking server has high latency but serves many requests at a time."""


def local_path(artifact_uri: str, run_id: str, name: str, cache: Path | None = None) -> Path:
    """Return the local path of an artifact of a finished run.

    Artifacts on the local file system are read in place. Others are downloaded once into `cache` (by default the user
    cache), which is safe because the artifacts of a finished run do not change.

    Raises:
        MlflowException, OSError: the server has no such artifact.
    """
    folder = artifact_folder(artifact_uri)
    if folder is not None:
        return folder / name
    path = (cache or platformdirs.user_cache_path("whichlora") / "artifacts") / run_id / name
    if not path.is_file():
        partial = path.with_name("partial")  # an interrupted download must not look complete
        file = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{artifact_uri}/{name}", dst_path=str(partial)))
        file.replace(path)
    return path
