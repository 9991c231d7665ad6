"""Without a network the hub is given up at once, in one line; with one, a lost connection is tried again."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def call(folder: Path, endpoint: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call Python in a new process that may use a hub, with a cache of its own; return it with its seconds."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "HF_", "WHICHLORA_"))}
    own |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", **variables}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=own, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("endpoint", "options", "beginning", "reason", "advice"),
    [
        (
            "http://hub.invalid",
            ("--model", "Qwen/Qwen3-0.6B"),
            "model=Qwen/Qwen3-0.6B: allowed are smollm2-135m, gemma3-270m, a folder",
            "http://hub.invalid: ",
            "give a folder, or set HF_ENDPOINT to a mirror or HF_HUB_CACHE to a cache that has it",
        ),
        (
            "http://127.0.0.1:9",  # the port of the discard service, on which nothing listens
            ("--task", "belebele"),
            "data_dir=auto: facebook/belebele cannot be read from the hub (",
            "http://127.0.0.1:9: Connection refused",
            "set HF_ENDPOINT to a mirror, or set data_dir to a folder with the data",
        ),
    ],
)
def test_no_network_is_one_line_without_retries(
    tmp_path: Path, endpoint: str, options: tuple[str, ...], beginning: str, reason: str, advice: str
) -> None:
    done = call(tmp_path, endpoint, "-m", "whichlora", "run", *options)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith(f"error: {beginning}")
    assert f"the Hugging Face hub cannot be reached: {reason}" in line
    assert advice in line
    assert "Errno" not in line


ASK = "import sys, time; from whichlora.hub_access import hub_problem; s = time.monotonic(); print(hub_problem()); {}"


def test_a_server_that_never_answers_is_given_up_after_the_seconds_of_the_library(tmp_path: Path) -> None:
    with socket.socket() as full:  # whoever connects after the first waits
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            code = ASK.format("print(time.monotonic() - s)")
            done = call(tmp_path, f"http://127.0.0.1:{port}", "-c", code, HF_HUB_ETAG_TIMEOUT="1")
    problem, seconds = done.stdout.splitlines()
    assert problem.startswith(f"the Hugging Face hub cannot be reached: http://127.0.0.1:{port}: ")
    assert float(seconds) < 5


def test_the_variable_of_the_library_is_respected_without_a_try(tmp_path: Path) -> None:
    done = call(tmp_path, "http://hub.invalid", "-c", ASK.format("pass"), HF_HUB_OFFLINE="1")
    assert done.stdout == "the Hugging Face hub is not used, since HF_HUB_OFFLINE is set\n", done.stderr


class Hub(BaseHTTPRequestHandler):
    """A hub with one file, `config.json` of someone/tiny, whose first download is cut off after some bytes."""

    content = json.dumps({"model_type": "llama", "filler": "x" * 200_000}).encode()
    cut = False

    def do_HEAD(self) -> None:
        """Answer with the file's headers."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with the file, or with its rest."""
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _answer(self, *, body: bool) -> None:
        known = self.path == "/" or self.path.endswith("/config.json")
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]) if body else 0
        rest = self.content[start:]
        self.send_response((206 if start else 200) if known else 404)
        self.send_header("Content-Length", str(len(rest)) if known else "0")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        if not known:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if not (body and known):
            return
        if not type(self).cut:
            type(self).cut = True
            self.wfile.write(rest[:70_000])
            self.wfile.flush()
            reset = struct.pack("ii", 1, 0)  # closing sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            self.connection.close()
            return
        self.wfile.write(rest)


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a running hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_a_connection_that_is_lost_in_a_download_is_tried_again(tmp_path: Path, hub: str) -> None:
    find = "from whichlora.models.hub import find_commit; print(find_commit('someone/tiny'))"
    done = call(tmp_path, hub, "-c", find)
    assert done.stdout == f"{COMMIT}\n", done.stderr
    assert Hub.cut
    assert done.stderr == (
        "The connection to the Hugging Face hub was lost (Connection reset by peer) while reading someone/tiny: "
        "retry 1 of 5 in 1 s.\n"
    )
    again = call(tmp_path, "http://hub.invalid", "-c", find)
    assert again.stdout == f"{COMMIT}\n", again.stderr
    assert again.stderr.startswith("The Hugging Face hub cannot be reached: http://hub.invalid: ")
    assert again.stderr.endswith(". The copy of someone/tiny in the cache is used.\n")
