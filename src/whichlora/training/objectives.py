"""What is minimised over the items of an optimiser step: a sum of losses, and how many there are.

A task of prompts is learnt by the cross-entropy of its answers, a task of word pairs by a triplet loss on states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from whichlora.data.batching import collate, to_device
from whichlora.data.encoding import Encoded, EncodedPair, Encoder
from whichlora.data.word_pooling import Pooling
from whichlora.evaluation.scoring import WordSimilarity
from whichlora.models import packing
from whichlora.models.answer_logits import answer_loss
from whichlora.models.pooling import pooled_states

if TYPE_CHECKING:
    from whichlora.config.plan import Plan
    from whichlora.data.tasks import Item

MARGIN = 0.4
"""Of the triplet loss, as in arXiv 2506.15415."""


class Objective(ABC):
    """What is minimised.

    Class attributes:
        divisible: whether the loss of a step is the sum over parts of its items, however they are divided.
        packable: whether several runs can take a step in one pass.
    """

    divisible: ClassVar[bool]
    packable: ClassVar[bool] = False

    @abstractmethod
    def example(self, encoder: Encoder, item: Item) -> Any:
        """Return what an item is learnt from."""

    @abstractmethod
    def length(self, example: Any) -> int:
        """Return what the examples of a batch should be alike in, so that little is padded."""

    @abstractmethod
    def count(self, examples: Sequence[Any]) -> int:
        """Return how many losses there are."""

    @abstractmethod
    def loss(self, model: Any, examples: Sequence[Any]) -> Tensor:
        """Return the sum of the losses."""

    def unreached(self, model: Any) -> list[nn.Parameter]:
        """Return the model's parameters that the loss does not depend on."""
        return []

    def suited(self, model: Any) -> Objective:
        """Return the same objective in the form that is quickest on a model."""
        return self

    def reading(self, model: Any) -> AbstractContextManager[None]:
        """Have a model read the batches of `loss`, in its gradients too, until the context is left."""
        return nullcontext()


@dataclass(frozen=True)
class AnswerTokens(Objective):
    """The cross-entropy of every token of the answers.

    Attributes:
        pad: the padding token.
        packs: whether batches are packed instead of padded, and within `reading`.
        shares: whether a packed batch has what prompts begin with once.
    """

    divisible = True
    packable = True
    pad: int
    packs: bool = False
    shares: bool = False

    def example(self, encoder: Encoder, item: Item) -> Encoded:
        return encoder.example(item)

    def length(self, example: Encoded) -> int:
        return len(example)

    def count(self, examples: Sequence[Encoded]) -> int:
        return sum(len(example.answer) for example in examples)

    def loss(self, model: Any, examples: Sequence[Encoded]) -> Tensor:
        batch = packing.pack(examples, share=self.shares) if self.packs else collate(examples, self.pad)
        return answer_loss(model, to_device(batch, model.device))[0]

    def suited(self, model: Any) -> AnswerTokens:
        return replace(self, packs=packing.can_pack(model), shares=packing.can_share(model))

    def reading(self, model: Any) -> AbstractContextManager[None]:
        return packing.attention(model) if self.packs else nullcontext()


@dataclass(frozen=True)
class Triplets(Objective):
    """The triplet loss of word pairs, each with the hardest negative of its batch, on pooled states.

    Batches are drawn at random: words of one length would be easy to tell from words of another.
    """

    divisible = False
    blocks: str
    pooling: Pooling

    def unreached(self, model: Any) -> list[nn.Parameter]:
        """Return those of the blocks above the pooled one, and of what follows the last block.

        Of the rest of the decoder only what is read before the blocks, the embeddings, is reached. An LM head that
        shares the embeddings' weights is trained with them.
        """
        blocks = model.get_submodule(self.blocks)
        embeddings = [module for module in model.get_decoder().modules() if isinstance(module, nn.Embedding)]
        reached = {
            id(p) for module in (*embeddings, *list(blocks)[: self.pooling.layer + 1]) for p in module.parameters()
        }
        return [p for p in model.parameters() if id(p) not in reached]

    def example(self, encoder: Encoder, item: Item) -> EncodedPair:
        return encoder.pair(item)

    def length(self, example: EncodedPair) -> int:
        return 0

    def count(self, examples: Sequence[EncodedPair]) -> int:
        return len(examples)

    def loss(self, model: Any, examples: Sequence[EncodedPair]) -> Tensor:
        sequences = [pair.translation for pair in examples] + [pair.word for pair in examples]
        states = nn.functional.normalize(pooled_states(model, self.blocks, sequences, self.pooling), dim=1)
        other = torch.tensor([[a.word != b.word for b in examples] for a in examples], device=states.device)
        return triplets(states[: len(examples)], states[len(examples) :], other).sum()


def objective_of(plan: Plan) -> Objective:
    """Return what a plan's task is learnt by."""
    if isinstance(plan.scoring, WordSimilarity):
        return Triplets(plan.shape.blocks, plan.scoring.pooling)
    return AnswerTokens(int(plan.tokenizer.pad_token_id))  # type: ignore[arg-type]


def triplets(anchors: Tensor, positives: Tensor, other: Tensor, margin: float = MARGIN) -> Tensor:
    """Return (pairs,): the triplet loss of each anchor with its positive and the hardest negative in the batch.

    With cosine distance, max(0, cos(anchor, negative) - cos(anchor, positive) + margin), where the negative is the
    positive of another pair that is most like the anchor (Schroff et al. 2015, equation 3; Hermans et al. 2017, "batch
    hard"). A pair without a negative has no loss. The anchors are the words of the target language, so that these are
    drawn to English; which side the paper takes is not known here.

    Args:
        anchors, positives: (pairs, width), of unit length.
        other: (pairs, pairs), whether the positive of a column is a negative for the anchor of a row: it is not where
            both are the same word.
    """
    cosine = anchors @ positives.T
    hardest = cosine.masked_fill(~other, -torch.inf).max(1).values
    return nn.functional.relu(hardest - cosine.diagonal() + margin)
