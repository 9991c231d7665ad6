"""The runs of the experiment files of the paper, as the columns that claims select by."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import yaml

DESIGNS = Path(__file__).parents[2] / "experiments" / "paper"
MODELS = {"Llama-3.1-8B": 32, "Llama-3.1-8B-Instruct": 32, "Llama-3.2-3B": 28, "Qwen3-8B-Base": 36}
RANKS = {"dora": {"recommended": 16, "matched": 8}, "vera": {"recommended": 256}}


def options_of(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the defaults and arms of an experiment file, with those of the file that it extends."""
    content = yaml.safe_load(path.read_text())
    defaults, arms = options_of(path.parent / content["extends"]) if "extends" in content else ({}, [])
    return {**defaults, **content.get("defaults", {})}, content.get("arms", arms)


def runs_of(path: Path) -> set[tuple[tuple[str, Any], ...]]:
    """Return the runs of an experiment file, as the columns that claims select by."""
    defaults, arms = options_of(path)
    found = set()
    for arm in arms:
        grid = {key: value if isinstance(value, list) else [value] for key, value in {**defaults, **arm}.items()}
        for values in itertools.product(*grid.values()):
            run = dict(zip(grid, values, strict=True))
            model = run["model"].rpartition("/")[2]
            blocks = range(MODELS[model])
            if (layers := run.get("layers", "all")) != "all":
                parts = [part.split("-") for part in str(layers).split(",")]
                blocks = [block for first, last in parts for block in range(int(first), int(last) + 1)]
            columns = {
                **{key: run[key] for key in ("variant", "arm", "task", "language", "tl_ratio", "seed")},
                "model": model,
                "rank": run.get("rank", RANKS.get(run["variant"], {}).get(run["arm"])),
                "alpha": run.get("alpha"),
                "layers": ",".join(map(str, blocks)),
                "train_size": run.get("train_size", {"xnli": 5000, "tydiqa": 3000}[run["task"]]),
            }
            found.add(tuple(columns.items()))
    return found
