"""Runs workers as Ray tasks: Ray assigns each a share of the cluster, and restarts it if its process or node dies.

The cluster is the one at `RAY_ADDRESS`, or by default a temporary one on this machine. Ray only places processes and
assigns GPUs; work is distributed through the shared queue or study, as among any workers.
"""

from __future__ import annotations

import importlib
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from whichlora import cores, termination
from whichlora.announcements import announced
from whichlora.caller import caller_folder
from whichlora.errors import OptionError
from whichlora.masking import masked
from whichlora.scheduling.jobs import Job, mark_worker

RETRIES = 5
"""Maximum number of restarts of a worker whose process or node died."""
_FORWARDED = ("MLFLOW_", "WHICHLORA_", "TOKENIZERS_", "HF_", "PG", "AWS_")
"""Prefixes of the environment variables that are passed to workers."""
_STORE_BYTES = 2**27
"""Size of Ray's object store, which is not used here; by default it would reserve a third of the memory."""


class RayTasks:
    """One Ray task per worker, with one GPU each if the cluster has any, otherwise with an equal share of the cores."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._ray: Any = None

    def connect(self) -> None:
        """Join or start the cluster, with token authentication unless `RAY_AUTH_MODE` is set.

        Raises:
            OptionError: the cluster is unreachable, rejects the token, or has machines that cannot reach the servers.
        """
        address = os.environ.get("RAY_ADDRESS") or "local"
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it an open port would execute anyone's code
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local_only: dict[str, Any] = {}
        if address == "local":
            if not any(f"RAY_AUTH_TOKEN{kind}" in os.environ for kind in ("", "_PATH")):
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # valid for this call only
            # Otherwise Ray listens on all addresses of the machine, even if told to use 127.0.0.1.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            local_only = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        ray: Any = importlib.import_module("ray")
        _probe(address, ray.util.get_node_ip_address())
        modules = [str(Path(__file__).parents[1]), *_folders_beside()]  # so that every machine runs the same code
        runtime_env = {"py_modules": modules, "env_vars": mark_worker("ray")}
        doing = (
            "Starting a Ray cluster on this machine." if address == "local" else f"Joining the Ray cluster {address}."
        )
        try:
            with announced(doing, logged=True):
                ray.init(address=address, runtime_env=runtime_env, logging_level="WARNING", **local_only)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise OptionError("engine", "ray", f"cannot join RAY_ADDRESS={address}: {error}") from error
        termination.restore()  # Ray has replaced the handler of SIGTERM by its own
        self._ray = ray
        names = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        check_reachable(sorted(names - {socket.gethostname()}))

    def run(self, job: Job, tick: Callable[[], None]) -> list[str]:
        """See `Engine`."""
        ray = self._ray
        caller_folder()  # while the process whose id `mlflow run` passed on is one of this machine
        task = ray.remote(**self._resources(), max_retries=RETRIES, max_calls=1, scheduling_strategy="SPREAD")(_work)
        environment = {n: v for n, v in os.environ.items() if n.startswith(_FORWARDED)}
        problems, pending = [], []
        try:
            pending = [task.remote(job, environment, str(Path.cwd())) for _ in range(self.workers)]
            while pending:
                ended, pending = ray.wait(pending, timeout=2)
                for reference in ended:
                    try:
                        status = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        problems.append(masked(f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"))
                    else:
                        problems += [f"status {status}"] if status else []
                tick()
        except KeyboardInterrupt:  # Ray would kill the workers, so they are asked to end first
            for reference in pending:
                ray.cancel(reference)
            ray.wait(pending, num_returns=len(pending), timeout=termination.SAVE_SECONDS + 5)
            raise
        finally:
            ray.shutdown()
        return problems

    def _resources(self) -> dict[str, int]:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if any(resources.get("GPU") for resources in nodes):
            return {"num_cpus": 1, "num_gpus": 1}
        counts = [int(resources["CPU"]) for resources in nodes] or [1]
        return {"num_cpus": max(1, min(sum(counts) // self.workers, *counts))}


def _probe(address: str, node_ip: str) -> None:
    """Check that something listens at `address` if it has a port, because Ray would retry forever.

    Like Ray, replace a loopback address by `node_ip`.

    Raises:
        OptionError: nothing listens there.
    """
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdecimal():
        return
    host = node_ip if host in ("localhost", "127.0.0.1", "[::1]") else host
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise OptionError(
            "engine", "ray", f"cannot join RAY_ADDRESS={address}: no answer at {host}: {error}"
        ) from error


def check_reachable(others: Sequence[str]) -> None:
    """Check that workers on other machines can reach the tracking server and the database.

    Raises:
        OptionError: one of them is a file or an address that only this machine can reach.
    """
    import mlflow

    from whichlora.scheduling.storage import storage_url

    for variable, address in (("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri()), ("WHICHLORA_STORAGE", storage_url())):
        if others and _is_local(address):
            raise OptionError(
                "engine",
                "ray",
                f"{variable} must be a server that the cluster's machines ({', '.join(others)}) can reach; "
                "it is a file or an address that only this machine can reach",
            )


def _is_local(address: str) -> bool:
    parts = urlsplit(address)
    host = parts.hostname or (os.environ.get("PGHOST") if parts.scheme.startswith("postgres") else None)
    return not host or host.startswith(("/", "127.")) or host in ("localhost", "::1", "0.0.0.0")


def _folders_beside() -> list[str]:
    """Return the folders of the packages beside whichlora that are imported: in a clone they are not installed."""
    modules = [sys.modules.get(name) for name in ("tuning", "analysis", "comparing")]
    return [str(Path(module.__file__).parent) for module in modules if module is not None and module.__file__]


def _work(job: Job, environment: Mapping[str, str], folder: str) -> int:
    """Run a job in a Ray process and return its exit status.

    The environment is passed as an argument because it contains passwords, and Ray shows the variables of a runtime
    environment to all users.
    """
    termination.install()  # `ray.cancel` arrives as SIGINT
    os.environ.update(environment)
    cores.configure()
    if Path(folder).is_dir():  # relative paths stay valid on machines that share the folder
        os.chdir(folder)
    return int(importlib.import_module(job.module).main(job.arguments))
