"""AdamW whose updates are routed to the experts with the highest scores in each module (MoLF, arXiv 2605.07111)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_SCORE_EPS = 1e-8
_CHUNK = 1 << 26
"""Elements of temporary tensors at a time: 256 MiB in fp32."""


class Part(NamedTuple):
    """A parameter, or `length` of its rows (`dim` 0) or columns (`dim` 1) from `start` on."""

    parameter: nn.Parameter
    dim: int = 0
    start: int = 0
    length: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """Return this part of a tensor with the parameter's shape, as a view."""
        return tensor if self.length is None else tensor.narrow(self.dim, self.start, self.length)


Experts = Mapping[str, Sequence[Part]]
"""The parts of each expert of a module, by the expert's name."""
_Groups = Mapping[Tensor, Mapping[str, Any]]
"""The settings of each parameter that has a gradient."""


class RoutedAdamW(torch.optim.Optimizer):
    """AdamW that updates only the `topk` experts with the highest scores of each module in each step.

    The moments and step counts of all experts advance, so that those of a loser are current when it wins; its weights
    neither move nor decay. With the moments m and v without bias correction, the number N of an expert's weights, its
    scheduled learning rate eta, and sums over its weights, the scores are

    - `epd`, expected preconditioned descent (Eq. 10): eta / N * sum of m^2 / (sqrt(v) + 1e-8)
    - `pfn`, preconditioned Frobenius norm (Eq. 11): square root of 1 / N * sum of (m / (sqrt(v) + 1e-8))^2

    Weight decay has no part in them. Of equal scores that of the earlier expert ranks higher. Parameters that belong to
    no module are updated in every step. If all parameters are, the steps are those of `torch.optim.AdamW`.

    Attributes:
        modules: the experts of each module by its name; the experts of all modules have the same names.
        winners: for each step, the experts that were updated, a Boolean tensor (modules, experts). An expert without a
            gradient or with a learning rate of 0 is never updated.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        modules: Mapping[str, Experts],
        *,
        score: str,
        topk: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Initialise from parameter groups with `params`, `lr` and `weight_decay`."""
        self.modules, self.winners = dict(modules), list[Tensor]()
        self._score, self._topk = score, topk
        super().__init__(groups, {"betas": betas, "eps": eps})

    def state_dict(self) -> dict[str, Any]:
        """Return the state of torch's optimisers, and the winners so far."""
        winners = torch.stack(self.winners) if self.winners else torch.empty(0, dtype=torch.bool)
        return {**super().state_dict(), "winners": winners}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.winners = list(state_dict["winners"].cpu())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters; on a GPU, wait for the device only once, for the scores of all modules."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = {p: group for group in self.param_groups for p in group["params"] if p.grad is not None}
        for chunk in _chunks([Part(p) for p in groups]):
            self._update_moments([part.parameter for part in chunk])
        self.winners.append(self._select_winners(groups))
        experts = [expert for module in self.modules.values() for expert in module.values()]
        won = self.winners[-1].flatten().tolist()
        routed = {part.parameter for expert in experts for part in expert}
        updated = [Part(p) for p in groups if p not in routed]
        updated += [part for expert, wins in zip(experts, won, strict=True) if wins for part in expert]
        for chunk in _chunks([part for part in updated if part.parameter in groups]):
            self._update_weights(chunk, groups)
        return loss

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the scores of each module's experts by the present moments; without moments they are 0."""
        rates = {p: group["lr"] for group in self.param_groups for p in group["params"]}
        experts = [expert for module in self.modules.values() for expert in module.values()]
        sums = self._score_sums([part for expert in experts for part in expert if part.parameter in self.state])

        def score(expert: Sequence[Part]) -> float:
            count = sum(part.of(part.parameter).numel() for part in expert)
            mean = sum(sums.get(part, 0.0) for part in expert) / count
            return float(rates[expert[0].parameter] * mean if self._score == "epd" else mean**0.5)

        return {name: {n: score(expert) for n, expert in module.items()} for name, module in self.modules.items()}

    def _update_moments(self, parameters: Sequence[Tensor]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.state[p]["step"] += 1
        beta1, beta2 = self.defaults["betas"]
        means, squares = ([self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq"))
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)

    def _select_winners(self, groups: _Groups) -> Tensor:
        """Return which experts are updated, (modules, experts)."""
        rows = []
        for name, scores in self.scores().items():
            best = sorted(scores, key=scores.__getitem__, reverse=True)[: self._topk]  # stable, also in reverse
            rates = {
                n: max((groups[part.parameter]["lr"] for part in expert if part.parameter in groups), default=0)
                for n, expert in self.modules[name].items()
            }
            rows.append([n in best and rates[n] > 0 for n in scores])
        return torch.tensor(rows, dtype=torch.bool)

    def _score_sums(self, parts: Sequence[Part]) -> dict[Part, float]:
        """Return the sum in the score's formula over each part."""
        sums: list[Tensor] = []
        for chunk in _chunks(parts):
            means, squares = self._moments(chunk)
            divisors = torch._foreach_sqrt(squares)
            torch._foreach_add_(divisors, _SCORE_EPS)
            terms = torch._foreach_div(means, divisors)
            del divisors
            torch._foreach_mul_(terms, means if self._score == "epd" else terms)
            sums += [term.sum() for term in terms]
        return dict(zip(parts, torch.stack(sums).tolist(), strict=True)) if sums else {}

    def _update_weights(self, parts: Sequence[Part], groups: _Groups) -> None:
        """Take AdamW's step with the present moments."""
        beta1, beta2 = self.defaults["betas"]
        counts = [self.state[part.parameter]["step"] for part in parts]
        rates = [groups[part.parameter]["lr"] for part in parts]
        decays = [groups[part.parameter]["weight_decay"] for part in parts]
        weights = [part.of(part.parameter) for part in parts]
        means, squares = self._moments(parts)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_div_(divisors, [(1 - beta2**count) ** 0.5 for count in counts])
        torch._foreach_add_(divisors, self.defaults["eps"])
        torch._foreach_mul_(weights, [1 - rate * decay for rate, decay in zip(rates, decays, strict=True)])
        sizes = [-rate / (1 - beta1**count) for rate, count in zip(rates, counts, strict=True)]
        torch._foreach_addcdiv_(weights, means, divisors, sizes)

    def _moments(self, parts: Sequence[Part]) -> tuple[list[Tensor], list[Tensor]]:
        states = [(part, self.state[part.parameter]) for part in parts]
        return [part.of(s["exp_avg"]) for part, s in states], [part.of(s["exp_avg_sq"]) for part, s in states]


def _chunks(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Split a list into sublists of at most `_CHUNK` elements; a larger part is alone in one."""
    chunk: list[Part] = []
    size = 0
    for part in parts:
        elements = part.of(part.parameter).numel()
        if chunk and size + elements > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(part)
        size += elements
    if chunk:
        yield chunk
