"""The files that runs have logged, as paths of this machine."""

from __future__ import annotations

from pathlib import Path

import mlflow
import platformdirs

from whichlora.tracking.sqlite import path_of

THREADS = 8
"""Files that are read at once: a tracking server answers slowly, but many at a time."""


def local_path(artifact_uri: str, run_id: str, name: str, cache: Path | None = None) -> Path:
    """Return where an artifact of a finished run can be read.

    Where the artifacts are files of this machine that is their own place; else it is downloaded once into `cache` (by
    default the user's), which is safe because a finished run's artifacts do not change.

    Raises:
        MlflowException, OSError: there is no such artifact on the server.
    """
    folder = path_of(artifact_uri)
    if folder is not None:
        return folder / name
    place = (cache or platformdirs.user_cache_path("whichlora") / "artifacts") / run_id / name
    if not place.is_file():
        partial = place.with_name("partial")  # a download that is cut off must not look like a whole one
        got = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{artifact_uri}/{name}", dst_path=str(partial)))
        got.replace(place)
    return place
