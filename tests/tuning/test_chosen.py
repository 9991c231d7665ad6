"""What a tuning has chosen is stored once: of those who store it at the same time, the first one wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna

from tuning.finalists import Finalist
from tuning.study_config import StudyConfig
from tuning.study_status import PREFIX, connect
from tuning.tune import OPTIONS, study_configs
from tuning.tuned import Tuned, _store, chosen


class Meanwhile(list[Finalist]):
    """Finalists that let something else happen once before they are read."""

    def __init__(self, finalists: Sequence[Finalist], happens: Callable[[], None]) -> None:
        super().__init__(finalists)
        self.happens: Callable[[], None] | None = happens

    def __iter__(self) -> Iterator[Finalist]:
        happens, self.happens = self.happens, None
        if happens:
            happens()
        return super().__iter__()


def result(config: StudyConfig, score: float, meanwhile: Callable[[], None] = lambda: None) -> Tuned:
    """Return an invented result of a study."""
    best = Finalist(origin="trial 0", point=config.example, tuned=score, fresh=[score, score])
    return Tuned(
        config=config,
        study=config.name(),
        run_id="0" * 32,
        finalists=Meanwhile([best], meanwhile),
        best=best,
        seconds=score,
        missing=(),
    )


def test_another_process_that_stores_first_wins_and_is_read(store: Path, options: dict[str, str]) -> None:
    texts = {name: default for name, (default, _) in OPTIONS.items()} | options
    (config,) = study_configs(texts)
    optuna.create_study(study_name=PREFIX + config.name(), storage=connect())

    def stores_first() -> None:
        _store([result(config, 0.25)], 4, None)

    _store([result(config, 0.75, meanwhile=stores_first)], 4, None)
    (found,) = chosen([config], trials=4, budget=None)
    assert found == result(config, 0.25)
    _store([result(config, 0.5)], 4, None)
    assert chosen([config], trials=4, budget=None) == [found]
    assert chosen([config], trials=6, budget=None) == [None]
    _store([result(config, 0.5)], 6, None)
    assert chosen([config], trials=6, budget=None) == [result(config, 0.5)]
