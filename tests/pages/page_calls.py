"""Calls the commands of pages in this process, and compares what they print with what a page shows."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import yaml
from page_blocks import ROOT

from whichlora.__main__ import COMMANDS


def target(words: Sequence[str]) -> tuple[str, list[str]]:
    """The module that a command line calls, and the arguments for it."""
    if words[0] == "whichlora":
        return (
            (COMMANDS[words[1]][0], list(words[2:])) if words[1] in COMMANDS else ("whichlora.__main__", [*words[1:]])
        )
    if words[0] == "python":
        assert words[1] == "-m", words
        return words[2], list(words[3:])
    pairs = [(words[at], words[at + 1]) for at in range(len(words) - 1)]
    entry = dict(pairs).get("-e", "main")
    point = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][entry]
    module = re.search(r"python -m ([\w.]+)", point["command"])
    assert module is not None
    given = dict(value.split("=", 1) for flag, value in pairs if flag == "-P")
    return module[1], [part for name, value in given.items() for part in (f"--{name}", value)]


def call(module: str, arguments: Sequence[str], *, stdin: str | None = None) -> str:
    """Call the `main` of a module; return its stdout.

    Raises:
        AssertionError: its exit status is not 0.
    """
    places = [f"{module}.command", f"{module}.__main__", module] if _is_package(module) else [module]
    found = next(importlib.import_module(place) for place in places if importlib.util.find_spec(place))
    main = found.main if hasattr(found, "main") else importlib.import_module(module).main
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.StringIO()
    source = Path(stdin).open(encoding="utf-8") if stdin else contextlib.nullcontext(sys.stdin)  # noqa: SIM115
    with source as read, _own_environment(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        before, sys.stdin = sys.stdin, read
        try:
            status = main(list(arguments))
        except SystemExit as end:
            status = end.code
        finally:
            sys.stdin = before
            out.flush()
    text = out.buffer.getvalue().decode()
    assert not status, f"{module} {' '.join(arguments)}: status {status}\n{text[-2000:]}\n{err.getvalue()[-2000:]}"
    return text


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Keep variables and the tracking address that a command sets from the next one, as processes do."""
    before, uri = dict(os.environ), mlflow.get_tracking_uri()
    try:
        yield
    finally:
        mlflow.set_tracking_uri(uri)
        os.environ.clear()
        os.environ.update(before)


def shows(page: str, printed: str) -> bool:
    """Whether a page shows what was printed, up to spaces and times of day; `...` stands for any number of lines."""
    shown = [".*" if line == "..." else re.escape(line) for line in _comparable(page)]
    return re.fullmatch("\n".join(shown), "\n".join(_comparable(printed)), re.DOTALL) is not None


def _comparable(text: str) -> list[str]:
    dates = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", text)
    return [" ".join(line.split()) for line in dates.splitlines() if line.strip()]


def shell(text: str) -> str:
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def _is_package(module: str) -> bool:
    found = importlib.util.find_spec(module)
    return found is not None and found.submodule_search_locations is not None
