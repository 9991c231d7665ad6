"""Carries out a comparison: plan, settings, rounds of seeds, answer. Read this first."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from comparing import champion, record
from comparing.answer import BUDGET, DECIDED, FAILED, MAX_SEEDS, RUNNING, Answer, answer_of, files
from comparing.comparison import Comparison
from comparing.costs import Costs, costs
from comparing.description import describe
from comparing.plan_text import plan_text, round_text
from comparing.results import Results
from comparing.studies import Studies
from whichlora.errors import printable
from whichlora.experiment.grid import Grid
from whichlora.experiment.pipeline import run_missing
from whichlora.experiment.progress import survey_runs
from whichlora.models.memory import freeze_gc
from whichlora.run import seed_summary
from whichlora.scheduling import storage
from whichlora.scheduling.jobs import Engine, Job, is_worker, run_workers
from whichlora.text_tables import terminal_width
from whichlora.tracking.client import check_writable, create_work_folder, database_exists, experiment_id, is_read_only
from whichlora.tracking.experiment_page import results_line, store_about
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker
from whichlora.training.multi_adapter import parse_pack

_EXPERIMENT = "whichlora"
_POLL_SECONDS = 10.0
"""Seconds between two looks at what the workers of an engine have done."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a comparison is to be carried out, which may change from call to call.

    Attributes:
        budget: device-seconds of the comparison's own runs; None for no limit.
        stop: "answer" or "budget".
        engine: runs the workers; None runs everything in this process.
        pack: the option `pack` as text: number of runs to train at once.
        dry_run: whether to print the plan only.
        register: name in the Model Registry, or "auto"; None to register nothing.
        arguments: the arguments of the command, for the workers.
    """

    budget: float | None
    stop: str
    engine: Engine | None
    pack: str
    dry_run: bool
    register: str | None
    arguments: Sequence[str]

    @property
    def beyond(self) -> bool:
        """Whether seeds are added after every method is decided."""
        return self.stop == "budget"


def run_comparison(subject: Comparison | Studies, request: Request) -> int:
    """Print the plan, find the settings, do the rounds that are needed, and print and store the answer.

    Args:
        subject: a comparison, or the studies that find the settings of its methods.

    Returns:
        The exit status: 1 if it stopped because settings or runs have no result.

    Raises:
        OptionError: runs cannot be packed, workers cannot start, or this user cannot write results.
    """
    draft = subject if isinstance(subject, Comparison) else subject.draft
    plans = [plan for of_method in draft.plans(draft.rule.rounds[0]).values() for plan in of_method]
    pack = parse_pack(request.pack, plans)
    freeze_gc()
    if not request.dry_run:
        create_work_folder()
        storage.check_configured()
    # A dry run writes nothing, not even an empty database.
    tracker = None if request.dry_run and not database_exists() else Tracker.for_command(draft.experiment)
    if isinstance(subject, Comparison):
        return _do_rounds(subject, request, tracker, pack)
    comparison = subject.comparison()
    if comparison is None:
        if not _find_settings(subject, request, tracker, pack):
            return 1
        comparison = subject.comparison()
        if request.dry_run or is_worker():  # workers of the rounds are started later, when all know the comparison
            return 0
    assert comparison is not None
    return _do_rounds(comparison, request, tracker, pack)


def _find_settings(studies: Studies, request: Request, tracker: Tracker | None, pack: int) -> bool:
    """Print the plan and, unless this is a dry run, run the studies; return whether nothing is missing."""
    draft = studies.draft
    experiment = tracker.experiment if tracker else _EXPERIMENT
    if not is_worker():
        results = Results(draft, experiment)
        spent = _costs(results, tracker, None, request)
        _print(plan_text(draft, results, spent, experiment=experiment, stop=request.stop, studies=studies))
    if request.dry_run or tracker is None:
        return True
    check_writable()
    storage.check_writable()
    if request.engine is not None:
        request.engine.connect()
    missing = studies.tune(tracker, engine=request.engine, arguments=request.arguments, pack=pack)
    for message in missing:
        print(printable(message), file=sys.stderr)
    return not missing


def _do_rounds(comparison: Comparison, request: Request, tracker: Tracker | None, pack: int) -> int:
    """Do the rounds of a comparison; see `run_comparison`."""
    experiment = tracker.experiment if tracker else comparison.experiment or _EXPERIMENT
    results = Results(comparison, experiment)
    if tracker is not None:
        results.update(tracker.client, beyond=request.beyond)
    plan, spent = "", _costs(results, tracker, None, request)
    if not is_worker():
        plan = plan_text(comparison, results, spent, experiment=experiment, stop=request.stop)
        _print(plan)
    if request.dry_run or tracker is None:
        return 0
    already = _why_ended(results, spent, request)
    if already is not None and is_read_only():
        _print(answer_of(results, spent, already).text(width=terminal_width()))
        return 0
    check_writable()
    if request.engine is not None and already is None:
        request.engine.connect()
    storage.check_writable()
    log = record.open_record(comparison, tracker)
    if plan:
        record.store_plan(log, plan)
    store_about(tracker.client, experiment_id(tracker.client, experiment), comparison.about)
    rounds = Rounds(comparison, results, replace(tracker, parent=log.run_id), log, request, pack)
    ended, reason = rounds.work()
    if is_worker():
        return 0
    answer = rounds.store(ended, reason, register=True)
    _print(answer.text(width=terminal_width()))
    print(results_line(tracker.client, experiment))
    print(f"Report: whichlora analyze --experiment {shlex.quote(experiment)}")
    return 1 if ended == FAILED else 0


class Rounds:
    """The rounds of a comparison, done together with all other processes that have the same command."""

    def __init__(
        self, comparison: Comparison, results: Results, tracker: Tracker, log: RunLog, request: Request, pack: int
    ) -> None:
        self._comparison, self._results, self._tracker = comparison, results, tracker
        self._log, self._request, self._pack = log, request, pack
        self._told, self._read = len(results.scores), -_POLL_SECONDS

    def work(self) -> tuple[str, str]:
        """Do rounds, here or with the workers of an engine, until there is nothing to do.

        Returns:
            Why it has ended, and what is to be said about it.
        """
        if self._request.engine is None or self._ended() is not None:
            return self._work_here()
        run_workers(self._request.engine, Job("comparing.compare", self._request.arguments), self._tell)
        self._read = -_POLL_SECONDS
        self._tell()
        ended = self._ended()
        return (FAILED, self._lacking()) if ended is None else (ended, "")

    def store(self, ended: str, reason: str = "", *, register: bool = False) -> Answer:
        """Store the answer as it is now, and return it.

        Args:
            register: whether to register the adapters of the method to take.
        """
        spent, client = self._costs(), self._tracker.client
        answer = answer_of(self._results, spent, ended, reason)
        if register and self._request.register is not None:
            sentences = champion.register(self._request.register, answer, self._results, client, self._log.run_id)
            answer = replace(answer, sentences=(*answer.sentences, *sentences))
        verdict = self._results.verdict
        metrics = {
            "comparison/seeds": verdict.seeds,
            "comparison/runs": len(self._results.runs),
            "comparison/device_hours": spent.spent / 3600,
            "comparison/decided": sum(standing.decided for standing in verdict.standings),
        }
        record.store(
            self._log,
            texts=files(answer, self._results, spent),
            note=describe(answer, self._tracker.experiment),
            metrics=metrics,
            ended=ended != RUNNING,
        )
        return answer

    def _work_here(self) -> tuple[str, str]:
        while True:
            self._results.update(self._tracker.client, beyond=self._request.beyond)
            self._tell(read=False)
            if (ended := self._ended()) is not None:
                return ended, ""
            grid = self._round()
            run_missing(grid, self._tracker, pack=self._pack)
            done = survey_runs(grid, self._tracker).done
            if not is_worker():
                seed_summary.mend(grid.plans, self._tracker, done)
            before = len(self._results.scores)
            self._results.update(self._tracker.client, beyond=self._request.beyond)
            if len(self._results.scores) == before:
                return FAILED, self._lacking()

    def _round(self) -> Grid:
        """Return the runs of the next round; those that diverged would diverge again."""
        seed = self._comparison.rule.rounds[len(self._results.scores)]
        methods = self._results.next_methods(beyond=self._request.beyond)
        plans = [plan for of_method in self._comparison.plans(seed, methods).values() for plan in of_method]
        ended = self._results.diverged
        return Grid(
            name=self._tracker.experiment,
            about=self._comparison.about,
            plans=[plan for plan in plans if plan.spec.fingerprint not in ended],
        )

    def _ended(self) -> str | None:
        """Return why there is no further round; None if there is one."""
        return _why_ended(self._results, self._costs(), self._request)

    def _lacking(self) -> str:
        """Return which runs of the next round have no result, and why."""
        grid = self._round()
        failures = survey_runs(grid, self._tracker).failures(grid)
        return "; ".join(f"no result: {name}: {reason}" for name, reason in failures.items())

    def _tell(self, *, read: bool = True) -> None:
        """Print and store how the methods stand if a round has been added."""
        if is_worker():
            return
        if read:
            if time.monotonic() - self._read < _POLL_SECONDS:
                return
            self._read = time.monotonic()
            self._results.update(self._tracker.client, beyond=self._request.beyond)
        if len(self._results.scores) > self._told:
            self._told = len(self._results.scores)
            _print(round_text(self._results, self._costs()))
            self.store(RUNNING)

    def _costs(self) -> Costs:
        return _costs(self._results, self._tracker, self._log.run_id, self._request)


def _why_ended(results: Results, found: Costs, request: Request) -> str | None:
    verdict = results.verdict
    if verdict.finished and not request.beyond:
        return DECIDED
    if len(results.scores) >= results.comparison.rule.max_seeds:
        return DECIDED if verdict.finished else MAX_SEEDS
    return BUDGET if found.exhausted else None


def _costs(results: Results, tracker: Tracker | None, parent: str | None, request: Request) -> Costs:
    """Return the costs, and let the results know how many rounds the budget pays for."""
    methods = results.next_methods(beyond=request.beyond)
    client = tracker.client if tracker else None
    if parent is None and client is not None and tracker is not None:
        known = record.find(client, tracker.experiment, results.comparison.digest)
        parent = known.info.run_id if known else None
    found = costs(results, client, parent, request.budget, methods)
    results.afford(found.affordable)
    return found


def _print(text: str) -> None:
    """Print lines, in which names of models and tasks may hold anything."""
    print("\n".join(map(printable, text.splitlines())), flush=True)
