"""Tests that a claim can name: each returns a verdict (supported, contradicted or undecided) with its reason.

"No difference" is supported only by equivalence within the margin, and contradicted by a significant difference.
"Better" is supported by a significant difference, and contradicted by one in the opposite direction or by equivalence.
Anything else is undecided; the reason then gives the minimum detectable difference of the design. A claim of several
parts is supported if all of them are, and contradicted if one of them is. Differences are adjusted for the number of
pairs; equivalence needs no adjustment, because all pairs must pass (intersection-union test, Berger 1982). A
test raises NotTestable if the runs cannot test a claim at all, which is then undecided for that reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from analysis.claims.correlation_tests import correlation, layer_correlation
from analysis.claims.front_test import front
from analysis.claims.hyperparameter_tests import best_value
from analysis.claims.interaction_test import interaction
from analysis.claims.method_tests import differ, no_difference, order
from analysis.claims.orders import NOT_WORSE, parse_order
from analysis.claims.part_tests import best, configurations, measures
from analysis.claims.parts import number_needed
from analysis.claims.verdicts import Verdict
from analysis.measures.layer_shares import check_layer_arguments
from analysis.runs.language_probes import LEVELS, share_column


@dataclass(frozen=True)
class ClaimTest:
    """A test that claims can name: its function, and a check of the arguments that a claim passes to it."""

    judge: Callable[..., Verdict]

    def argument_types(self) -> type[BaseModel]:
        """Return a schema with the types of the arguments; `check` finds those that are unknown or missing."""
        hints = get_type_hints(self.judge)
        fields: dict[str, Any] = {p.name: (hints[p.name], None) for p in self._parameters()}
        return create_model("Arguments", __config__=ConfigDict(strict=True), **fields)

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Check the arguments of a claim.

        Raises:
            ValueError: an argument is unknown, missing or malformed.
        """
        parameters = self._parameters()
        names = [p.name for p in parameters]
        for key in arguments:
            if key not in names:
                raise ValueError(f"{key} is not an argument of the test; allowed are {', '.join(names) or 'none'}")
        for parameter in parameters:
            if parameter.default is parameter.empty and parameter.name not in arguments:
                raise ValueError(f"the test needs the argument {parameter.name}")
        if "order" in arguments:
            signs = {sign for _, sign, _ in parse_order(arguments["order"])}
            if NOT_WORSE in signs and self.judge is order:
                raise ValueError(f"order has {NOT_WORSE}, which the tests configurations and measures know")
        if "hold" in arguments:
            number_needed(arguments["hold"], 1)
        for key in ("columns", "metrics"):
            if arguments.get(key) == []:
                raise ValueError(f"{key} must be a list of at least one column")
        if arguments.get("methods") == {}:
            raise ValueError("methods must name at least one language and its best method")
        for key, least in (("ratio", 0), ("within", 1), ("of", 0)):
            if key in arguments and not arguments[key] > least:
                raise ValueError(f"{key} {arguments[key]}; must be a number above {least}")
        if arguments.get("sign", 1) not in (1, -1):
            raise ValueError(f"sign {arguments['sign']}; allowed are 1, -1")
        if "share" in arguments:
            check_layer_arguments(**{"layers": None, "depth": None, "level": LEVELS[0], **arguments})

    def metrics(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return the columns that a claim measures, besides F1 where a test has no other."""
        named = [arguments.get("metric", "f1"), arguments.get("cost"), arguments.get("equal")]
        named += [*arguments.get("metrics", ()), *arguments.get("columns", ())]
        if self.judge is layer_correlation:
            named.append(share_column(arguments.get("level", LEVELS[0]), arguments["share"], 0))
        return [metric for metric in named if metric]

    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.judge).parameters.values())[5:]


_TESTS: Mapping[str, Callable[..., Verdict]] = {
    "no_difference": no_difference,
    "order": order,
    "differ": differ,
    "configurations": configurations,
    "measures": measures,
    "best": best,
    "front": front,
    "best_value": best_value,
    "interaction": interaction,
    "correlation": correlation,
    "layer_correlation": layer_correlation,
}
TESTS = {name: ClaimTest(judge) for name, judge in _TESTS.items()}
