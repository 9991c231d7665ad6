"""Finds experiments by their names, and runs by the beginning of their ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from whichlora.errors import OptionError, did_you_mean
from whichlora.option_lists import within
from whichlora.tracking.client import search_all

_LENGTH = 32
_ID = re.compile(rf"[0-9a-f]{{4,{_LENGTH}}}")
_SHOWN = 5
LISTS = "`whichlora runs` lists the runs"
"""What an error says of a run that was not found."""


def all_experiments(client: MlflowClient) -> dict[str, str]:
    """Return the ids of all experiments by name."""
    return {e.name: e.experiment_id for e in search_all(client.search_experiments)}


def find_experiments(client: MlflowClient, text: str) -> dict[str, str]:
    """Return the ids by name of the experiments that the option names: one, or several separated by commas.

    Raises:
        OptionError: there is no such experiment; the message lists the existing ones.
    """
    known = all_experiments(client)
    names = [text] if text in known else list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        near = did_you_mean(unknown[0], known) if unknown else ""
        allowed = f"no such experiment; existing are {', '.join(sorted(known))}{near}"
        raise within(OptionError("experiment", unknown[0] if unknown else text, allowed), "experiment", text)
    return {name: known[name] for name in names}


def find_run(client: MlflowClient, option: str, text: str, kinds: Sequence[str | None] = ()) -> Run:
    """Return the run whose id is or begins with `text`, of at least four characters.

    Args:
        option: the option that names the run, for error messages.
        kinds: kinds that are allowed, None for runs that whichlora has not made; empty for all.

    Raises:
        OptionError: there is no such run, it was deleted, it is of another kind, or there are several.
    """
    if not _ID.fullmatch(text):
        allowed = f"must be the id of a run or its first four or more hexadecimal digits; {LISTS}"
        raise OptionError(option, text, allowed)
    ids = list(all_experiments(client).values())
    found = client.search_runs(ids, f"attributes.run_id LIKE '{text}%'", max_results=_SHOWN + 1) if ids else []
    if len(found) == 1:
        if kinds:
            _check_kind(found[0], option, text, kinds)
        run: Run = found[0]
        return run
    if not found:
        if len(text) == _LENGTH and _was_deleted(client, text):
            raise OptionError(option, text, f"was deleted; {LISTS}")
        raise OptionError(option, text, f"there is no such run in the tracking database; {LISTS}")
    several = ", ".join(run.info.run_id for run in found[:_SHOWN])
    more = " and more" if len(found) > _SHOWN else ""
    raise OptionError(option, text, f"several runs have ids that begin like this: {several}{more}")


def _check_kind(run: Run, option: str, text: str, kinds: Sequence[str | None]) -> None:
    kind = run.data.tags.get("whichlora.kind")
    if kind not in kinds:
        described = f"is a {kind}" if kind else "is not of whichlora"
        result = run.data.tags.get("whichlora.result")
        advice = f"; its result is the run {result}" if result else ""
        raise OptionError(option, text, f"must be a {' or '.join(filter(None, kinds))}, but {described}{advice}")


def _was_deleted(client: MlflowClient, run_id: str) -> bool:
    try:
        return str(client.get_run(run_id).info.lifecycle_stage) == LifecycleStage.DELETED
    except MlflowException:  # it never was there
        return False
