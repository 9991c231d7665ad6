"""Provides what commands share: options of workers, reports of errors in one line, and formatted durations."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from whichlora import termination
from whichlora.caller import given_path
from whichlora.config.failures import explain
from whichlora.errors import (
    DamagedError,
    MemoryExhausted,
    OptionError,
    ProofError,
    check_folder,
    has_control_characters,
    is_file,
    number_from_environment,
    parse_integer,
    printable,
)
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES


def guarded(work: Callable[[], int], texts: Mapping[str, Any]) -> int:
    """Return the exit status of `work`, after checks of the environment and of the texts of its options.

    Errors that the user can act on are reported in one line, with status 2 for bad options and a bad environment and
    status 1 for a run that failed.
    """
    try:
        _check_environment()
        for option, text in texts.items():
            if isinstance(text, str) and has_control_characters(text):
                raise OptionError(option, text, "must be UTF-8 without control characters")
        return work()
    except Exception as error:
        if termination.requested():  # some libraries replace the exception of a signal by one of their own
            raise termination.terminated() from error
        return _report(_as_given(error, texts) if isinstance(error, OptionError) else error)


def _as_given(error: OptionError, texts: Mapping[str, Any]) -> OptionError:
    """Return an error about the data beside a task's file as one of `task`, which the user gave, and not the folder."""
    task = str(texts.get("task", ""))
    beside = error.option == "data_dir" and error.value != texts.get("data_dir") and is_file(given_path(task))
    if beside and given_path(task).absolute().parent == Path(str(error.value)):
        return OptionError("task", task, error.allowed)
    return error


def _report(error: Exception) -> int:
    """Print an error that the user can act on in one line and return the exit status.

    Raises:
        Exception: it is another error.
    """
    if isinstance(error, OptionError):
        return report_option_error(error)
    if isinstance(error, DamagedError | MemoryExhausted | ProofError):
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    line = explain(error)
    if line is None or isinstance(error, BrokenPipeError):
        raise error
    print(f"error: {line}", file=sys.stderr)
    return 2


def _check_environment() -> None:
    """Check the variables that are read while the work is under way.

    Raises:
        OptionError: a variable has a value that is not allowed.
    """
    distributed.check_environment()
    number_from_environment("WHICHLORA_CHECKPOINT_SECONDS", 60, low=0)
    number_from_environment("WHICHLORA_GRACE_SECONDS", 120, low=1)
    if folder := os.environ.get("WHICHLORA_WORK"):
        check_folder("WHICHLORA_WORK", folder, Path(folder).absolute())


def report_option_error(error: OptionError) -> int:
    """Print an option error, mark the run that `mlflow run` may have created, and return the exit status 2."""
    print(f"error: {error}", file=sys.stderr)
    if os.environ.get("MLFLOW_RUN_ID"):
        # MLflow takes more than a second to import and is needed only under `mlflow run`.
        from mlflow.exceptions import MlflowException

        from whichlora.tracking.client import connect, database_exists
        from whichlora.tracking.launch import mark_launch

        with contextlib.suppress(OptionError, MlflowException):  # the error to report is that of the option
            if database_exists():
                mark_launch(connect())
    return 2


WORKERS = {
    "engine": (
        "local",
        f"Where workers run: {' (processes of this machine) or '.join(ENGINES)} (tasks of a cluster).",
    ),
    "workers": ("1", "Number of workers; run the same command on another machine with the same servers to add more."),
    "pack": ("1", "Number of runs that each worker trains together in one pass over a shared base model."),
}
"""Options of `experiment` and `tune` that choose the workers."""
MAX_PACK = 64


def check_pack(text: str) -> None:
    """Check the option `pack` as far as possible without the runs.

    Raises:
        OptionError: the text is not a number from 1 to `MAX_PACK`.
    """
    parse_integer("pack", text, 1, MAX_PACK)


def format_duration(seconds: float) -> str:
    """Format a duration for display: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def next_commands(
    experiment: str, *, run_id: str | None = None, use: str | None = "predict", register: bool = False
) -> str:
    """Return what to type after results in an experiment, with names filled in.

    Args:
        run_id: a run that `probe` can examine; None for any run that `whichlora runs` lists.
        use: the command that uses a trained model, `predict` or `export`; None if there is nothing to use.
        register: whether `analyze` could register the model of the best method.
    """
    name, run = shlex.quote(experiment), run_id or "RUN"
    uses = {
        "predict": (f"whichlora predict --run_id {run} --input TABLE.csv", "predictions of a run's model for a table"),
        "export": (f"whichlora export --run_id {run}", "the adapter of a run or trial in a folder"),
    }
    report = f"whichlora analyze --experiment {name}"
    commands = [
        (f"whichlora runs --experiment {name}", "the runs with their scores"),
        (f"whichlora probe --run_id {run}", "what the layers of a run's model represent"),
        *([] if use is None else [uses[use]]),
        (report, "a report on several methods or seeds"),
        *([(f"{report} --register NAME", "also the best method's model in the Model Registry")] if register else []),
    ]
    longest = max(len(command) for command, _ in commands)
    return "\n".join(["Next:", *(f"  {command:{longest}}  # {what}" for command, what in commands)])
