"""The studies that find the settings of a comparison's methods before its first round (option `tune`)."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comparing.comparison import Comparison
from comparing.methods import SEVERAL, comparison_of, naming_all
from comparing.rule import Rule
from tuning.pipeline import forecasts
from tuning.progress import Forecast
from tuning.study_config import StudyConfig
from tuning.tune import OPTIONS, study_configs
from tuning.tuned import MOST_TRIALS, Tuned, chosen, tune_variants
from whichlora.config.cli import format_duration
from whichlora.config.options import AUTO
from whichlora.errors import OptionError, parse_integer
from whichlora.scheduling.jobs import Engine, Job, run_workers
from whichlora.tracking.runs import Tracker

_REMEDY = (
    "The same command resumes the studies. Where training diverged, choose lower learning rates (space=FILE.yaml) or "
    "leave the method out."
)


@dataclass(frozen=True, kw_only=True)
class Studies:
    """A study for each method in each language and ratio.

    Attributes:
        configs: the fixed part of each study.
        seconds: device-seconds of the trials of each study.
        trials: of each study at most, see `tune_variants`; None for no limit.
        draft: the comparison with a known point of each study in the place of its result.
    """

    configs: tuple[StudyConfig, ...]
    seconds: float
    trials: int | None
    draft: Comparison

    def comparison(self) -> Comparison | None:
        """Return the comparison with the settings found, or None while one is missing. Nothing is written."""
        found = [each for each in self._chosen() if each is not None]
        if len(found) < len(self.configs):
            return None
        spent = sum(each.seconds + each.fresh_seconds for each in found)
        return _comparison(self.configs, self.draft.rule, tuned=found, seconds=spent)

    def forecasts(self) -> list[Forecast]:
        """Return what each study will do. Nothing is written.

        Raises:
            OptionError: a study has no valid runs.
        """
        return forecasts(self.configs, trials=self.trials or MOST_TRIALS, budget=self.seconds)

    def tune(self, tracker: Tracker, *, engine: Engine | None, arguments: Sequence[str], pack: int) -> list[str]:
        """Run the studies, here or with the workers of an engine, together with all processes of the same command.

        Args:
            arguments: those of the command.
            pack: number of trials to train at once.

        Returns:
            What is missing, a message each, and what to do.
        """
        missing: list[str] = []
        if engine is not None:
            run_workers(engine, Job("comparing.compare", arguments))
        else:
            command = shlex.join(["python", "-m", "whichlora.compare", *arguments])
            tuned = tune_variants(
                self.configs, tracker, command=command, trials=self.trials, budget=self.seconds, pack=pack
            )
            missing = [message for each in tuned for message in each.missing]
        lacking = [c.name() for c, found in zip(self.configs, self._chosen(), strict=True) if found is None]
        missing += [f"{name}: no best point yet" for name in lacking if not any(m.startswith(name) for m in missing)]
        return [*missing, _REMEDY] if lacking else []

    def _chosen(self) -> list[Tuned | None]:
        return chosen(self.configs, trials=self.trials, budget=self.seconds)


def read_studies(texts: Mapping[str, str], rule: Rule, *, seconds: float, budget: float | None) -> Studies:
    """Return the studies of a comparison of variants.

    Args:
        texts: the options of `run` without `seed` and `arm`, with variants separated by commas, and `tune`, `trials`,
            `rungs` and `space`, unparsed.
        seconds: device-seconds of trials for each method, in all its languages and ratios together.
        budget: of the comparison, in device-seconds; None for no limit.

    Raises:
        OptionError: a value is not allowed, by itself or together with the others.
    """
    rule.check()
    usual = {name: default for name, (default, _) in OPTIONS.items()}
    several = {name: dict.fromkeys(texts[name].split() or [""]) for name in SEVERAL}
    configs: dict[str, StudyConfig] = {}
    for values in itertools.product(*several.values()):
        cell = {**usual, **texts, **dict(zip(several, values, strict=True)), "objective": rule.primary}
        try:
            with naming_all(texts):
                found = study_configs(cell)
            for config in found:
                config.check()
                configs.setdefault(config.name(), config)
        except OptionError as error:
            if error.option == "objective":  # which is the primary outcome
                raise OptionError("primary", rule.primary, error.allowed) from error
            raise
    every = tuple(configs.values())
    methods = len({config.variant.name for config in every})
    if budget is not None and methods * seconds >= budget:
        total, most = format_duration(methods * seconds), format_duration(budget)
        raise OptionError("tune", texts["tune"], f"{total} for {methods} methods leave nothing of the budget of {most}")
    draft = _comparison(every, rule, seconds=methods * seconds, source=("variant", texts["variant"]))
    trials = None if texts["trials"] == AUTO else parse_integer("trials", texts["trials"], 1, MOST_TRIALS)
    return Studies(configs=every, seconds=seconds * methods / len(every), trials=trials, draft=draft)


def _comparison(
    configs: Sequence[StudyConfig],
    rule: Rule,
    *,
    tuned: Sequence[Tuned] = (),
    seconds: float,
    source: tuple[str, str] = ("variant", ""),
) -> Comparison:
    """Return the comparison of what the studies have found, or else of known points.

    Raises:
        OptionError: it is not one of two or more methods.
    """
    seed = rule.rounds[0]
    runs = [each.run(seed) for each in tuned] or [config.run(config.example, seed) for config in configs]
    return comparison_of(None, "", runs, rule, source, tuned=tuned, tuning_seconds=seconds)
