"""The command `whichlora`: its subcommands, groups of options, hints and completion."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from whichlora import __main__, command_line
from whichlora.__main__ import COMMANDS, main
from whichlora.config.options import CHOICES, GROUPS, RUN_OPTIONS
from whichlora.data.tasks import NAMES

ROOT = Path(__file__).parents[2]
PATH = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
every = pytest.mark.parametrize("name", COMMANDS)


def leaves(name: str) -> list[command_line.Command]:
    """Return a subcommand, or its subcommands if it is a group."""
    command = importlib.import_module(COMMANDS[name][0]).COMMAND
    return list(command.commands.values()) if isinstance(command, click.Group) else [command]


def written(command: click.Command) -> str:
    """Return the help of a command."""
    return command.get_help(click.Context(command, info_name="command"))


@every
def test_a_subcommand_has_the_name_of_its_module_s_command(name: str) -> None:
    module: Any = importlib.import_module(COMMANDS[name][0])
    assert module.COMMAND.name == name
    assert callable(module.main)


@every
def test_every_option_is_in_one_group_with_its_default(name: str) -> None:
    for command in leaves(name):
        text = " ".join(written(command).split()).replace("- ", "-")  # lines may end after a hyphen
        options = [p for p in command.params if isinstance(p, click.Option) and p.name != "version"]
        grouped = [option for names in command.groups.values() for option in names]
        assert sorted(grouped) == sorted(str(option.name) for option in options)
        for option in options:
            assert option.help
            assert option.help[-1] == "."
            end = "[required]" if option.required else f"[default: {option.default}]"
            assert f"--{option.name} VALUE {option.help} {end}" in text


@every
def test_examples_use_existing_options(name: str) -> None:
    for command in leaves(name):
        for example in command.examples:
            assert {word for word in example.split(command_line.PROGRAM, 1)[1].split() if word[:2] == "--"} <= {
                opt for param in command.params for opt in param.opts
            }


def test_the_groups_and_choices_of_main_are_of_its_options() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(RUN_OPTIONS)
    assert CHOICES.keys() <= RUN_OPTIONS.keys()
    for name, values in CHOICES.items():
        assert RUN_OPTIONS[name][0] in ("auto", *values)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--vresion"], "no option --vresion (did you mean '--version'?)"),
        (["arhcive"], "(did you mean 'archive'?)"),
        ([], "a command is missing; commands are run, experiment, "),
        (["run", "--varant", "vera"], "no option --varant (did you mean '--variant'?)"),
        (["run", "--var", "vera"], "no option --var"),
        (["run", "--rank"], "'--rank'"),
        (["run", "vera"], "vera"),
        (["experiment"], "missing option '--file'"),
        (["archive", "pack"], "missing argument 'ARCHIVE'"),
    ],
)
def test_an_unknown_command_or_option_ends_in_status_2(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert error in err
    assert all(line.endswith(" --help.") for line in err.splitlines()[1:])


def test_a_wrong_value_ends_in_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--variant", "veraa"]) == 2
    assert capsys.readouterr().err.startswith("error: variant=veraa: allowed are lora, ")


def test_a_value_may_look_like_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--tl_ratio", "-0.5"]) == 2
    assert main(["run", "--tl_ratio=-0.5"]) == 2
    assert (
        capsys.readouterr().err.count("error: tl_ratio=-0.5: must be a number at least 0 and at most 1, or auto\n") == 2
    )


def test_a_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__main__.COMMANDS, "tune", ("no_such_package.tune", ""))
    assert main(["tune"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: tune needs the package no_such_package, which is not installed")
    assert err.count("\n") == 1


def completed(words: str) -> list[str]:
    """Return the completions that bash is offered for the last word, which is empty after a space."""
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "PYTHONPATH": PATH}
    done = subprocess.run(
        [sys.executable, "-m", "whichlora"],
        env={**os.environ, **environment, "_WHICHLORA_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition(",")[2] or line.partition(",")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("whichlora ", list(COMMANDS)),
        ("whichlora st", ["studies"]),
        ("whichlora studies ", ["status", "stop"]),
        ("whichlora run --varia", ["--variant"]),
        ("whichlora run --variant ve", ["vera"]),
        ("whichlora run --task ", list(NAMES)),
        ("whichlora run --seed 1 --arm ", ["recommended", "matched", "tuned"]),
        ("whichlora tune --pruner ", ["auto", "median", "hyperband", "none"]),
        ("whichlora predict --input ", ["file"]),
        ("whichlora export --form ", ["adapter", "merged"]),
        ("whichlora probe --detector ", ["cld3", "lingua"]),
        ("whichlora archive pack ", ["file"]),
        ("whichlora run --data_dir ", ["dir"]),
        ("whichlora analyze --claims ", ["file", "paper", "field"]),
    ],
)
def test_the_shell_completes_commands_options_and_values(words: str, expected: list[str]) -> None:
    assert completed(words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_WHICHLORA_COMPLETE", f"{shell}_source")
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", staticmethod(lambda: None))
    assert main([]) == 0
    assert f"_WHICHLORA_COMPLETE={shell}_complete" in capsys.readouterr().out
    assert f"_WHICHLORA_COMPLETE={shell}_source" in __main__.ABOUT


@pytest.mark.parametrize("command", [["whichlora"], ["whichlora.variants"]])
@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(command: list[str], tmp_path: Path) -> None:
    """As `head` does."""
    arguments = ["variants"] if command == ["whichlora"] else []
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_a_warning_is_one_line() -> None:
    code = (
        "import warnings; from whichlora.command_line import exit_with\n"
        "exit_with(lambda: warnings.warn('two\\nlines', stacklevel=1) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: two\\nlines\n"
