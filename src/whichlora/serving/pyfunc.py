"""The loader module of logged models: MLflow calls it for `mlflow.pyfunc.load_model` and `mlflow models serve`.

It is this module of the installed package, and not code that is stored beside the model: a model that a stranger sent
then runs no code of theirs, the file of a run has no copy of the package, and an update mends the models of earlier
runs. What it reads has a format with a number (`saved.FORMAT`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from whichlora.serving.predictor import Predictor

BASE = "base"
"""Key of the model configuration: folder or hub id of the base model, where it is not found automatically."""


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> _Model:
    """Load the model in the folder `path`.

    Raises:
        OptionError: the folder or the base model cannot be used; the message says what to do.
    """
    return _Model(Predictor.load(Path(path), (model_config or {}).get(BASE) or None))


class _Model:
    """What MLflow wraps: its inputs have been checked against the signature."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        return self.predictor.predict(model_input)
