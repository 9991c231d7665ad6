"""Items that do not fit into the model's context with their answers are refused in one line, before training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import PAIRS, plan_of

from whichlora.config import context
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.errors import OptionError
from whichlora.evaluation.scoring_methods import Generation, Likelihood
from whichlora.models.loading import load_tokenizer, locate, read_shape
from whichlora.testing import save_tiny_model

NLI = get_task("atlas-nli")


def with_context(tiny_model: str, folder: Path, tokens: int) -> str:
    """Return the tiny model with another context length in its configuration."""
    shutil.copytree(tiny_model, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": tokens}))
    return str(folder)


def longest(plan: Any, *, answer: int) -> int:
    """Return the tokens of the longest training example, or of the longest scored prompt with its label or answer."""
    encoder = plan.encoder()
    trained = max(len(encoder.example(item)) for item in plan.mixture.train)
    scored = [item for test in plan.tests.values() for item in test.items]
    scored += [item for items in plan.mixture.validation.values() for item in items]
    return max(trained, *(len(encoder.prompt(item)) + answer for item in scored))


@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
def test_the_longest_text_decides(tiny_model: str, tmp_path: Path, scoring: str) -> None:
    plan = plan_of(tiny_model, variant="lora", scoring=scoring)
    words = [len(plan.encoder().continuation(plan.mixture.train[0], f" {label}")) for label in NLI.labels]
    need = longest(plan, answer=NLI.answer_tokens - 1 if scoring == "generate" else max(words))
    plan_of(with_context(tiny_model, tmp_path / "enough", need), variant="lora", scoring=scoring)
    with pytest.raises(OptionError, match=rf"^model=.*: the context length is {need - 1} tokens, but item .* has \d+"):
        plan_of(with_context(tiny_model, tmp_path / "short", need - 1), variant="lora", scoring=scoring)


def test_items_of_the_retention_task_have_to_fit_too(tiny_model: str, tmp_path: Path) -> None:
    options = {"variant": "lora", "task": "atlas-qa", "retention": "atlas-nli", "retention_size": "9"}
    longest_prompt = max(
        len(Encoder(NLI, load_tokenizer(locate(tiny_model))).prompt(item))
        for item in plan_of(tiny_model, **options).tests["retention/en"].items
    )
    with pytest.raises(OptionError, match=r"the context length is \d+ tokens, but item"):
        plan_of(with_context(tiny_model, tmp_path / "model", longest_prompt), **options)


def test_words_of_a_pair_have_to_fit(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"the context length is 2 tokens, but item .* has \d+$"):
        plan_of(with_context(tiny_model, tmp_path / "model", 2), variant="lora", **PAIRS)


def test_only_items_that_might_not_fit_are_tokenised(tiny_model: str) -> None:
    tokenizer = load_tokenizer(locate(tiny_model))
    for name in ("atlas-nli", "atlas-qa"):
        task = get_task(name)
        for code in ("en", "hi"):
            for item in task.load(code, "test")[:50]:
                encoder = Encoder(task, tokenizer, max_length=2048)
                assert len(encoder.example(item)) <= context._most_tokens(encoder, item, answered=True)
    encoder = Encoder(NLI, tokenizer, max_length=2048)
    assert context._candidates(encoder, NLI.load("en", "test")) == []
    assert Encoder(NLI, tokenizer).max_length is None
    context.check_scored(Encoder(NLI, tokenizer), NLI.load("en", "test"), Likelihood())
    context.check_scored(encoder, NLI.load("en", "test"), Generation())


@pytest.mark.parametrize(("config", "lost"), [("RobertaConfig", 3), ("GPT2Config", 0)])
def test_positions_before_the_first_token_are_not_part_of_the_context(tmp_path: Path, config: str, lost: int) -> None:
    """RoBERTa's positions count from the padding token's id plus one."""
    folder = save_tiny_model(tmp_path / "model", config=config, is_decoder=True, max_position_embeddings=100)
    assert read_shape(locate(str(folder))).context == 100 - lost


@pytest.mark.parametrize("pad", [900, 5000, -901])
def test_a_padding_token_outside_the_embedding_is_refused(tiny_model: str, tmp_path: Path, pad: int) -> None:
    folder = Path(with_context(tiny_model, tmp_path / "model", 2048))
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": pad}))
    with pytest.raises(OptionError, match=rf"pad_token_id={pad}, which is outside the embedding of 900 tokens$"):
        plan_of(str(folder), variant="lora")
