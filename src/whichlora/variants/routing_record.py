"""Records which experts a routed optimiser updated: a table of all updates, and their shares by layer and module."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from whichlora.variants.routing import RoutedAdamW

_LAYER = re.compile(r"\.(\d+)\.")


def updates(optimizer: RoutedAdamW) -> pd.DataFrame:
    """Return a row for each update of an expert: `step`, counted from 1, `module`, and the expert's name, `expert`."""
    modules = pd.Index(optimizer.modules)
    experts = pd.Index(optimizer.modules[modules[0]])
    steps, rows, columns = (index.numpy() for index in torch.stack(optimizer.winners).nonzero(as_tuple=True))
    return pd.DataFrame(
        {
            "step": (steps + 1).astype("int32"),
            "module": pd.Categorical.from_codes(rows, modules),
            "expert": pd.Categorical.from_codes(columns, experts),
        }
    )


def shares(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return for each expert the share of steps in which it was updated, as a table (layers, module types).

    Args:
        table: as returned by `updates`. Steps in which no expert of a module was updated do not count.
    """
    counts = table.groupby(["module", "expert"], observed=False).size().unstack("expert")
    steps = table.drop_duplicates(["step", "module"])["module"].value_counts().reindex(counts.index)
    relative = counts.div(steps.where(steps > 0), axis=0)
    names = relative.index.astype(str)
    # A module without a number in its name belongs to no layer; adapters have none of these.
    layers = names.map(lambda name: int(found[1]) if (found := _LAYER.search(name)) else -1)
    kinds = names.map(lambda name: name.rpartition(".")[2])
    order = list(dict.fromkeys(kinds))
    return {str(n): column.groupby([layers, kinds]).mean().unstack()[order] for n, column in relative.items()}


def share_figure(table: pd.DataFrame) -> Figure:
    """Draw the shares of all experts but the first as heat maps by layer and module type, darker for larger shares."""
    from matplotlib.figure import Figure

    maps = dict(list(shares(table).items())[1:])
    height = 1.6 + 0.17 * max((len(cells) for cells in maps.values()), default=0)
    figure = Figure(figsize=(1.2 + 3.4 * len(maps), height), layout="constrained")
    for axis, (expert, cells) in zip(
        figure.subplots(1, max(1, len(maps)), squeeze=False)[0], maps.items(), strict=False
    ):
        image = axis.imshow(cells.to_numpy(dtype=float), cmap="Greys", aspect="auto", vmin=0, vmax=1)
        axis.set_xticks(
            range(cells.shape[1]), [c.removesuffix("_proj") for c in cells.columns], rotation=45, fontsize=8
        )
        every = 1 + len(cells) // 16
        axis.set_yticks(range(0, len(cells), every), cells.index[::every], fontsize=8)
        axis.set(title=expert, ylabel="block")
        figure.colorbar(image, ax=axis, shrink=0.8)
    figure.suptitle("Share of steps in which the expert was updated", fontsize=11)
    return figure


def write_record(optimizer: RoutedAdamW, folder: Path) -> dict[str, float]:
    """Write the updates (`routing.parquet`) and, if there are several experts, their shares (`routing.png`).

    Returns:
        The mean share of steps in which each expert was updated, as `update_share/EXPERT`.
    """
    table = updates(optimizer)
    table.to_parquet(folder / "routing.parquet", index=False)
    if len(table["expert"].cat.categories) > 1:
        share_figure(table).savefig(folder / "routing.png", dpi=150)
    steps = len(table.drop_duplicates(["step", "module"]))
    counts = table["expert"].value_counts(sort=False)
    return {f"update_share/{expert}": float(count / steps) if steps else 0.0 for expert, count in counts.items()}
