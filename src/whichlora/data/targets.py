"""The target languages of a run, as the option `language` names them.

`tr` is one language, `tr,az` are two whose training items alternate, and with `tr:2,az:1` two thirds of the target
items are in the first. `pooled` are the languages that the task pools.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from whichlora.data.tasks.base import Task
from whichlora.errors import OptionError, check_choice, did_you_mean

POOLED = "pooled"
"""Value of the option `language` that stands for all of a task's `pooled` languages together."""
MAX_SHARE = 100


def target_languages(task: Task, language: str) -> tuple[str, ...]:
    """Return the languages that the option `language` stands for."""
    return tuple(target_shares(task, language))


def target_shares(task: Task, language: str) -> Mapping[str, int]:
    """Return the languages that the option `language` stands for, with their shares of the target items.

    Raises:
        OptionError: it is malformed.
    """
    if language == POOLED:
        return dict.fromkeys(task.pooled, 1)
    shares: dict[str, int] = {}
    for part in language.strip().removeprefix("[").removesuffix("]").split(","):
        code, colon, share = (text.strip() for text in part.partition(":"))
        number = int(share) if share.isdecimal() else 0
        if not code or code in shares or (colon and not 1 <= number <= MAX_SHARE):
            allowed = f"must be different codes, separated by commas, with shares from 1 to {MAX_SHARE} as in tr:2,az:1"
            raise OptionError("language", language, allowed)
        shares[code] = number or 1
    return shares


def canonical_language(task: Task, language: str) -> str:
    """Return one spelling for the same target languages and shares: in the order of the task, in lowest terms.

    Raises:
        OptionError: it is malformed, or the task does not have a language.
    """
    if language == POOLED:
        return language
    allowed = [*(code for code in task.languages if code != task.source), POOLED]
    shares = target_shares(task, language)
    if len(shares) == 1:
        return check_choice("language", next(iter(shares)), allowed)
    for code in shares:
        if code not in allowed[:-1]:
            near = did_you_mean(code, allowed[:-1])
            raise OptionError("language", language, f"has {code}; allowed are {', '.join(allowed[:-1])}{near}")
    divisor = math.gcd(*shares.values())
    equal = len(set(shares.values())) == 1
    ordered = [code for code in task.languages if code in shares]
    return ",".join(code if equal else f"{code}:{shares[code] // divisor}" for code in ordered)


def alternation(shares: Sequence[int]) -> tuple[int, ...]:
    """Return the order in which languages take turns until each has its share, by their positions in `shares`.

    The languages are spread evenly (smooth weighted round robin): (2, 1) gives (0, 1, 0), and equal shares take turns.
    """
    order, credit = [], [0] * len(shares)
    for _ in range(sum(shares) // math.gcd(*shares)):
        credit = [own + share for own, share in zip(credit, shares, strict=True)]
        chosen = credit.index(max(credit))
        credit[chosen] -= sum(shares)
        order.append(chosen)
    return tuple(order)
