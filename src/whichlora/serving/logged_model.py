"""Logs the model of a finished run to MLflow: an adapter with what it needs, and the base model as a reference."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType, Schema

from whichlora import termination
from whichlora.config.plan import Plan
from whichlora.errors import LostLeaseError, in_a_line
from whichlora.serving import pyfunc, saved
from whichlora.serving.inputs import LANGUAGE
from whichlora.serving.saved import SavedModel
from whichlora.tracking.logged_models import ModelLog, open_model
from whichlora.tracking.model_files import ADAPTER, LOADER_MODULE, PACKAGES
from whichlora.tracking.run_log import RunLog

os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # would copy uv.lock and pyproject.toml of the current folder
_PARAMS = ("variant", "arm", "task", "language", "model", "tl_ratio", "train_size", "seed", "rank", "learning_rate")


def log_model(plan: Plan, log: RunLog, metrics: Collection[str], *, folder: Path, versions: Mapping[str, str]) -> None:
    """Log the model of a run, with metrics that the run has logged.

    There is no model where none could predict, see `saved.of_plan`, and on a server before MLflow 3. The run does not
    depend on its model: if it cannot be logged, a warning says why.

    Args:
        metrics: their names.
        folder: the trained adapter, which the run has logged as `adapter`.
        versions: of the packages that matter, by name.

    Raises:
        LostLeaseError: the run belongs to another process now.
    """
    opened = None
    try:
        model = saved.of_plan(plan, versions)
        if model is None:
            return
        opened = _open(plan, log)
        if opened is None:
            print(
                "note: this server is older than MLflow 3, so the run has no logged model; its adapter is an artifact.",
                file=sys.stderr,
            )
            return
        _fill(opened, model, plan, folder)
        log.metrics_of_model(metrics, opened.model.model_id)
        opened.finish()
    except LostLeaseError:
        raise
    except Exception as error:  # the libraries of artifact stores raise many types
        if termination.requested():  # some libraries replace the exception of a signal by one of their own
            raise
        log.check()  # do not mark the model of a run that another process has taken over
        if opened is not None:
            opened.fail()
        print(f"warning: the run is complete, but its model cannot be logged: {in_a_line(error)}", file=sys.stderr)


def _open(plan: Plan, log: RunLog) -> ModelLog | None:
    spec = plan.spec
    params = {name: str(getattr(spec, name)) for name in _PARAMS if getattr(spec, name) is not None}
    tags = {"fingerprint": spec.fingerprint, "training_fingerprint": spec.training_fingerprint}
    return open_model(log, name=plan.name, params=params, tags=tags)


def _fill(opened: ModelLog, model: SavedModel, plan: Plan, folder: Path) -> None:
    """Log the files of a model, with the adapter in a folder."""
    example = {name: [text] for name, text in saved.texts_of_input(plan.task, saved.example_of(plan)).items()}
    if model.input.needs_language:
        example[LANGUAGE] = [saved.example_of(plan).language]
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "model"
        model_id = opened.model.model_id
        described = Model(
            run_id=opened.run.run_id, model_id=model_id, model_uuid=model_id
        )  # no path: folders are moved
        write(model, written, described, pd.DataFrame(example))
        opened.artifacts(written)
    if model.form != "base":
        opened.adopt(folder, ADAPTER)


def write(model: SavedModel, folder: Path, described: Model, example: pd.DataFrame) -> None:
    """Write the files of an MLflow model to a new folder, without the adapter.

    Args:
        described: its ids, to which the rest is added.
        example: a row of the input.
    """
    import mlflow.pyfunc

    mlflow.pyfunc.save_model(
        path=folder,
        loader_module=LOADER_MODULE,
        mlflow_model=described,
        signature=signature(model),
        input_example=example,
        pip_requirements=requirements(model),
        model_config={pyfunc.BASE: ""},
        metadata={
            "task": model.task.name,
            "variant": model.variant,
            "base": model.base.public_name,
            "base_digest": model.base.digest,
        },
    )
    model.write(folder)


def signature(model: SavedModel) -> ModelSignature:
    """Return the columns that a model reads and predicts."""
    names = [*model.input.texts, *([LANGUAGE] if model.input.needs_language else [])]
    inputs = [ColSpec(DataType.string, name, required=name not in model.input.optional) for name in names]
    labels = model.labels if model.scoring == "likelihood" else ()
    outputs = [ColSpec(DataType.double, f"p_{label}") for label in labels]
    return ModelSignature(Schema([*inputs]), Schema([ColSpec(DataType.string, "predicted"), *outputs]))


def requirements(model: SavedModel) -> list[str]:
    """Return the packages that a prediction needs, in the versions of the run, without a build such as `+cpu`."""
    names = [name for name in PACKAGES if name != "bitsandbytes" or model.quantization != "none"]
    return [f"{name}=={model.versions[name].partition('+')[0]}" for name in names if name in model.versions]
