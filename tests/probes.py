"""Small probes in the test's tracking database, shared by the tests of several modules."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.tracking import MlflowClient

from whichlora.probing import main


def probes() -> list[Any]:
    client = MlflowClient()
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(everywhere, "tags.`whichlora.kind` = 'probe'", order_by=["start_time DESC"]))


def table(run: Any, name: str = "layers.parquet") -> pd.DataFrame:
    return pd.read_parquet(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=name))


def probed(*options: str) -> Any:
    """Run a probe and return its tracked run."""
    assert main(list(options)) == 0
    return probes()[0]
