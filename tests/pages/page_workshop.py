"""Executes the commands and Python blocks of a page in a temporary folder, on a tiny model and a few items.

Commands are called in this process, as their entry points would call them; that `mlflow run` and the installed
command reach these entry points is tested elsewhere, and `make` only prints what it would do. `SIZES` are added to a
command, or replace what it says; the runs of a YAML file are cut to two methods and few items; names in capitals and
other placeholders of the pages are replaced by those of finished runs.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import folders
import mlflow
import optuna
import pandas as pd
import yaml
from browsing import register
from harness_output import write_results
from layouts import LAYOUTS
from page_blocks import ROOT, Block, Command
from page_calls import call, shell, target
from page_sizes import sized, small, whole

from analysis.claims import claims
from tuning.study_status import PREFIX
from whichlora.__main__ import COMMANDS
from whichlora.data.tasks.pairs.tatoeba import CLONE, ISO_639_3
from whichlora.scheduling.storage import storage_url
from whichlora.testing.runs import tracking_in
from whichlora.tracking.client import connect
from whichlora.tracking.logged_models import model_of_run
from whichlora.tracking.sqlite import artifact_folder

RUN = "tags.`whichlora.kind` = 'run'"
"""The filter of runs that have an adapter of their own."""
WALK = "docs/your-own-task/README.md"
"""Its commands are those of `test_own_task_walk.py`."""


class Workshop:
    """A folder with a tracking database of finished runs, in which pages are executed.

    Args:
        folder: an empty folder.
        model: the folder of a tiny model.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.model = model
        self.done: set[str] = set()

    @contextlib.contextmanager
    def page(self, name: str) -> Iterator[Path]:
        """Work in a folder of the page's own, which has what its commands read."""
        place = self.folder / re.sub(r"\W+", "-", name)
        place.mkdir(parents=True)
        kept = dict(os.environ)
        with tracking_in(self.folder), contextlib.chdir(place):
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
            os.environ |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "HF_HOME": str(self.folder / "hub")}
            for link in ("tiny", "my-model", "tiny-qwen3"):
                Path(link).symlink_to(self.model)
            for packed in ("experiments", "tuning"):
                shutil.copytree(ROOT / packed, packed, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
            try:
                yield place
            finally:
                os.environ.clear()
                os.environ.update(kept)

    def finish(self, experiment: str) -> None:
        """Carry out the small form of a packaged experiment, once."""
        file = Path("experiments") / f"{experiment}.yaml"
        if experiment not in self.done and file.exists():
            call("whichlora.experiment.command", ["--file", str(self.reduced(file)), "--workers", "1"])
            self.done.add(experiment)

    def reduced(self, file: Path, arms: int | None = None) -> Path:
        """Write the small form of a file of experiments beside it, and return its path."""
        content = small(whole(file), model=self.model, data=self.data, arms=arms)
        written = file.with_name(f"small-{file.name}")
        written.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return written

    def data(self, name: str) -> Path:
        """Return a folder of the data that pages call DIR, LASER and so on."""
        place = self.folder / "data" / name
        if not place.exists():
            if name == "laser":
                _laser(place / CLONE)
            elif name in ("sib200", "xcopa"):
                layout = next(layout for layout in LAYOUTS if layout.task == name)
                layout.write(place, ("en", "sw", "hi", "tr") if name == "sib200" else ("sw", "tr"))
            else:
                write = {
                    "xnli": folders.xnli_folder,
                    "tydiqa": folders.tydiqa_folder,
                    "lareqa": folders.xquad_r_folder,
                }
                write[name](place)
        return place

    def prepare(self, page: Sequence[Block]) -> None:
        """Write the files of a page that its blocks show, and those that its commands read."""
        self.names: dict[str, Any] = {}
        if page[0].page == WALK:
            Path("tiny-qwen3").unlink()
            shell(f"{sys.executable} {ROOT / 'docs' / 'your-own-task' / 'make_reviews.py'}")
            return self._write_yaml(page)
        folders.reviews_task(Path(), "de", "tr", source="de")
        rows = pd.DataFrame(folders.xnli_rows("sw", "test", 4))
        rows.to_csv("texts.csv", index=False)
        rows.to_parquet("texts.parquet")
        rows.to_json("texts.jsonl", orient="records", lines=True)
        tables = [block.text for block in page if block.language == "csv"]
        if tables:
            Path("theirs.csv").write_text(tables[0], encoding="utf-8")
            others = re.sub("^dora,", "pissa,", re.sub("^lora,", "vera,", tables[0], flags=re.M), flags=re.M)
            Path("others.csv").write_text(others, encoding="utf-8")
        for archive in ROOT.glob("docs/*/tracking.tar.xz"):
            (Path("docs") / archive.parent.name).mkdir(parents=True)
            shutil.copy(archive, Path("docs") / archive.parent.name)
        return self._write_yaml(page)

    def _write_yaml(self, page: Sequence[Block]) -> None:
        for block in page:
            if block.language == "yaml" and not block.reasons:
                content = yaml.safe_load(block.text)
                name = f"{content['task']}.yaml" if "task" in content else "compare.yaml"
                if "arms" in content or "task" in content:
                    whole = block.text if "name" in content or "task" in content else f"name: part\n{block.text}"
                    Path(name).write_text(whole, encoding="utf-8")
                else:
                    assert content["claims"]
                    Path("claims.yaml").write_text(block.text, encoding="utf-8")

    def read_yaml(self, block: Block) -> None:
        """Let the command that reads a whole file read it."""
        content = yaml.safe_load(block.text)
        if "task" in content:
            options = ["--language", content["languages"][-1], "--model", "tiny"]
            call("whichlora.data_check", ["check", f"./{content['task']}.yaml", *options])
        elif "arms" in content:
            small = self.reduced(Path("compare.yaml"), arms=len(content["arms"]))
            call("whichlora.experiment", ["--file", str(small), "--dry_run", "true"])
        else:
            assert claims.load(Path("claims.yaml"))

    def read_csv(self, block: Block) -> None:
        """Analyse a table that names samples of lm-evaluation-harness; tables of scores are read by commands."""
        table = pd.read_csv(io.StringIO(block.text))
        if "samples" not in table:
            return
        for number, name in enumerate(table["samples"]):
            right = [float(item % 7 > number % 3) for item in range(30)]
            args = {"pretrained": "org/base", "peft": Path(name).name.replace("__", "/")}
            write_results(Path(name).parent, {"xnli_en": right, "xnli_sw": right[::-1]}, model_args=args)
        Path("table.csv").write_text(block.text, encoding="utf-8")
        call("analysis.analyze", ["--results", "table.csv", "--output", "table"])

    def run_python(self, text: str) -> None:
        """Carry out a Python block, with the names that the page says it has."""
        client = connect()
        ids = self.run_ids()
        names = self.names
        if re.search(r"\bframe\b", text):
            names["frame"] = pd.read_csv("texts.csv")
            model = model_of_run(client, ids[0])
            assert model is not None
            Path("folder").symlink_to(artifact_folder(model.artifact_location))
        if "training/routing" in text:
            found = mlflow.search_runs(search_all_experiments=True, filter_string=f"{RUN} AND params.variant = 'molf'")
            mlflow.artifacts.download_artifacts(run_id=found["run_id"][0], artifact_path="training", dst_path=".")
        if "fully_trained.json" in text:
            spectral = f"{RUN} AND params.variant_options LIKE '%spectral%'"
            found = mlflow.search_runs(experiment_names=["lora-and-full"], filter_string=spectral)
            mlflow.artifacts.download_artifacts(run_id=found["run_id"][0], artifact_path="adapter", dst_path=".")
            Path("adapter/fully_trained.json").rename("fully_trained.json")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(text, "<page>", "exec"), names)

    def run_ids(self) -> list[str]:
        """The finished runs, of two methods, of the experiment that the page has set, or of `pocket`."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "pocket")
        self.finish(name)
        client = connect()
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], RUN)
        return [run.info.run_id for run in found if run.info.status == "FINISHED"]

    def replaced(self, text: str) -> str:
        """Return a command or Python block with the placeholders replaced by what exists."""
        values: dict[str, Callable[[], str]] = {
            "OTHER_ID|ID_OF_LORA|8c07de": lambda: self.run_ids()[1],
            "ID|3f2a91": lambda: self.run_ids()[0],
            "m-\\.\\.\\.": lambda: register(connect(), "my-model", self.run_ids()[0]),
            "(?<=my-model)@champion": lambda: "@champion" * bool(register(connect(), "my-model", self.run_ids()[0])),
            "(?<=stop )NAME": _study,
            "LASER": lambda: str(self.data("laser")),
            "XCOPA": lambda: str(self.data("xcopa")),
            "(?<=data_dir )lareqa": lambda: str(self.data("lareqa")),
            "DIR": lambda: str(self.data("tydiqa" if "tydiqa" in text else "xnli")),
            "/data/my-model": lambda: str(Path("tiny").resolve()),
            "smollm2-135m": lambda: "tiny",
        }
        result = text
        for pattern, value in values.items():
            result = re.sub(rf"(?:(?<![\w$])|(?=@))(?:{pattern})(?!\w)", lambda _, value=value: value(), result)
        return result

    def execute(self, command: Command) -> str:
        """Carry out one command of a page, measurements of tuning once in all; return what it printed on stdout.

        Raises:
            AssertionError: its exit status is not 0.
        """
        words = list(command.words)
        if words[0] == "export":
            os.environ |= {k: v for k, v in (w.split("=", 1) for w in words[1:]) if k != "MLFLOW_TRACKING_URI"}
            return ""
        if words[0] == "make":
            return shell(f"make --directory {ROOT} --dry-run {command.text.partition(' ')[2]}")
        if words[0] not in ("whichlora", "python", "mlflow"):
            return shell(command.text)
        module, arguments = target(words)
        name = _command_name(module)
        arguments = self._sized(name, arguments)
        measurement = f"{module} {sorted(arguments)}"
        if name.startswith("tuning-") and measurement in self.done:  # takes long, and other pages have it too
            return ""
        printed = call(module, arguments, stdin=command.stdin)
        self.done.add(measurement)
        if command.stdout:
            Path(command.stdout).write_text(printed, encoding="utf-8")
        return printed

    def _sized(self, name: str, arguments: Sequence[str]) -> list[str]:
        """Return the arguments in a small size, and prepare what they need: files, and runs of experiments."""
        result = sized(name, arguments)
        given = {word: at + 1 for at, word in enumerate(result) if word.startswith("--")}
        if "--file" in given and (place := given["--file"]) and Path(result[place]).is_file():
            result[place] = str(self.reduced(Path(result[place])))
            if name == "experiment" and "--dry_run" not in given:
                self.done.add(yaml.safe_load(Path(result[place]).read_text(encoding="utf-8"))["name"])
        if name == "export" and Path("my-model").is_symlink():
            Path("my-model").unlink()
        if name in ("runs", "archive"):
            self.finish("pocket")
        for option in given.keys() & {"--experiment", "--experiments"}:
            for experiment in result[given[option]].split(","):
                self.finish(experiment)
        return result


def _study() -> str:
    names = optuna.get_all_study_names(storage_url())
    return next(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


def _command_name(module: str) -> str:
    names = {place.removesuffix(".command"): name for name, (place, _) in COMMANDS.items()}
    return names.get(module.removesuffix(".command"), module.rpartition(".")[2].replace("_", "-"))


def _laser(folder: Path) -> None:
    folder.mkdir(parents=True)
    for code in ISO_639_3.values():
        for side in (code, "eng"):
            lines = [f"{word} {number} {side}" for number, word in enumerate(("one", "two", "three", "four") * 3)]
            (folder / f"tatoeba.{code}-eng.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
