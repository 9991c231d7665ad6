"""Workers as tasks of Ray, which gives each its share of a cluster and starts it again where a process or a node dies.

The cluster is that of `RAY_ADDRESS`, else one of this machine alone that lasts as long as the call. Ray hands out
processes and GPUs, nothing else: who does what is agreed in the shared queue or study, as between any workers.
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

from whichlora.errors import OptionError
from whichlora.scheduling.jobs import Job, mark_worker

RETRIES = 5
"""How often Ray starts a worker again whose process or node died."""
_FOR_WORKERS = ("MLFLOW_", "WHICHLORA_", "TOKENIZERS_", "HF_", "PG", "AWS_")
_STORE_BYTES = 2**27
"""Ray's shared memory, which holds nothing here; it would take a third of the machine's."""


class RayTasks:
    """One task of Ray a worker, with a GPU each where the cluster has any, else with an equal share of the cores."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._ray: Any = None

    def connect(self) -> None:
        """Join or start the cluster, with token authentication unless `RAY_AUTH_MODE` says otherwise.

        Raises:
            OptionError: there is no such cluster, it does not take the token, or its machines do not reach the servers.
        """
        address = os.environ.get("RAY_ADDRESS") or "local"
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it an open port runs anyone's code
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own: dict[str, Any] = {}
        if address == "local":
            if not any(f"RAY_AUTH_TOKEN{kind}" in os.environ for kind in ("", "_PATH")):
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of this call alone
            # Else Ray listens on all addresses of the machine, even where told 127.0.0.1.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        ray: Any = importlib.import_module("ray")
        _probe(address, ray.util.get_node_ip_address())
        modules = [str(Path(__file__).parents[1]), *_beside()]  # so that every machine runs the same code
        setting = {"py_modules": modules, "env_vars": mark_worker("ray")}
        try:
            ray.init(address=address, runtime_env=setting, logging_level="WARNING", **own)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise OptionError("engine", "ray", f"cannot join RAY_ADDRESS={address}: {error}") from error
        self._ray = ray
        names = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        check_shared(sorted(names - {socket.gethostname()}))

    def run(self, job: Job, tick: Callable[[], None]) -> list[str]:
        """See `Engine`."""
        ray = self._ray
        task = ray.remote(**self._share(), max_retries=RETRIES, max_calls=1, scheduling_strategy="SPREAD")(_work)
        environment = {n: v for n, v in os.environ.items() if n.startswith(_FOR_WORKERS)}
        problems = []
        try:
            left = [task.remote(job, environment, str(Path.cwd())) for _ in range(self.workers)]
            while left:
                ended, left = ray.wait(left, timeout=2)
                for reference in ended:
                    try:
                        status = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        problems.append(f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")
                    else:
                        problems += [f"status {status}"] if status else []
                tick()
        finally:
            ray.shutdown()
        return problems

    def _share(self) -> dict[str, int]:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if any(resources.get("GPU") for resources in nodes):
            return {"num_cpus": 1, "num_gpus": 1}
        cores = [int(resources["CPU"]) for resources in nodes] or [1]
        return {"num_cpus": max(1, min(sum(cores) // self.workers, *cores))}


def _probe(address: str, own: str) -> None:
    """Check that something answers at an address with a port: Ray would try for ever. It takes loopback as `own`."""
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdecimal():
        return
    host = own if host in ("localhost", "127.0.0.1", "[::1]") else host
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise OptionError(
            "engine", "ray", f"cannot join RAY_ADDRESS={address}: no answer at {host}: {error}"
        ) from error


def check_shared(others: Sequence[str]) -> None:
    """Check that workers on other machines can reach the tracking server and the database.

    Raises:
        OptionError: one of the two is a file or an address of this machine alone.
    """
    import mlflow

    from whichlora.scheduling.storage import storage_url

    for variable, address in (("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri()), ("WHICHLORA_STORAGE", storage_url())):
        if others and _only_here(address):
            raise OptionError(
                "engine",
                "ray",
                f"{variable} must be a server that the cluster's machines ({', '.join(others)}) can reach; "
                "it is a file or an address of this machine alone",
            )


def _only_here(address: str) -> bool:
    parts = urlsplit(address)
    host = parts.hostname or (os.environ.get("PGHOST") if parts.scheme.startswith("postgres") else None)
    return not host or host.startswith(("/", "127.")) or host in ("localhost", "::1", "0.0.0.0")


def _beside() -> list[str]:
    """Return the folder of `tuning`, if that is what runs: it is no installed package."""
    module = sys.modules.get("tuning")
    return [str(Path(module.__file__).parent)] if module is not None and module.__file__ else []


def _work(job: Job, environment: Mapping[str, str], folder: str) -> int:
    """Do a job in a process of Ray's and return its exit status.

    The environment is an argument because Ray shows anyone what it is told to set, and this has passwords in it.
    """
    os.environ.update(environment)
    if Path(folder).is_dir():  # so that relative paths are those of the call, on machines that share them
        os.chdir(folder)
    return int(importlib.import_module(job.module).main(job.arguments))
