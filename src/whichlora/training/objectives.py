"""Defines the training objectives: the summed loss over the items of an optimiser step, and the number of losses.

Prompted tasks are trained with the cross-entropy of their answers, word-pair tasks with a triplet loss on hidden
states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from whichlora.announcements import announce
from whichlora.config.plan import Plan
from whichlora.data.batching import collate, to_device
from whichlora.data.encoding import Encoded, EncodedPair, Encoder
from whichlora.data.tasks import Item
from whichlora.data.word_pooling import Pooling
from whichlora.evaluation.scoring_methods import WordSimilarity
from whichlora.models import packing
from whichlora.models.answer_logits import answer_loss
from whichlora.models.pooling import pooled_states
from whichlora.models.rope_switch import sides, switch_length

MARGIN = 0.4
"""Margin of the triplet loss, as in arXiv 2506.15415."""


class Objective(ABC):
    """A training objective.

    Class attributes:
        divisible: whether the loss of a step is the sum of the losses of its micro-batches for any split.
        packable: whether several runs can take a step in one joint pass (see `multi_adapter`).
    """

    divisible: ClassVar[bool]
    packable: ClassVar[bool] = False

    @abstractmethod
    def example(self, encoder: Encoder, item: Item) -> Any:
        """Return the training example of an item."""

    @abstractmethod
    def length(self, example: Any) -> int:
        """Return the sort key for bucketing: the example's length, or 0 for random batches."""

    @abstractmethod
    def count(self, examples: Sequence[Any]) -> int:
        """Return the number of losses that `loss` sums."""

    @abstractmethod
    def loss(self, model: Any, examples: Sequence[Any]) -> Tensor:
        """Return the summed loss of the examples, a scalar."""

    def unused_parameters(self, model: Any) -> list[nn.Parameter]:
        """Return the model's parameters that the loss does not depend on."""
        return []

    def optimized_for(self, model: Any) -> Objective:
        """Return the same objective in the form that is fastest on a model."""
        return self

    def batch_context(self, model: Any) -> AbstractContextManager[None]:
        """Return a context in which the model accepts the batches of `loss`; it must enclose the backward pass too."""
        return nullcontext()


@dataclass(frozen=True)
class AnswerTokens(Objective):
    """Cross-entropy of every token of the answers.

    Attributes:
        pad: id of the padding token.
        packs: whether batches are packed instead of padded; packed batches need `batch_context`.
        share_prefix: whether a packed batch contains a common prefix of its prompts only once.
        switch: number of tokens up to which LongRoPE uses its short factors; None without LongRoPE.
    """

    divisible = True
    packable = True
    pad: int
    packs: bool = False
    share_prefix: bool = False
    switch: int | None = None

    def example(self, encoder: Encoder, item: Item) -> Encoded:
        return encoder.example(item)

    def length(self, example: Encoded) -> int:
        return len(example)

    def count(self, examples: Sequence[Encoded]) -> int:
        return sum(len(example.answer) for example in examples)

    def loss(self, model: Any, examples: Sequence[Encoded]) -> Tensor:
        losses = []
        for side in sides([len(example) for example in examples], self.switch):
            texts = [examples[i] for i in side]
            batch = packing.pack(texts, share=self.share_prefix) if self.packs else collate(texts, self.pad)
            losses.append(answer_loss(model, to_device(batch, model.device))[0])
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def optimized_for(self, model: Any) -> AnswerTokens:
        reason = packing.reason_to_pad(model)
        announce(f"Texts are padded, which takes longer than packing them: {reason}." if reason else "")
        return replace(
            self,
            packs=packing.can_pack(model),
            share_prefix=packing.can_share_prefixes(model),
            switch=switch_length(model.config),
        )

    def batch_context(self, model: Any) -> AbstractContextManager[None]:
        return packing.attention(model) if self.packs else nullcontext()


@dataclass(frozen=True)
class Triplets(Objective):
    """Triplet loss of word pairs on pooled hidden states, with the hardest negative of the batch for each pair.

    Batches are drawn at random instead of bucketed by length: length alone must not separate a word from its negatives.

    Attributes:
        blocks: name of the module list of decoder blocks.
        pooling: the block whose output is pooled, and over which tokens.
    """

    divisible = False
    blocks: str
    pooling: Pooling

    def unused_parameters(self, model: Any) -> list[nn.Parameter]:
        """Return all parameters except those of the embeddings and of the blocks up to the pooled one.

        An LM head that is tied to the embeddings is trained with them.
        """
        blocks = model.get_submodule(self.blocks)
        embeddings = [module for module in model.get_decoder().modules() if isinstance(module, nn.Embedding)]
        used = {id(p) for module in (*embeddings, *list(blocks)[: self.pooling.layer + 1]) for p in module.parameters()}
        return [p for p in model.parameters() if id(p) not in used]

    def example(self, encoder: Encoder, item: Item) -> EncodedPair:
        return encoder.pair(item)

    def length(self, example: EncodedPair) -> int:
        return 0

    def count(self, examples: Sequence[EncodedPair]) -> int:
        return len(examples)

    def loss(self, model: Any, examples: Sequence[EncodedPair]) -> Tensor:
        sequences = [pair.translation for pair in examples] + [pair.word for pair in examples]
        states = nn.functional.normalize(pooled_states(model, self.blocks, sequences, self.pooling), dim=1)
        negative = torch.tensor([[a.word != b.word for b in examples] for a in examples], device=states.device)
        return triplet_losses(states[: len(examples)], states[len(examples) :], negative).sum()


def objective_of(plan: Plan) -> Objective:
    """Return the objective of a plan's task."""
    if isinstance(plan.scoring, WordSimilarity):
        return Triplets(plan.shape.blocks, plan.scoring.pooling)
    return AnswerTokens(int(plan.tokenizer.pad_token_id))  # type: ignore[arg-type]


def triplet_losses(anchors: Tensor, positives: Tensor, negative: Tensor, margin: float = MARGIN) -> Tensor:
    """Return the triplet loss of each anchor with its positive and the hardest negative in the batch, (pairs,).

    With cosine distance, max(0, cos(anchor, negative) - cos(anchor, positive) + margin), where the negative is the
    positive of another pair that is most similar to the anchor (Schroff et al. 2015, equation 3; Hermans et al. 2017,
    "batch hard"). A pair without a negative has no loss. The anchors are the words of the target language, so that
    these move towards English; the paper does not say which side it uses.

    Args:
        anchors, positives: (pairs, width), of unit length.
        negative: (pairs, pairs), whether the positive of a column is a negative for the anchor of a row; false if both
            pairs have the same word.
    """
    cosine = anchors @ positives.T
    hardest = cosine.masked_fill(~negative, -torch.inf).max(1).values
    return nn.functional.relu(hardest - cosine.diagonal() + margin)
