"""Plans all experiments of a folder: runs, adapters and device-hours of each file, from the options alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from whichlora.config.outline import Outline, outline
from whichlora.data.tasks.folder_contents import contents
from whichlora.errors import OptionError, is_folder
from whichlora.experiment.device_hours import DEVICE, UNKNOWN, device_hours, hours_text
from whichlora.experiment.experiment_file import read_experiment
from whichlora.experiment.grid import each_run
from whichlora.text_tables import table

HEAD = ("file", "for", "runs", "adapters", "A100 hours")


@dataclass(frozen=True, kw_only=True)
class FileOutline:
    """The runs of an experiment's file.

    Attributes:
        experiment: name of the MLflow experiment; files with the same name share their runs.
        about: the beginning of the file's `about`, up to a colon.
    """

    file: str
    experiment: str
    about: str
    runs: dict[str, Outline]

    @property
    def keys(self) -> set[tuple[str, str]]:
        """The runs, as those of an experiment."""
        return {(self.experiment, run) for run in self.runs}


def outline_folder(folder: Path) -> list[FileOutline]:
    """Read the experiments of a folder, in the order of their names.

    Raises:
        OptionError: there is none, or a file is malformed or has an option that is not allowed.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise OptionError("file", str(folder), f"is a folder that cannot be read: {error.strerror}") from error
    paths = [folder / name for name in names if name.endswith((".yaml", ".yml")) and not name.startswith(".")]
    files = [path for path in paths if not is_folder(path)]
    if not files:
        must = "is a folder without YAML files; it must have those of experiments"
        raise OptionError("file", str(folder), f"{must}; {contents(folder)}")
    found = []
    for path in files:
        experiment = read_experiment(str(path.absolute()))
        runs = {run.run: run for run in each_run(experiment, outline)}
        about = " ".join(experiment.about.partition(":")[0].split())
        found.append(FileOutline(file=path.name, experiment=experiment.name, about=about, runs=runs))
    return found


def folder_plan(folder: Path, *, width: int | None) -> str:
    """Return the runs, adapters and device-hours of each file and of all, and which runs are repeated.

    In the sum, runs that files of the same experiment share count once. Runs of different experiments share nothing.

    Args:
        width: number of cells in a line; None if there is no terminal.
    """
    files = outline_folder(folder)
    rows: list[tuple[object, ...]] = [HEAD]
    for one in files:
        rows.append((one.file, one.about, *_sums({one.experiment: one.runs})))
    experiments: dict[str, dict[str, Outline]] = {}
    for one in files:
        experiments.setdefault(one.experiment, {}).update(one.runs)
    rows.append(("all, once per experiment", "", *_sums(experiments)))
    shared = [
        f"{one.file} is a part of {other.file}: its runs are done once."
        for one in files
        for other in files
        if one.keys < other.keys
    ]
    return "\n".join(
        [
            table(rows, width=width, whole=("file",), optional=("for",)),
            *shared,
            *_repeated(experiments),
            f"Hours are of one {DEVICE}, estimated by arithmetic (docs/device-hours.md); {UNKNOWN}: not known.",
        ]
    )


def _repeated(experiments: dict[str, dict[str, Outline]]) -> list[str]:
    """Return a sentence for each experiment that has runs of earlier ones, which it does again."""
    sentences, first = [], dict[str, str]()
    for name, runs in experiments.items():
        again = {key: first[key] for key in runs if key in first}
        if again:
            hours = device_hours(runs[key] for key in again)
            cost = "" if hours is None else f" ({hours_text(hours)} hours)"
            earlier = " and ".join(dict.fromkeys(again.values()))
            sentences.append(
                f"{len(again)} runs of the experiment {name}{cost} are also runs of {earlier}, and are done "
                "again: an experiment uses no runs of another."
            )
        first |= {key: name for key in runs if key not in first}
    return sentences


def _sums(experiments: dict[str, dict[str, Outline]]) -> tuple[int, int, str]:
    """Return the number of runs and of adapters, and the hours, of runs by experiment, which share no adapters."""
    adapters = sum(len({run.adapter for run in runs.values()}) for runs in experiments.values())
    hours = [device_hours(runs.values()) for runs in experiments.values()]
    known = [value for value in hours if value is not None]
    total = sum(known) if len(known) == len(hours) else None
    return sum(map(len, experiments.values())), adapters, hours_text(total)
