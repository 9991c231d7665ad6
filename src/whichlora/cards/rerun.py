"""Writes the command that carries out a run again, for people on other machines."""

from __future__ import annotations

import json
import shlex
from pathlib import PurePath

from whichlora.cards.facts import RunFacts
from whichlora.command_line import PROGRAM
from whichlora.config.options import AUTO, RUN_OPTIONS
from whichlora.config.spec import TASK_OPTION
from whichlora.data.chat import NONE
from whichlora.data.general_text import UDHR
from whichlora.data.tasks import TASKS
from whichlora.models.packaged import CATALOGUE
from whichlora.models.published import PublishedBase
from whichlora.variants import get_variant

_NO_VALUE = ("", "None")
"""What params have where an option does not apply."""


def command(facts: RunFacts, base: PublishedBase) -> str:
    """Return the command, with every value that is not the default.

    Paths are those of another machine, so that of a file or folder only the name is given.
    """
    texts = {name: facts.params[name] for name in RUN_OPTIONS if facts.params.get(name, "") not in _NO_VALUE}
    texts["task"] = PurePath(facts.params.get(TASK_OPTION, texts.get("task", ""))).name
    if texts.get("model") not in CATALOGUE:
        texts["model"] = base.name if base.on_hub else f"./{base.name}"
    if texts.get("chat_template") != NONE:
        texts["chat_template"] = AUTO  # the param has the digest of a template
    retained = next((data.task for context, data in facts.data.items() if "retention/" in context), None)
    if retained is not None:
        texts["retention"] = retained
    aligned = next((data for context, data in facts.data.items() if "alignment/" in context), None)
    if aligned is not None:
        texts |= {"alignment": aligned.task, "alignment_size": str(aligned.items)}
        texts |= {"alignment_dir": f"./{PurePath(aligned.folder).name}"} if aligned.folder is not None else {}
    if not texts.get("forgetting", UDHR).startswith(UDHR):
        texts["forgetting"] = f"./{PurePath(texts['forgetting']).name}"
    folder = facts.data["train"].folder if "train" in facts.data else None
    if folder is not None:
        texts["data_dir"] = f"./{PurePath(folder).name}"
    task = TASKS.get(texts["task"])
    irrelevant = task.irrelevant_options if task else {}
    words = [
        f"--{name} {shlex.quote(text)}"
        for name, text in texts.items()
        if text != RUN_OPTIONS[name][0] and name not in irrelevant
    ]
    return " ".join([PROGRAM, "run", *words])


def other_settings(facts: RunFacts) -> dict[str, object]:
    """Return the method's own settings that the command cannot give, because they are set in files of experiments."""
    try:
        given, usual = json.loads(facts.params.get("variant_options", "{}")), get_variant(facts.variant).options
    except ValueError:
        return {}
    return {name: value for name, value in given.items() if json.loads(json.dumps(usual.get(name))) != value}
