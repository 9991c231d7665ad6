"""Hidden states to tokens through the LM head, layer by layer: the logit lens, without keeping a logit.

The product with the LM head is nearly all of the cost. It is done in chunks of the vocabulary, of which only the best
tokens are kept, and once for what items have in common: under causal attention the state at a position depends on the
tokens up to it alone, and prompts begin with the same instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.hidden_states import EMBEDDING, pad_right, visit_hidden_states
from whichlora.models.kernels.onednn import matmul_transposed
from whichlora.models.packing import attention, can_pack, pack_texts

if TYPE_CHECKING:
    from whichlora.probing.options import LanguageChoices

CHUNK = 4096
"""Rows of the LM head at a time."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CHECKED = 16
"""In bf16 one row in so many is computed in fp32 too, to tell how often the answers differ."""
_AGREEING = 0.95


def top_tokens(states: Tensor, weight: Tensor, bias: Tensor | None, k: int, chunk: int = CHUNK) -> Tensor:
    """Return (rows, k): the tokens with the highest logits of `states` (rows, width), highest first.

    `weight` is (vocabulary, width) and is cast to the type of `states` chunk by chunk.
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
    return tokens


class Lens:
    """Decodes the states after every block of one model.

    Attributes:
        n_layers: number of decoder blocks.
        compared, differing: rows computed in both arithmetics, and those whose most likely token differs.
    """

    def __init__(self, model: Any, blocks: str, choices: LanguageChoices) -> None:
        """Take `final_norm`, `top_k` and `arithmetic` from the choices; `blocks` is as in `visit_hidden_states`.

        Without `final_norm` the last layer is normed all the same: it is the model's own output, and the last of
        transformers' `hidden_states`, which such a probe usually reads, is normed too.
        """
        self._model, self._blocks, self._top_k = model, blocks, choices.top_k
        self._head = unwrap_peft(model).get_output_embeddings()
        self._norm = _final_norm(model, blocks)
        self._final_norm, self._dtype = choices.final_norm, _DTYPES[choices.arithmetic]
        # To bf16 it is cast once: the copy is at most half of the size. An fp32 copy might be twice.
        self._weight = self._head.weight.detach()
        if self._dtype == torch.bfloat16:
            self._weight = self._weight.to(self._dtype)
        self._bias = getattr(self._head, "bias", None)
        self.n_layers = len(unwrap_peft(model).get_submodule(blocks))
        self.compared = self.differing = 0

    @torch.inference_mode()
    def tokens(
        self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> list[np.ndarray[Any, Any]]:
        """Return for each sequence of token ids (layers, positions, k): the most likely tokens at these positions."""
        rows, places = _distinct(sequences, positions)
        device = self._model.device
        inputs: dict[str, Any]
        packs = can_pack(self._model)
        if packs:
            inputs = pack_texts(sequences, device)
            at = [inputs["layout"].paths[item][position] for item, position in rows]
        else:
            inputs = pad_right(sequences, device)
            at = [item * inputs["input_ids"].shape[1] + position for item, position in rows]
        wanted = torch.tensor(at, dtype=torch.long, device=device)
        found: list[np.ndarray[Any, Any]] = []

        def decode(layer: int, states: Tensor) -> None:
            if layer != EMBEDDING:
                found.append(self._decode(layer, states.flatten(0, 1)[wanted]).cpu().numpy())

        with attention(self._model) if packs else nullcontext():
            visit_hidden_states(self._model, self._blocks, inputs, decode)
        every = np.stack(found)
        return [every[:, place] for place in places]

    def prove(self, sequence: Sequence[int]) -> None:
        """Check that the last layer, normed, decodes to the model's own prediction after each of these tokens.

        Raises:
            ProofError: it does not, because the model has something else before its LM head.
        """
        ids = torch.tensor([list(sequence)], device=self._model.device)
        with torch.inference_mode():
            own = self._model(input_ids=ids, use_cache=False).logits[0].argmax(-1).cpu().numpy()
        (mine,) = self.tokens([sequence], [range(len(sequence))])
        self.compared = self.differing = 0
        agreeing = float((mine[-1, :, 0] == own).mean())
        if agreeing < _AGREEING:
            raise ProofError(f"the last layer decodes to the model's own prediction at {agreeing:.0%} of the positions")

    def _decode(self, layer: int, states: Tensor) -> Tensor:
        if self._final_norm or layer == self.n_layers - 1:
            states = self._norm(states)
        tokens = top_tokens(states.to(self._dtype), self._weight, self._bias, self._top_k)
        if self._dtype != torch.float32:
            exact = top_tokens(states[::_CHECKED].float(), self._head.weight, self._bias, 1)
            self.compared += len(exact)
            self.differing += int((exact[:, 0] != tokens[::_CHECKED, 0]).sum())
        return tokens


def _final_norm(model: Any, blocks: str) -> Any:
    """Return the norm beside the list of blocks: the last one, as some models norm their embeddings too."""
    decoder = unwrap_peft(model).get_submodule(blocks.rpartition(".")[0])
    norms = [module for module in decoder.children() if "norm" in type(module).__name__.lower()]
    return norms[-1] if norms else torch.nn.Identity()


def _distinct(
    sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Return (item, position) for each distinct beginning of a sequence that is wanted, and for each item its rows."""
    beginnings: dict[tuple[int, int], int] = {}
    rows: list[tuple[int, int]] = []
    row_of: dict[int, int] = {}
    places = []
    for item, (sequence, wanted) in enumerate(zip(sequences, positions, strict=True)):
        beginning, path = -1, []
        for token in sequence:
            beginning = beginnings.setdefault((beginning, token), len(beginnings))
            path.append(beginning)
        place = []
        for position in wanted:
            if path[position] not in row_of:
                row_of[path[position]] = len(rows)
                rows.append((item, position))
            place.append(row_of[path[position]])
        places.append(place)
    return rows, places
