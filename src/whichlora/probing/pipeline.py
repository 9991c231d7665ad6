"""Runs one probe, from a request to a tracked result: an MLflow run of kind `probe`. Read this first."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from whichlora import __version__
from whichlora.announcements import announce, announced
from whichlora.config.spec import canonical_digest
from whichlora.probing import description, probed_model, weights
from whichlora.probing.alignment import probe as alignment
from whichlora.probing.language import probe as language
from whichlora.probing.probed_model import ProbedModel
from whichlora.probing.request import Request
from whichlora.probing.results import PreparedProbe, ProbeResult
from whichlora.probing.retrieval import probe as retrieval
from whichlora.tracking.client import work_folder
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker, already_done

PROBE_VERSION = 5
"""Increment it whenever the same request may give other numbers, so that older probes are not reused."""
_VERSIONED = ("torch", "transformers", "peft", "cld3-py", "lingua-language-detector")
_KINDS = {
    "language": language.prepare,
    "alignment": alignment.prepare,
    "retrieval": retrieval.prepare,
    "weights": weights.prepare,
}
_SOURCE_PARAMS = (
    "variant",
    "arm",
    "task",
    "language",
    "tl_ratio",
    "train_size",
    "rank",
    "seed",
    "precision",
    "quantization",
)


def probe(requests: Sequence[Request], tracker: Tracker) -> list[str]:
    """Run the requested probes and return the ids of their runs, or of finished runs of the same requests.

    All requests are checked before the first probe starts. A killed probe is resumed. If another process runs the same
    probe, this process waits.

    Raises:
        OptionError: an option does not fit the run, the model or the data.
        ProofError: the probe does not reproduce the model's own predictions.
        NonFiniteError: a state, a logit or an update of the model is not finite.
    """
    jobs = []
    with announced("Reading the run, its task and the shape of its model.", logged=True):
        for request in requests:
            probed = probed_model.find(request, tracker.client)
            jobs.append((request, probed, _KINDS[request.kind](request, probed)))
    return [_probe(*job, tracker) for job in jobs]


def _probe(request: Request, probed: ProbedModel, prepared: PreparedProbe, tracker: Tracker) -> str:
    identity = _identity(request, probed, prepared)
    fingerprint = canonical_digest(identity)
    work = work_folder() / f"probe-{fingerprint[:16]}"
    name = f"{request.kind} of {probed.name}{description.sentences(identity)}"
    about = description.about(request, probed, identity)
    with tracker.once("probe", name, {"fingerprint": fingerprint}, work=work, about=about) as attempt:
        if attempt.finished is not None:
            print(already_done("probe", attempt.finished))
            return attempt.run_id
        _log_params(request, probed, identity, attempt.log)
        work.mkdir(parents=True, exist_ok=True)
        result = prepared.measure(work)
        _log_result(result, attempt.log, work)
        attempt.log.describe(description.finished(result, about))
        return attempt.run_id


def check(request: Request) -> None:
    """Check a request that refers to no run, without the tracking database.

    Raises:
        OptionError: an option does not fit the model or the data.
    """
    _KINDS[request.kind](request, probed_model.find(request, None))


def _identity(request: Request, probed: ProbedModel, prepared: PreparedProbe) -> dict[str, Any]:
    """Return everything that determines the result, and nothing else, by name."""
    spec = probed.plan.spec
    return {
        "probe_version": PROBE_VERSION,
        "kind": request.kind,
        "model_digest": spec.model_digest,
        "source_fingerprint": spec.fingerprint if probed.run_id else "",
        "precision": spec.precision,
        "quantization": spec.quantization,
        "seed": request.seed,
        **prepared.identity,
    }


def _log_params(request: Request, probed: ProbedModel, identity: dict[str, Any], log: RunLog) -> None:
    """Log the options as params, and those of the source run as `source/...`, so that tables need no other run."""
    spec = probed.plan.spec
    source: dict[str, Any] = {"model": spec.model}
    if request.reads_items:  # the task may differ from that of the source run
        source |= {"task": probed.plan.task.name}
        source |= {name: getattr(spec, name) for name in ("difficulty", "prompt_language")}
    if probed.run_id is not None:
        source |= {f"source/{name}": getattr(spec, name) for name in _SOURCE_PARAMS}
        log.tags({"source": probed.run_id})
    versions = {f"version/{package}": version(package) for package in _VERSIONED}
    log.params({**identity, **source, **versions, "version/whichlora": __version__})


def _log_result(result: ProbeResult, log: RunLog, work: Path) -> None:
    """Log the metrics, `layers.parquet`, the figures and the other files."""
    announce("Logging the tables and figures.")
    folder = work / "artifacts"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "figures").mkdir(parents=True)
    result.layers.to_parquet(folder / "layers.parquet", index=False)
    for name, figure in result.figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=160)
        figure.savefig(folder / "figures" / f"{name}.svg")
    for path in result.files:
        shutil.copy(path, folder)
    log.artifacts(folder)
    # NaN is an undefined value; states and logits that are not finite have stopped the probe before.
    log.metrics({name: value for name, value in result.metrics.items() if not math.isnan(value)})
    for name, curve in result.series.items():
        log.series(name, curve)
