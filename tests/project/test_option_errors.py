"""A bad value of any option of any command: the error names the option, the value, and every word that is allowed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from whichlora.__main__ import COMMANDS, main
from whichlora.command_line import FILE, FOLDER, Command, parse_boolean
from whichlora.errors import OptionError, check_choice, parse_unless

BAD = "no-such-value"
WORDS = ("auto", "none", "all")
"""Values with a meaning of their own, which are the defaults of many options."""
OTHERS = {"target_modules": "q_proj,,", "candidates": "xx"}
"""Bad values of options for which the other one is read differently: names of modules are checked with the model."""
REQUIRED = {
    "data check": ["atlas-nli"],
    "experiment": ["--file", "x"],
    "compare": ["--variant", "lora,dora"],
    "analyze": ["--experiment", "x"],
    "export": ["--run_id", "x"],
    "predict": ["--run_id", "x", "--input", "-"],
    "archive unpack": ["x", "--folder", "y"],
    "archive pack": ["x"],
    "diff": ["x", "y"],
    "cache": ["--yes", "true"],
}
FURTHER = {
    "probe": {name: ["--kind", "alignment"] for name in ("pairs", "first_token", "against")},
    "compare": {name: ["--tune", "2"] for name in ("trials", "space", "rungs")},
}
"""Further options of commands without which one has no effect."""
ANY = {
    "experiment": "looked up in the database",
    "method": "looked up in the database",
    "run_id": "looked up in the database",
    "against": "looked up in the database",
    "output": "a folder or file may have any name",
    "folder": "a folder may have any name",
    "input": "a file, of which another test is",
    "register": "a model may have any name",
    "register_language": "only with register",
    "base": "looked up with the run",
    "alignment_dir": "only with alignment",
    "data_dir": "only with a task that is not packaged",
    "file": "a file, of which another test is",
    "model": "looked up on disk and on the hub, of which another test is",
    "remove": "looked up in the caches",
}
"""Options for which a command cannot know early that a value is bad."""


def options() -> Iterator[tuple[str, str]]:
    for name, (module, _) in COMMANDS.items():
        for path, command in leaves(name, importlib.import_module(module).COMMAND):
            for param in command.params:
                found = isinstance(param, click.Option) and param.name not in (*ANY, "version")
                if found and not (name == "runs" and param.name in ("task", "language")):  # looked up in the database
                    yield path, str(param.name)


def leaves(name: str, command: click.Command) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        return [(f"{name} {own}", each) for own, each in command.commands.items()]
    return [(name, command)]


def allowed_words(path: str, option: str) -> set[str]:
    """Return the values that the option's completion offers, and its default if that is a word."""
    name = path.partition(" ")[0]
    command = dict(leaves(name, importlib.import_module(COMMANDS[name][0]).COMMAND))[path]
    assert isinstance(command, Command)
    (param,) = (param for param in command.params if param.name == option)
    with click.Context(command) as context:
        words = {item.value for item in param.shell_complete(context, "") if item.type == "plain"}
    return words - {*FILE, *FOLDER} | {word for word in WORDS if word == param.default}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path in ("tune", "compare", "probe")))
        for path in dict.fromkeys(path for path, _ in options())
    ],
)
def test_an_error_names_the_option_the_value_and_every_word(
    path: str, empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    wrong = []
    for option in (option for own, option in options() if own == path):
        value = OTHERS.get(option, BAD)
        given = [part for part in REQUIRED.get(path, []) if not (path == "compare" and option == "variant")]
        given += FURTHER.get(path, {}).get(option, [])
        try:
            status = main([*path.split(), *given, f"--{option}", value])
        except SystemExit as end:
            status = int(str(end.code))
        error = capsys.readouterr().err.strip()
        beginning, rest = f"error: {option}={value}: ", error.partition(": ")[2].partition(": ")[2]
        missing = allowed_words(path, option) - set(re.findall(r"[\w-]+(?:-[\w]+)*", rest))
        if status != 2 or not error.startswith(beginning) or "\n" in error or missing:
            wrong.append(f"{status} {error} (missing: {sorted(missing)})")
    assert not wrong, "\n".join(wrong)
    assert not list(empty_folder.iterdir())


def test_a_word_is_named_once_and_before_the_hint() -> None:
    def error(word: str, value: str, *choices: str) -> str:
        with pytest.raises(OptionError) as caught:
            parse_unless(word, check_choice, "x", value, choices)
        return str(caught.value)

    assert parse_unless("auto", check_choice, "x", "auto", ["a"]) is None
    assert parse_unless("auto", check_choice, "x", "a", ["a"]) == "a"
    assert error("auto", "maybe", "true", "false") == "x=maybe: allowed are true, false, or auto"
    assert error("all", "kepe", "keep", "drop") == "x=kepe: allowed are keep, drop, or all (did you mean 'keep'?)"
    assert error("none", "no", "none", "nf4").count("none, ") == 1


BOOLEAN = {
    ("data check", "estimate"): ("data check xnli --data_dir none", "data_dir=none"),
    ("run", "latency"): ("run --task xnli --data_dir none", "data_dir=none"),
    ("probe", "final_norm"): ("probe --top_k x", "top_k=x"),
    ("experiment", "dry_run"): ("experiment --file x --pack x", "pack=x"),
    ("compare", "dry_run"): ("compare --variant lora,dora --stop x", "stop=x"),
    ("compare", "latency"): ("compare --variant lora,dora --task xnli --data_dir none", "data_dir=none"),
    ("tune", "final"): ("tune --keep_adapters x", "keep_adapters=x"),
    ("tune", "dry_run"): ("tune --keep_adapters x", "keep_adapters=x"),
    ("export", "dry_run"): ("export --run_id x --push_to a/b --output /proc/x", "output=/proc/x"),
    ("archive pack", "adapters"): ("archive pack x", "MLFLOW_TRACKING_URI"),
    ("archive relocate", "force"): ("archive relocate", "MLFLOW_TRACKING_URI"),
    ("cache", "yes"): ("cache --remove x", "remove=x"),
}
"""A command for each option that is true or false, and the option that is refused after that one has been read."""


def test_true_and_false_are_read_in_any_case_by_every_command(
    empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert {(path, name) for path, name in options() if {"true", "false"} <= allowed_words(path, name)} == {*BOOLEAN}
    sweep = importlib.import_module("tuning.learning_rates").main
    assert sweep(["--dry_run", "TRUE", "--keep_adapters", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: keep_adapters=x: ")
    for (_, option), (command, later) in BOOLEAN.items():
        for text in ("True", "FALSE", "true"):
            if option != "yes" or text != "FALSE":  # which cannot be asked for without a terminal
                assert main([*command.split(), f"--{option}", text]) == 2
                assert capsys.readouterr().err.startswith(f"error: {later}"), (command, option, text)
        assert main([*command.split(), f"--{option}", "Yes"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option}=Yes: allowed are true, false"), (command, option)


def test_a_boolean_is_named_as_it_was_given() -> None:
    assert [parse_boolean("x", text) for text in ("true", "True", "TRUE", "false", "FaLSe")] == [True] * 3 + [False] * 2
    for text in ("", "1", "yes", " true", "TRUE,"):
        with pytest.raises(OptionError) as caught:
            parse_boolean("x", text)
        assert str(caught.value).startswith(f"x={text}: allowed are true, false")
