"""Checks the options that depend on whether a task has word pairs, and resolves the pooling of word-pair tasks."""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.config.options import RUN_OPTIONS, RunOptions
from whichlora.data.mixture import target_languages
from whichlora.data.tasks import PairTask, Task
from whichlora.data.tasks.align_words import pairs_path
from whichlora.data.word_pooling import Pooling
from whichlora.errors import OptionError, is_file
from whichlora.parallel import distributed


def check_options(task: Task, options: RunOptions, *, batch_size: int | None) -> None:
    """Check that every option that is set applies to the task; `batch_size` is None if nothing is trained.

    Raises:
        OptionError: An option does not apply, `data_dir` has no file of pairs, a batch would have no negatives, or
            word pairs would be trained by several processes.
    """
    for name, reason in task.irrelevant_options.items():
        value = getattr(options, name)
        if value is not None and value != RUN_OPTIONS[name][0]:
            raise OptionError(name, value, f"does not apply to task={task.name}: {reason}; remove the option")
    if not isinstance(task, PairTask):
        return
    if options.data_dir is not None and options.retention == "none":
        for code in target_languages(task, options.language):
            if not is_file(file := pairs_path(code, options.data_dir)):
                allowed = f"has no {file.name}; remove the option to use the packaged pairs"
                raise OptionError("data_dir", options.data_dir, allowed)
    if batch_size is None:
        return
    if batch_size < 2:
        raise OptionError("batch_size", batch_size, "must be at least 2: the other pairs of a batch are the negatives")
    if distributed.world_size() > 1:
        allowed = "must train in one process, which sees all negatives of a batch; do not use accelerate launch"
        raise OptionError("task", task.name, allowed)


def pooling_of(options: RunOptions, layers: Sequence[int], n_layers: int) -> Pooling:
    """Return the pooling that the options select; `layers` are the adapted blocks, empty without an adapter.

    Raises:
        OptionError: The model has no such block, or an adapted block above the pooled one would get no gradient.
    """
    layer = options.pool_layer
    if layer is None:
        layer = max(layers, default=n_layers - 1)
    if layer >= n_layers:
        raise OptionError("pool_layer", layer, f"the model has layers 0-{n_layers - 1}")
    above = [block for block in layers if block > layer]
    if above:
        allowed = f"adapts block {above[0]}, which gets no gradient at pool_layer={layer}"
        raise OptionError(
            "layers", options.layers, f"{allowed}; allowed are blocks up to {layer}, as in first:{layer + 1}"
        )
    return Pooling(layer, options.first_token or "drop")
