"""Coordinates the processes of `accelerate launch`: rank 0 leads, and the other ranks join it to train a model.

The leader alone resolves options, holds locks, tracks, validates and scores. The other ranks wait until it calls a
function through `on_all_ranks`, execute that function too, and wait again. They wait on sockets (gloo), not on the GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from whichlora.errors import OptionError, ProofError, number_from_environment

_TIMEOUT = timedelta(days=30)
"""Timeout of the other ranks, which wait while the leader scores for hours or waits for another run's lock."""

T = TypeVar("T")

_control_group: Any = None
"""Process group (gloo) on which ranks wait; None before `join_ranks` and after a failure in `on_all_ranks`."""


def world_size() -> int:
    """Return the number of processes that train together."""
    return int(number_from_environment("WORLD_SIZE", 1, low=1, high=10**6, whole=True))


def rank() -> int:
    """Return the rank of this process; the leader has rank 0."""
    return int(number_from_environment("RANK", 0, low=0, high=10**6, whole=True))


def check_environment() -> None:
    """Check the variables that `accelerate launch` sets.

    Raises:
        OptionError: a variable has a value that is not allowed, or there is no launcher.
    """
    if os.environ.get("LOCAL_RANK") != "-1":
        number_from_environment("LOCAL_RANK", 0, low=0, high=10**6, whole=True)
    if rank() >= world_size():
        raise OptionError("RANK", rank(), f"must be below WORLD_SIZE={world_size()}; unset both variables")
    if world_size() > 1 and not os.environ.get("MASTER_ADDR"):
        allowed = "needs MASTER_ADDR, which accelerate launch sets; unset the variable for a single process"
        raise OptionError("WORLD_SIZE", world_size(), allowed)


def check_one_process(option: str, value: object, allowed: str) -> None:
    """Check that this process is the only one if it has an option that several processes cannot have.

    Args:
        option: name of the option, for the error message.
        value: its value.
        allowed: what the option needs or what it must be, for the beginning of the error message.

    Raises:
        OptionError: it was started by `accelerate launch` with others.
    """
    if world_size() > 1:
        raise OptionError(option, value, f"{allowed} under accelerate launch, whose processes train one run together")


def check_starts_alone(command: str) -> None:
    """Check that this process is the only one of a command that shares its work among workers instead.

    Raises:
        OptionError: it was started by `accelerate launch` with others.
    """
    check_one_process("WORLD_SIZE", world_size(), f"start {command} with workers={world_size()} instead: it cannot run")


def check_batch(batch_size: int | None) -> None:
    """Check that the effective batch can be divided evenly among the processes.

    Raises:
        OptionError: the batch size is not a multiple of the number of processes.
    """
    if batch_size is not None and batch_size % world_size():
        raise OptionError("batch_size", batch_size, f"must be a multiple of the {world_size()} processes")


def join_ranks() -> None:
    """Create the process group of all ranks, if there are several.

    Raises:
        RuntimeError: accelerate was launched with something other than plain data parallelism.
    """
    global _control_group
    if world_size() == 1 or _control_group is not None:
        return
    import torch
    import torch.distributed as dist
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    kind = PartialState(cpu=not torch.cuda.is_available()).distributed_type
    if kind not in (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        raise RuntimeError(f"accelerate launch with {kind} is not supported; use plain data parallelism")
    _control_group = dist.new_group(backend="gloo", timeout=_TIMEOUT)


def run_on_leader(work: Callable[[], int], *, prepare: Callable[[], None] = lambda: None) -> int:
    """Join the ranks, run `work` on the leader while the other ranks serve its calls, and return its exit status.

    The other ranks call `prepare` before they wait, and return 0.
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


def on_all_ranks(function: Callable[..., Any], *arguments: Any, **leader_only: Any) -> Any:
    """Call `function(*arguments)` on all ranks and return the leader's result.

    Only the leader's call receives the keyword arguments. The function and its arguments must be picklable, and it must
    make the same collective calls on every rank.
    """
    global _control_group
    if world_size() > 1:
        _broadcast((function, arguments))
    try:
        return function(*arguments, **leader_only)
    except ProofError:  # raised on every rank, so all can continue
        raise
    except BaseException:
        _control_group = None  # the state of the other ranks is unknown; they end with this process
        raise


def out_of_sync() -> bool:
    """Return whether the ranks can no longer train together because a call on all ranks failed."""
    return world_size() > 1 and _control_group is None


def serve() -> None:
    """Execute the functions that the leader calls on all ranks until it sends the end signal."""
    while (message := _broadcast(None)) is not None:
        function, arguments = message
        try:
            function(*arguments)
        except ProofError:
            continue


def finish() -> None:
    """Send the other ranks the end signal. The leader calls this on success and on failure."""
    if world_size() > 1 and _control_group is not None:
        _broadcast(None)


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier(group=_control_group)


def on_leader(work: Callable[[], None] | None) -> None:
    """Let the leader call `work` while the other ranks, with None, wait; a `ProofError` in it is raised on every rank.

    Raises:
        ProofError: `work` raised it.
    """
    error: ProofError | None = None
    if work is not None:
        try:
            work()
        except ProofError as raised:
            error = raised
    (failed,) = all_reduce_sum(float(error is not None))
    if error is not None:
        raise error
    if failed:
        raise ProofError("the leading process stopped this run")


def from_leader(work: Callable[[], T]) -> T:
    """Let the leader call `work` while the other ranks wait, and return its result on every rank.

    Raises:
        ProofError: `work` raised it.
    """
    result: T | None = None

    def keep() -> None:
        nonlocal result
        result = work()

    on_leader(keep if rank() == 0 else None)
    return result if world_size() == 1 else _broadcast(result)  # type: ignore[return-value]


def all_reduce_sum(*values: float) -> tuple[float, ...]:
    """Return each value summed over the processes."""
    if world_size() == 1:
        return values
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, group=_control_group)
    return tuple(tensor.tolist())


def all_reduce_gradients(model: Any) -> None:
    """Replace each trainable parameter's gradient by its sum over the processes; a missing gradient counts as zero.

    Called once at the end of an optimiser step, so that a process that runs out of memory can repeat its share while
    the others wait. `DistributedDataParallel` does not allow that once its reduction has begun.
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


def all_reduce_tensor(tensor: Any) -> Any:
    """Return a tensor summed over the processes, on its device and without waiting for it."""
    if world_size() == 1:
        return tensor
    import torch.distributed as dist

    total = tensor.clone()
    dist.all_reduce(total)
    return total


def _broadcast(message: Any) -> Any:
    """Broadcast the leader's message and return it on every rank."""
    import torch.distributed as dist

    if _control_group is None:
        raise RuntimeError(
            "the processes are out of sync: an earlier run failed in one of them; start the command again"
        )
    box = [message]
    dist.broadcast_object_list(box, src=0, group=_control_group)
    return box[0]
