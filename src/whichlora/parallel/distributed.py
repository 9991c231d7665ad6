"""Several processes under `accelerate launch`: one leads, the others join it wherever a model is trained.

The leader alone resolves options, keeps locks, tracks, validates and scores. The others wait until it calls a function
`on_all_ranks`, do that function with it, and wait again. They wait on sockets, not on the GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from whichlora.errors import OptionError, ProofError

_LONGEST_WAIT = timedelta(days=30)
"""The leader may wait for another run's lock, or score for hours, while the others wait for it."""

_control: Any = None
"""The group of sockets on which processes wait; None until `start`, and after the leader failed in `on_all_ranks`."""


def world_size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number; the leader is 0."""
    return int(os.environ.get("RANK", "0"))


def check_batch(batch_size: int | None) -> None:
    """Check that every process can have the same share of an effective batch.

    Raises:
        OptionError: the batch size is not a multiple of the number of processes.
    """
    if batch_size is not None and batch_size % world_size():
        raise OptionError("batch_size", batch_size, f"must be a multiple of the {world_size()} processes")


def join_ranks() -> None:
    """Join the other processes, if there are any."""
    global _control
    if world_size() == 1 or _control is not None:
        return
    import torch
    import torch.distributed as dist
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    kind = PartialState(cpu=not torch.cuda.is_available()).distributed_type
    if kind not in (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        raise RuntimeError(f"accelerate launch with {kind} is not supported; use plain data parallelism")
    _control = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)


def run_on_leader(work: Callable[[], int], *, prepare: Callable[[], None] = lambda: None) -> int:
    """Join the other processes, do `work` in the leader while they wait for its calls, and return its exit status.

    The others call `prepare` before they wait.
    """
    join_ranks()
    if rank() > 0:
        prepare()
        serve()
        return 0
    try:
        return work()
    finally:
        finish()


def on_all_ranks(function: Callable[..., Any], *arguments: Any, **leaders: Any) -> Any:
    """Call `function` in all processes and return the leader's result; `leaders` are given to the leader alone.

    The function and its arguments must be picklable, and it must do the same collective calls in every process.
    """
    global _control
    if world_size() > 1:
        _send((function, arguments))
    try:
        return function(*arguments, **leaders)
    except ProofError:  # raised alike in every process, all of which can go on
        raise
    except BaseException:
        _control = None  # the others may be anywhere; they end when this process does
        raise


def out_of_sync() -> bool:
    """Whether the processes cannot train together any more, because one failed while they did."""
    return world_size() > 1 and _control is None


def serve() -> None:
    """Join in what the leader calls for until it says that it has finished."""
    while (message := _send(None)) is not None:
        function, arguments = message
        try:
            function(*arguments)
        except ProofError:
            continue


def finish() -> None:
    """Let the other processes end; called by the leader, whatever happened."""
    if world_size() > 1 and _control is not None:
        _send(None)


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier(group=_control)


def all_reduce_sum(*values: float) -> tuple[float, ...]:
    """Return the sums of numbers over the processes."""
    if world_size() == 1:
        return values
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, group=_control)
    return tuple(tensor.tolist())


def all_reduce_gradients(model: Any) -> None:
    """Replace each trainable parameter's gradient by the sum over the processes; none counts as zero.

    All at the end of an optimiser step: a process that runs out of memory can then do its share again while the others
    wait, which `DistributedDataParallel` does not allow once its reduction has begun.
    """
    if world_size() == 1:
        return
    import torch
    import torch.distributed as dist

    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


def _send(message: Any) -> Any:
    """Return in every process what the leader gives."""
    import torch.distributed as dist

    if _control is None:
        raise RuntimeError("the processes lost each other: an earlier run failed in one of them")
    box = [message]
    dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]
