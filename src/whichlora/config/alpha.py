"""The option `alpha`: a number, or a rule that gives it for the rank of a run."""

from __future__ import annotations

import math
import re

from whichlora.errors import OptionError, parse_number

MAX_ALPHA = 10**6
_ROOT = "sqrt"
_RULE = re.compile(rf"(?:([^*]*)\*)?(rank|{_ROOT}(?:\(rank\))?)")
_RULES = "or a rule (rank, sqrt, or a multiple such as 2*rank)"


def parse_alpha(option: str, text: str) -> float | str:
    """Parse a number or a rule: `rank`, `sqrt` (of the rank, also written `sqrt(rank)`), or a multiple of one of them.

    Returns:
        The number, or the rule in its shortest form: `1*rank` is `rank`.

    Raises:
        OptionError: the text is neither.
    """
    try:
        rule = _RULE.fullmatch(text)
        if rule is None:
            return parse_number(option, text, above=0, high=MAX_ALPHA)
        factor = 1.0 if rule[1] is None else parse_number(option, rule[1], above=0, high=MAX_ALPHA)
    except OptionError as error:
        raise OptionError(option, text, f"{error.allowed}, {_RULES}") from error
    name = _ROOT if rule[2].startswith(_ROOT) else "rank"
    return name if factor == 1 else f"{int(factor) if factor.is_integer() else factor}*{name}"


def resolve_alpha(alpha: float | str, rank: int | None) -> float:
    """Return the number that a value of the option stands for at a rank.

    Raises:
        OptionError: a rule gives a number that is too large, or there is no rank.
    """
    if not isinstance(alpha, str):
        return alpha
    if rank is None:
        raise OptionError("alpha", alpha, "must be a number: the variant has no rank")
    factor, _, name = alpha.rpartition("*")
    number = float(factor or 1) * (math.sqrt(rank) if name == _ROOT else rank)
    if number > MAX_ALPHA:
        raise OptionError("alpha", alpha, f"must give at most {MAX_ALPHA}, and is {number:g} at rank {rank}")
    return number
