"""Every command in README and the documentation exists, with its options and their values, without being called."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import compose
import pytest
import yaml
from page_blocks import GENERATED, PAGES, ROOT, Block, Command, blocks, commands, every_block, sessions

from whichlora.__main__ import COMMANDS
from whichlora.config.options import RUN_OPTIONS, check_task, parse_options
from whichlora.data.tasks import get_task
from whichlora.errors import OptionError

BLOCKS = every_block()
ENTRIES = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
MAKEFILE = (ROOT / "Makefile").read_text()
OUTSIDE = {"pip", "git", "mkdir", "ln", "printf", "sed", "eval", "curl", "lm_eval", "cd"}
"""Programs that are not part of the project."""
_ARM = re.compile("-(recommended|matched|tuned)$")
"""In names of methods."""
a_block = pytest.mark.parametrize("block", BLOCKS, ids=str)


def parse(command: click.Command, arguments: Sequence[str]) -> None:
    """Parse a command line, and compare values with those that the shell completes.

    Raises:
        ClickException: a command or option does not exist, or is missing.
        AssertionError: an option has no such value.
    """
    if set(arguments) & {"--help", "--version"} or (isinstance(command, click.Group) and not arguments):
        return None
    context = command.make_context(command.name, list(arguments))
    if isinstance(command, click.Group):
        name, leaf, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert leaf is not None, name
        return parse(leaf, rest)
    for parameter in command.params:
        value = context.params.get(str(parameter.name))
        if isinstance(value, str) and value != parameter.default:
            items = parameter.shell_complete(context, "")
            allowed = {str(item.value) for item in items if item.type == "plain"}
            files = any(item.type != "plain" for item in items)
            for part in value.split(","):
                free = not allowed or files or "/" in part or part.isupper()
                assert free or _ARM.sub("", part) in allowed, f"{parameter.name}={part}: allowed are {allowed}"
    if command.name == "run":
        check_run(context.params)
    return None


def check_run(texts: Mapping[str, str]) -> None:
    """Parse the values of a run, but for paths and placeholders, and check that its task has its language."""
    plain = {name: texts[name] for name in RUN_OPTIONS if not re.search(r"[A-Z]{2}|[./~]", texts[name])}
    known = {name: default for name, (default, _) in RUN_OPTIONS.items()} | plain
    options = parse_options(known | {"learning_rate": texts["learning_rate"]})
    if known["task"] == texts["task"]:
        check_task(get_task(options.task), language=options.language, difficulty=options.difficulty)


def check_module(name: str, arguments: Sequence[str]) -> None:
    """Check the options of `python -m name`."""
    if name == "pytest":
        paths = [word for word in arguments if word.startswith("tests")]
        assert all((ROOT / path).exists() for path in paths), paths
        return None
    name = "comparing.compare" if name == "whichlora.compare" else name  # which calls it
    places = {place: text for place in (f"{name}.command", f"{name}.__main__", name) if (text := source_of(place))}
    assert places, f"there is no module {name}"
    for place, source in places.items() if arguments else ():
        if "COMMAND = " in source:
            return parse(importlib.import_module(place).COMMAND, arguments)
        for word in arguments:
            known = word in ("--help", "--version") or not word.startswith("--")
            assert known or f'"{word.partition("=")[0]}"' in source, f"{name} has no option {word}"
    return None


def source_of(name: str) -> str:
    """The source of a module of the project, or of the `__init__` of a package; empty if there is none."""
    path = name.replace(".", "/")
    files = [folder / f"{path}{end}" for folder in (ROOT / "src", ROOT) for end in (".py", "/__init__.py")]
    return next((file.read_text(encoding="utf-8") for file in files if file.exists()), "")


def check_whichlora(words: Sequence[str], page: Path) -> None:
    name, *rest = words
    if name == "--version":
        return
    assert name in COMMANDS, name
    parse(importlib.import_module(COMMANDS[name][0]).COMMAND, rest)


def check_python(words: Sequence[str], page: Path) -> None:
    if words[0] == "-m":
        check_module(words[1], words[2:])
    else:
        assert (page.parent / words[0]).exists() or (ROOT / words[0]).exists(), words[0]


def check_mlflow(words: Sequence[str], page: Path) -> None:
    if words[0] != "run":
        assert words[0] in ("ui", "models"), words[0]
        return
    assert words[1] == "."
    flags = [word for word in words[2:] if word.startswith("-")]
    assert set(flags) <= {"-P", "-e", "--env-manager", "--experiment-name"}
    pairs = [(flag, words[at + 1]) for at, flag in enumerate(words) if flag in flags]
    entry = dict(pairs).get("-e", "main")
    assert entry in ENTRIES, entry
    given = dict(value.split("=", 1) for flag, value in pairs if flag == "-P")
    assert given.keys() <= ENTRIES[entry]["parameters"].keys(), given.keys() - ENTRIES[entry]["parameters"].keys()
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    check_module(*module_of(entry, options))


def module_of(entry: str, options: list[str]) -> tuple[str, list[str]]:
    """The module that an entry point of MLproject calls, and options for it."""
    module = re.search(r"python -m ([\w.]+)", ENTRIES[entry]["command"])
    assert module is not None
    return module[1], options


def check_make(words: Sequence[str], page: Path) -> None:
    targets = [word for word in words if "=" not in word]
    for variable in {word.partition("=")[0] for word in words if "=" in word}:
        assert re.search(rf"^{variable} \?=", MAKEFILE, re.MULTILINE), f"the Makefile has no variable {variable}"
    for target in targets:
        assert re.search(rf"^\.PHONY:.*\b{target}\b", MAKEFILE, re.MULTILINE), f"the Makefile has no target {target}"
    subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, check=True)


def check_docker(words: Sequence[str], page: Path) -> None:
    services = yaml.safe_load(compose.TEXT)["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
    assert words[0] == "compose"
    for flag, value in itertools.pairwise(words):
        assert flag != "--profile" or value in profiles, value
        assert flag != "--scale" or value.partition("=")[0] in services, value


def check_accelerate(words: Sequence[str], page: Path) -> None:
    at = words.index("-m")
    check_module(words[at + 1], words[at + 2 :])


CHECKS: dict[str, Callable[[Sequence[str], Path], None]] = {
    "whichlora": check_whichlora,
    "python": check_python,
    "mlflow": check_mlflow,
    "make": check_make,
    "docker": check_docker,
    "accelerate": check_accelerate,
}


def check_variables(variables: dict[str, str]) -> None:
    """Check that variables of the project are those that the page of environment variables lists."""
    listed = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    for name in variables:
        assert not name.startswith("WHICHLORA_") or f"`{name}" in listed, name


def check(command: Command, page: Path) -> None:
    """Check a command line of a page."""
    program, *words = command.words
    check_variables(command.variables)
    if program.startswith("("):  # (cd study && mlflow ui)
        return
    if program == "export":
        check_variables(dict(word.split("=", 1) for word in words))
    elif "/" in program:  # a script of the project
        assert os.access(ROOT / program, os.X_OK), program
    elif program not in OUTSIDE:
        CHECKS[program](words, page)


@a_block
def test_a_block_is_valid(block: Block) -> None:
    """Commands exist, Python compiles and imports what there is, YAML and TOML can be read."""
    if block.language == "":
        for command in commands(block.text):
            check(command, ROOT / block.page)
    elif block.language == "console":
        for command, _ in sessions(block.text):
            check(command, ROOT / block.page)
    elif block.language == "python":
        for node in ast.walk(ast.parse(block.text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert all(importlib.util.find_spec(name) for name in names)
    elif block.language == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    elif block.language == "toml":
        assert tomllib.loads(block.text)


def test_commands_in_sentences_are_valid() -> None:
    """Those in `code`, which may lack what the command requires."""
    called = r"`((?:whichlora|mlflow run|make|python -m (?:whichlora|tuning|analysis|benchmarks))\b[^`\n]* [^`\n]+)`"
    wrong = []
    for path in PAGES:
        prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for text in re.findall(called, prose):
            if any(word in text for word in ("...", "COMMAND", "name=value")):
                continue
            try:
                for command in commands(text):
                    check(command, path)
            except (click.MissingParameter, click.BadOptionUsage):
                pass
            except (AssertionError, click.ClickException, subprocess.CalledProcessError, ValueError, KeyError) as error:
                wrong.append(f"{path.relative_to(ROOT)}: {text}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "whichlora rum",
        "whichlora run --varient lora",
        "whichlora run --variant lora,verra",
        "whichlora run --language tr",
        "whichlora run --epochs 0",
        "whichlora archive pakc a.tar",
        "python -m whichlora.runs",
        "python -m tuning.tune --pruner mediam",
        "python -m benchmarks.precision --experiment a,b",
        "python no_such_script.py",
        "python -m pytest tests/no_such_test.py",
        "mlflow run . -e experimnt -P file=a.yaml --env-manager local",
        "mlflow run . -P varient=lora --env-manager local",
        "make rum",
        "make run VARIENT=lora",
        "docker compose --profile gpus up",
        "accelerate launch -m whichlora.run --varient lora",
        "WHICHLORA_WROK=a whichlora run",
        "whichlra run",
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str) -> None:
    (command,) = commands(text)
    with pytest.raises((AssertionError, click.ClickException, KeyError, OptionError)):
        check(command, ROOT / "README.md")


def test_an_unknown_reason_or_language_and_a_lost_mark_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text, error in (
        ("<!-- not run: lazy -->\n```\nwhichlora run\n```\n", "unknown reason lazy"),
        ("```sh\nwhichlora run\n```\n", "unknown language sh"),
        ("<!-- not run: gpu -->\ntext\n\n```\nwhichlora run\n```\n", "not directly above"),
    ):
        page.write_text(text)
        with pytest.raises(ValueError, match=error):
            blocks(page)
    page.write_text("<!-- not run: gpu (accelerate) -->\n```\nwhichlora run\naccelerate launch\n```\n")
    (block,) = blocks(page)
    assert [block.reason(command.text) for command in commands(block.text)] == [None, "gpu"]


def test_the_generated_page_repeats_the_examples_of_the_commands() -> None:
    shown = {line for block in BLOCKS if block.page == GENERATED for line in block.text.splitlines()}
    examples = set()
    for module, _ in COMMANDS.values():
        command = importlib.import_module(module).COMMAND
        for leaf in command.commands.values() if isinstance(command, click.Group) else [command]:
            examples.update(leaf.examples)
    assert shown == examples
