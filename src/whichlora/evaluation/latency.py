"""Measures what inference with a model takes: time to the first token and to each further one, throughput, memory.

It is what a user of transformers and PEFT gets: `generate`, greedy, with a cache, without this package's kernels for
adapters. Text is of no importance to the time, so the prompts are made of arbitrary tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, pairwise
from statistics import median
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import StoppingCriteria

from whichlora.evaluation.generation import decoding_of, greedy_continuations
from whichlora.models.forward_checks import sample_text

PROMPT_TOKENS, NEW_TOKENS, BATCH_SIZE, REPEATS = 32, 4, 8, 5
"""Tokens of a prompt and of a continuation, prompts of the batch that gives the throughput, and repetitions of the
measurement of a single prompt. They are few, because every run is measured."""
_SECONDS = 1.0
"""Time after which the measurement of a single prompt is not repeated."""
_MB = 10**6


class _Clock(StoppingCriteria):  # type: ignore[misc]
    """Records when each token is there, and never ends a text."""

    def __init__(self) -> None:
        self.times = [_now()]

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.times.append(_now())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def seconds(self) -> list[float]:
        """Return the seconds to each token, the first one from the start."""
        return [after - before for before, after in pairwise(self.times)]


def inference_costs(model: Any, *, context: int | None) -> dict[str, float]:
    """Return the costs of inference with a model, in eval mode.

    - `first_token_ms`, `token_ms`: time to the first token of one prompt (prefill) and to each further token
      (decoding), milliseconds; medians over up to `REPEATS` prompts after one that warms up
    - `tokens_per_second`: further tokens of `BATCH_SIZE` prompts at a time, by the median step
    - `weights_mb`: size of all parameters and buffers, MB (10^6 bytes)
    - `memory_max_mb`: on a GPU, the weights and the most that inference with the batch allocates beside them, MB. On a
      CPU the memory of a process that has trained says nothing about inference.
    - `other_load`: mean number of CPU cores that other processes kept busy meanwhile

    Args:
        context: tokens that the model can read; None for no limit.
    """
    length = min(PROMPT_TOKENS, (context or PROMPT_TOKENS + NEW_TOKENS) - NEW_TOKENS)
    prompt = torch.tensor([sample_text(model, max(1, length))])
    was_training = model.training
    model.eval()
    try:
        cached = decoding_of(model).cached
        began, idle = time.perf_counter(), _busy_others()
        _continue(model, prompt, 2, cached)
        single = [_continue(model, prompt, NEW_TOKENS, cached)]
        while len(single) < REPEATS and sum(map(sum, single)) < _SECONDS:
            single.append(_continue(model, prompt, NEW_TOKENS, cached))
        batch, allocated = _allocated_by(lambda: _continue(model, prompt.repeat(BATCH_SIZE, 1), NEW_TOKENS, cached))
        seconds, busy = time.perf_counter() - began, _busy_others()
    finally:
        model.train(was_training)
    further = chain.from_iterable(times[1:] for times in single)
    weights = _weights(model) / _MB
    costs = {
        "first_token_ms": 1000 * median(times[0] for times in single),
        "token_ms": 1000 * median(further),
        "tokens_per_second": BATCH_SIZE / median(batch[1:]),
        "weights_mb": weights,
        "other_load": max(0.0, (busy - idle) / seconds),
    }
    return costs if allocated is None else {**costs, "memory_max_mb": weights + allocated / _MB}


def _continue(model: Any, prompts: Tensor, new_tokens: int, cached: bool) -> list[float]:
    """Return the seconds to each token of the continuations of prompts of one length."""
    clock = _Clock()
    mask = torch.ones_like(prompts)
    greedy_continuations(model, prompts, mask, 0, new_tokens=new_tokens, ends=(), use_cache=cached, stop=[clock])
    return clock.seconds()


def _allocated_by(work: Callable[[], list[float]]) -> tuple[list[float], int | None]:
    """Return the result of `work` and the peak of what it allocated on the GPU, in bytes; None without one."""
    if not torch.cuda.is_available():
        return work(), None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = work()
    return result, torch.cuda.max_memory_allocated() - before


def _weights(model: Any) -> int:
    """Return the bytes of the parameters and buffers of a model, tied ones counted once."""
    tensors = {t.untyped_storage().data_ptr(): t for t in chain(model.parameters(), model.buffers())}
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())


def _now() -> float:
    """Return a clock in seconds, once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _busy_others() -> float:
    """Return the CPU seconds that other processes than this one have used."""
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    used = machine.user + machine.system + getattr(machine, "nice", 0.0)
    return float(used - own.user - own.system)
