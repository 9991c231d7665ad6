"""Help, the version and bad options are handled without importing packages that take seconds to load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from whichlora import __version__
from whichlora.__main__ import COMMANDS as SUBCOMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "peft", "sklearn", "scipy", "pandas", "optuna", "mlflow"}
SCRIPT = """
import json, runpy, sys
module, *arguments = sys.argv[1:]
sys.argv = [module, *arguments]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    status = 0
except SystemExit as end:
    status = end.code or 0
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.__stdout__)
"""


def called(module: str, *arguments: str, folder: Path) -> tuple[int, set[str], str]:
    """Run a module as a command in a new process; return its status, the imported packages, and its output."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module, *arguments],
        cwd=folder,
        env=own | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    status, imported = json.loads(last)
    return status, set(imported), "".join(f"{line}\n" for line in lines) + done.stderr


COMMANDS = [
    "whichlora.run",
    "whichlora.experiment",
    "whichlora.probing",
    "whichlora.variants",
    "whichlora.data_check",
    "whichlora.predict",
    "whichlora.export",
    "whichlora.data_check check",
    "whichlora.archive",
    "whichlora.archive pack",
    "whichlora.database",
    "tuning.tune",
    "tuning.study",
    "tuning.study stop",
    "tuning.learning_rates",
    "analysis.analyze",
    "analysis.diff",
    "comparing.compare",
    "whichlora.compare",
    "whichlora.cache",
    "whichlora.run_table",
    "whichlora",
    *(f"whichlora {name}" for name in SUBCOMMANDS),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    status, imported, text = called(*command.split(), "--help", folder=tmp_path)
    assert status == 0, text
    assert text.startswith("Usage: ")
    assert not HEAVY & imported
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_version_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    status, imported, text = called(*command.split(), "--version", folder=tmp_path)
    assert (status, text) == (0, f"whichlora {__version__}\n")
    assert not HEAVY & imported


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "whichlora"])
def test_a_misspelt_option_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    status, imported, text = called(*command.split(), "--versoin", folder=tmp_path)
    assert status == 2, text
    assert text.startswith("error: no option --versoin (did you mean '--version'?)\n")
    assert not HEAVY & imported


def test_the_list_of_commands_imports_none_of_them(tmp_path: Path) -> None:
    _, imported, _ = called("whichlora", "--help", folder=tmp_path)
    assert not {"tuning", "analysis", "comparing", "yaml"} & imported


WRONG = [
    ("whichlora run --variant veraa", "variant=veraa: "),
    ("whichlora tune --variant lorra", "variant=lorra: "),
    ("whichlora probe --kind langauge", "kind=langauge: "),
    ("whichlora variants --rank many", "rank=many: "),
    ("whichlora predict --input no.csv --run_id x", "input=no.csv: "),
    ("whichlora predict --input -", "run_id=auto: "),
    ("whichlora export --run_id x --form whole", "form=whole: "),
    ("whichlora export --run_id x --dry_run true", "dry_run=true: "),
    ("whichlora data check atlas-nil", "task=atlas-nil: "),
    ("whichlora data check xnli --rank 0", "rank=0: "),
    ("whichlora data check xnli --estimate maybe", "estimate=maybe: "),
    ("whichlora data chekc", "no command 'chekc'; commands are check"),
    ("whichlora archive pack none.tar", "MLFLOW_TRACKING_URI="),
    ("whichlora analyze --experiment x --margin 0", "margin=0: "),
    ("whichlora rnu", "no command 'rnu'; commands are run, "),
    ("whichlora studies stpo", "no command 'stpo'; commands are status, stop (did you mean 'stop'?)"),
    ("whichlora.run --variant veraa", "variant=veraa: "),
    ("whichlora.run --rank 0", "rank=0: "),
    ("whichlora.run --language xx", "language=xx: "),
    ("whichlora.run --difficulty hrad", "difficulty=hrad: "),
    ("whichlora.run --train_size 99999", "train_size=99999: "),
    ("whichlora.run --layers some", "layers=some: "),
    ("whichlora.run --variant vera --alpha 16", "alpha=16.0: "),
    ("whichlora.run --task atlas-qa --scoring likelihood", "scoring=likelihood: "),
    ("whichlora.experiment --file missing.yaml", "file=missing.yaml: "),
    ("whichlora.experiment --file x.yaml --workers 0", "workers=0: "),
    ("whichlora.experiment --file x.yaml --engine slurm", "engine=slurm: "),
    ("whichlora.experiment --file x.yaml --dry_run maybe", "dry_run=maybe: "),
    ("whichlora.experiment --file x.yaml --pack 0", "pack=0: "),
    ("whichlora.probing --kind langauge", "kind=langauge: "),
    ("whichlora.probing --detector fasttext", "detector=fasttext: "),
    ("whichlora.probing --language xx", "language=xx: "),
    ("whichlora.probing --top_k 51", "top_k=51: "),
    ("whichlora.probing --kind weights", "run_id=auto: "),
    ("whichlora.variants --rank many", "rank=many: "),
    ("whichlora.variants --format html", "format=html: "),
    ("whichlora.archive pack none.tar", "MLFLOW_TRACKING_URI="),
    ("whichlora.archive unpack none.tar --folder new", "archive=none.tar: "),
    ("tuning.tune --variant lorra", "variant=lorra: "),
    ("tuning.tune --language xx", "language=xx: "),
    ("tuning.tune --objective mean,dollars", "objective=mean,dollars: has dollars; "),
    ("tuning.tune --pruner medium", "pruner=medium: "),
    ("tuning.tune --space papr", "space=papr: "),
    ("tuning.tune --trials 0", "trials=0: "),
    ("tuning.tune --seed 9000", "seed=9000: "),
    ("tuning.tune --pack 65", "pack=65: "),
    ("tuning.tune --objective mean,seconds --pack 2", "pack=2: "),
    ("tuning.learning_rates lorra", "variant=lorra: "),
    ("whichlora compare", "variant=none: "),
    ("whichlora compare --variant lora,dora --stop now", "stop=now: "),
    ("whichlora compare --variant lora,dora --budget 3days", "budget=3days: "),
    ("whichlora compare --variant lora,dora --budget 3EUR", "device_price=auto: "),
    ("whichlora compare --variant lora,dora --margin 0", "margin=0: "),
    ("whichlora compare --variant lora,dora --seed 2,1", "seed=2,1: "),
    ("whichlora compare --file a.yaml --variant lora", "variant=lora: "),
    ("analysis.analyze --experiment x --margin 0", "margin=0: "),
    ("analysis.analyze --experiment x --claims no.yaml", "claims=no.yaml: "),
    ("analysis.analyze --results no.csv", "results=no.csv: "),
    ("analysis.diff abcd abce --items many", "items=many: "),
    ("whichlora.cache --remove all --yes maybe", "yes=maybe: "),
    ("whichlora.run_table --status done", "status=done: "),
    ("analysis.analyze", "experiment=none: "),
]


@pytest.mark.parametrize(("command", "error"), WRONG)
def test_a_wrong_value_imports_nothing_heavy(command: str, error: str, tmp_path: Path) -> None:
    status, imported, text = called(*command.split(), folder=tmp_path)
    assert status == 2, text
    assert f"error: {error}" in text
    assert not HEAVY & imported
    assert not list(tmp_path.iterdir())


def test_the_limit_of_pack_is_the_same_before_and_after_the_runs_are_known() -> None:
    from whichlora.config import cli
    from whichlora.training import multi_adapter

    assert cli.MAX_PACK == multi_adapter.MAX_PACK


@pytest.mark.slow
def test_the_test_cases_for_other_packages_print_nothing_when_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import whichlora.testing, bitsandbytes"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
