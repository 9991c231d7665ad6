"""Logit lens: decodes the hidden states of every layer to tokens with the LM head, without storing logits.

The product with the LM head accounts for nearly all of the cost. It is computed in chunks of the vocabulary, keeping
only the best tokens, and once per shared prefix: under causal attention the state at a position depends only on the
tokens up to it, and prompts begin with the same instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whichlora.errors import NonFiniteError, ProofError
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.hidden_states import EMBEDDING, pad_right, visit_hidden_states
from whichlora.models.kernels.onednn import matmul_transposed
from whichlora.models.packing import attention, can_pack, pack_texts
from whichlora.models.rope_switch import sides, switch_length

if TYPE_CHECKING:
    from whichlora.probing.choices import LanguageChoices

CHUNK = 4096
"""Number of rows of the LM head that are multiplied at a time."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CHECK_EVERY = 16
"""With bf16, every 16th row is also decoded in fp32 to measure how often the two differ."""
_MIN_AGREEMENT = 0.95
"""Smallest share of positions at which the last layer must decode to the model's own prediction."""
_STEPS = 2
"""Steps of the floating-point type by which logits may differ by rounding."""


def top_tokens(states: Tensor, weight: Tensor, bias: Tensor | None, k: int, chunk: int = CHUNK) -> Tensor:
    """Return the `k` tokens with the highest logits for each of `states` (rows, width), best first, as (rows, k).

    `weight` is (vocabulary, width) and is cast to the dtype of `states` chunk by chunk.

    Raises:
        NonFiniteError: the highest logit of a row is not finite, as it is if one of them is NaN.
    """
    values = torch.empty((len(states), 0), dtype=states.dtype, device=states.device)
    tokens = torch.empty((len(states), 0), dtype=torch.long, device=states.device)
    for start in range(0, len(weight), chunk):
        part = slice(start, start + chunk)
        logits = matmul_transposed(
            states, weight[part].to(states.dtype), None if bias is None else bias[part].to(states.dtype)
        )
        if k == 1:  # several times as fast as `topk`
            best, index = (t[:, None] for t in logits.max(-1))
        else:
            best, index = logits.topk(min(k, logits.shape[1]), dim=-1)
        values, tokens = torch.cat([values, best], 1), torch.cat([tokens, index + start], 1)
        if values.shape[1] > k:
            values, order = values.sort(dim=-1, descending=True, stable=True)
            values, tokens = values[:, :k], tokens.gather(1, order[:, :k])
    if not bool(values[:, :1].isfinite().all()):
        raise NonFiniteError("the logits that the LM head gives for a state are not finite")
    return tokens


class LogitLens:
    """Decodes the states after every block of one model.

    Attributes:
        n_layers: number of decoder blocks.
        compared: number of rows decoded in both bf16 and fp32.
        differing: number of those rows whose most likely token differs.
    """

    def __init__(self, model: Any, blocks: str, choices: LanguageChoices) -> None:
        """Use `final_norm`, `top_k` and `arithmetic` of the choices; `blocks` is the same as in `visit_hidden_states`.

        The last layer is normalised even without `final_norm`: it is the model's own output, and the last entry of
        transformers' `hidden_states`, which such probes usually read, is normalised too.
        """
        self._model, self._blocks, self._top_k = model, blocks, choices.top_k
        self._head = unwrap_peft(model).get_output_embeddings()
        self._norm = _final_norm(model, blocks)
        self._final_norm, self._dtype = choices.final_norm, DTYPES[choices.arithmetic]
        # Cast in advance to bf16 only: a bf16 copy is at most half as large as the weight, an fp32 copy up to twice.
        self._weight = self._head.weight.detach()
        if self._dtype == torch.bfloat16:
            self._weight = self._weight.to(self._dtype)
        self._bias = getattr(self._head, "bias", None)
        self.n_layers = len(unwrap_peft(model).get_submodule(blocks))
        self.compared = self.differing = 0

    @torch.inference_mode()
    def decode(
        self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> list[np.ndarray[Any, Any]]:
        """Return the most likely tokens at these positions of each sequence of token ids, (layers, positions, k)."""
        parts = sides([len(s) for s in sequences], switch_length(unwrap_peft(self._model).config))
        if len(parts) > 1:
            decoded = {
                item: tokens
                for part in parts
                for item, tokens in zip(
                    part, self.decode([sequences[i] for i in part], [positions[i] for i in part]), strict=True
                )
            }
            return [decoded[item] for item in range(len(sequences))]
        rows, indices = _distinct_prefixes(sequences, positions)
        device = self._model.device
        inputs: dict[str, Any]
        packed = can_pack(self._model)
        if packed:
            inputs = pack_texts(sequences, device)
            flat = [inputs["layout"].paths[item][position] for item, position in rows]
        else:
            inputs = pad_right(sequences, device)
            flat = [item * inputs["input_ids"].shape[1] + position for item, position in rows]
        selected = torch.tensor(flat, dtype=torch.long, device=device)
        by_block: list[np.ndarray[Any, Any]] = []

        def visit(layer: int, states: Tensor) -> None:
            if layer != EMBEDDING:
                by_block.append(self._decode_layer(layer, states.flatten(0, 1)[selected]).cpu().numpy())

        with attention(self._model) if packed else nullcontext():
            visit_hidden_states(self._model, self._blocks, inputs, visit)
        stacked = np.stack(by_block)
        return [stacked[:, index] for index in indices]

    def verify(self, sequence: Sequence[int]) -> None:
        """Check that the normalised last layer decodes to the model's own prediction after each token of a sequence.

        Tokens whose logits differ by no more than rounding count as the same prediction: in bf16 the best two often do.

        Raises:
            ProofError: it does not, which means that the model has other layers before its LM head.
        """
        ids = torch.tensor([list(sequence)], device=self._model.device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, use_cache=False).logits[0]
        (decoded,) = self.decode([sequence], [range(len(sequence))])
        self.compared = self.differing = 0
        best = logits.max(-1).values
        own = logits[range(len(sequence)), torch.from_numpy(decoded[-1, :, 0]).to(logits.device)]
        rounding = _STEPS * max(torch.finfo(dtype).eps for dtype in (logits.dtype, self._dtype))
        agreement = float((best - own <= rounding * best.abs()).float().mean())
        if agreement < _MIN_AGREEMENT:
            raise ProofError(
                f"the last layer decodes to the model's own prediction at {agreement:.0%} of the positions"
            )

    def _decode_layer(self, layer: int, states: Tensor) -> Tensor:
        if self._final_norm or layer == self.n_layers - 1:
            states = self._norm(states)
        if not bool(states.isfinite().all()):
            raise NonFiniteError(f"the states after block {layer} are not finite")
        tokens = top_tokens(states.to(self._dtype), self._weight, self._bias, self._top_k)
        if self._dtype != torch.float32:
            exact = top_tokens(states[::_CHECK_EVERY].float(), self._head.weight, self._bias, 1)
            self.compared += len(exact)
            self.differing += int((exact[:, 0] != tokens[::_CHECK_EVERY, 0]).sum())
        return tokens


def _final_norm(model: Any, blocks: str) -> Any:
    """Return the last norm among the siblings of the list of blocks: some models also normalise their embeddings."""
    decoder = unwrap_peft(model).get_submodule(blocks.rpartition(".")[0])
    norms = [module for module in decoder.children() if "norm" in type(module).__name__.lower()]
    return norms[-1] if norms else torch.nn.Identity()


def _distinct_prefixes(
    sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Return (item, position) of each distinct prefix to decode, and for each item the indices of its prefixes."""
    prefixes: dict[tuple[int, int], int] = {}
    rows: list[tuple[int, int]] = []
    row_of: dict[int, int] = {}
    indices = []
    for item, (sequence, wanted) in enumerate(zip(sequences, positions, strict=True)):
        prefix, path = -1, []
        for token in sequence:
            prefix = prefixes.setdefault((prefix, token), len(prefixes))
            path.append(prefix)
        item_rows = []
        for position in wanted:
            if path[position] not in row_of:
                row_of[path[position]] = len(rows)
                rows.append((item, position))
            item_rows.append(row_of[path[position]])
        indices.append(item_rows)
    return rows, indices
