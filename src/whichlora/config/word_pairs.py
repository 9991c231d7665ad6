"""Checks the options that depend on whether a task has word pairs, and resolves the pooling of word-pair tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whichlora.config.options import RUN_OPTIONS, RunOptions
from whichlora.data.targets import target_languages
from whichlora.data.tasks import Item, PairTask, Task
from whichlora.data.tasks.align_words import pairs_path
from whichlora.data.tasks.items import PairItem
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
        if name == "chat_template" and options.retention != "none":
            continue  # it is about the prompts of that task
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
    allowed = "needs all negatives of a batch in one process, so that it cannot be trained"
    distributed.check_one_process("task", task.name, allowed)


def check_items(items_by_size: Mapping[str, Sequence[Item]]) -> None:
    """Check that the word pairs of each set differ, so that there are random pairs to compare them with.

    Args:
        items_by_size: the items of each set, by the option that sets their number; items of prompted tasks are ignored.

    Raises:
        OptionError: All pairs of a set have the same word or the same translation.
    """
    for option, items in items_by_size.items():
        pairs = [item for item in items if isinstance(item, PairItem)]
        if pairs and (len({pair.word for pair in pairs}) == 1 or len({pair.translation for pair in pairs}) == 1):
            allowed = "needs pairs with different words and translations, because a pair is compared with random pairs"
            raise OptionError(option, len(pairs), allowed)


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
