"""Which options go with a task of word pairs, and which block's output it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whichlora.data.mixture import target_languages
from whichlora.data.tasks import Task
from whichlora.data.tasks.align_words import pairs_path
from whichlora.data.word_pooling import Pooling
from whichlora.errors import OptionError
from whichlora.parallel import distributed

_OF_PROMPTS = {"tl_ratio": None, "composition": "substitution", "scoring": None, "select_on": None}
_OF_PAIRS = {"pool_layer": None, "first_token": None}


def check_options(task: Task, values: Mapping[str, Any], *, batch_size: int | None) -> None:
    """Check that an option which is given is one of the task's; `batch_size` is None where nothing is trained.

    Raises:
        OptionError: it is not, or there would be no negatives.
    """
    paired = task.kind == "pair"
    for name, default in (_OF_PROMPTS if paired else _OF_PAIRS).items():
        if values[name] != default:
            reason = "every item is a pair of both languages" if paired else "which reads no word pairs"
            raise OptionError(name, values[name], f"is no option of task={task.name}: {reason}; leave it out")
    if paired and values["data_dir"] is not None and values["retention"] == "none":
        for code in target_languages(task, values["language"]):
            if not (file := pairs_path(code, values["data_dir"])).is_file():
                raise OptionError(
                    "data_dir", values["data_dir"], f"has no {file.name}; leave it out for packaged pairs"
                )
    if not paired or batch_size is None:
        return
    if batch_size < 2:
        raise OptionError("batch_size", batch_size, "must be at least 2: the other pairs of a batch are the negatives")
    if distributed.world_size() > 1:
        allowed = "trains in one process, which sees all negatives of a batch"
        raise OptionError("task", task.name, f"{allowed}; leave out accelerate launch")


def pooling_of(values: Mapping[str, Any], layers: Sequence[int], n_layers: int) -> Pooling:
    """Return the pooling that the options ask for; `layers` are the adapted blocks, none where there is no adapter.

    Raises:
        OptionError: there is no such block, or an adapted block above it would get no gradient.
    """
    layer = values["pool_layer"]
    if layer is None:
        layer = max(layers, default=n_layers - 1)
    if layer >= n_layers:
        raise OptionError("pool_layer", layer, f"the model has layers 0-{n_layers - 1}")
    above = [block for block in layers if block > layer]
    if above:
        allowed = f"adapts block {above[0]}, which gets no gradient from pool_layer={layer}"
        raise OptionError(
            "layers", values["layers"], f"{allowed}; allowed are blocks up to {layer}, as in first:{layer + 1}"
        )
    return Pooling(layer, values["first_token"] or "drop")
