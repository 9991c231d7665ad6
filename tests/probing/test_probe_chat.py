"""Probes read prompts in the form in which the model was trained and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_models import CHATML, FAMILIES, save_chat_model
from mlflow.tracking import MlflowClient
from runs import plan_of, run_of

from whichlora.data.encoding import Encoder, special_ids
from whichlora.data.tasks import get_task
from whichlora.data.tasks.items import texts_of
from whichlora.errors import OptionError
from whichlora.models.instruct import chat_template
from whichlora.models.loading import load_tokenizer, locate
from whichlora.probing import probed_model
from whichlora.probing.language.positions import PositionSelector
from whichlora.probing.options import OPTIONS
from whichlora.probing.request import parse

NLI = get_task("atlas-nli")


@pytest.mark.parametrize("name", ["llama3", "gemma3", "mistral"])
def test_positions_are_those_of_the_conversation(tmp_path: Path, name: str) -> None:
    source = locate(str(save_chat_model(tmp_path / "model", FAMILIES[name])))
    tokenizer = load_tokenizer(source)
    encoder = Encoder(NLI, tokenizer, chat=chat_template(NLI, None, source, tokenizer))
    items = [*NLI.load("en", "test")[:3], *NLI.load("hi", "test")[:3]]

    def select(positions: str, special_tokens: str = "drop") -> tuple[list[list[int]], list[list[int]]]:
        selector = PositionSelector(encoder, positions=positions, special_tokens=special_tokens)
        return selector.select(items, model=None)

    sequences, of_items = select("item")
    for item, ids, positions in zip(items, sequences, of_items, strict=True):
        assert ids == encoder.prompt(item)
        text = tokenizer.decode([ids[position] for position in positions])
        assert all(part in text for part in texts_of(item))
        assert "Label" not in text
        assert not special_ids(tokenizer) & {ids[position] for position in positions}
    _, last = select("last")
    _, plain = select("all")
    assert last == [positions[-1:] for positions in plain]
    _, kept = select("last", "keep")
    assert kept == [[len(ids) - 1] for ids in sequences]


def request(**options: str) -> Any:
    return parse({name: default for name, (default, _) in OPTIONS.items()} | options)


def test_a_run_is_probed_with_its_own_template(store: Path, tmp_path: Path) -> None:
    folder = str(save_chat_model(tmp_path / "model", FAMILIES["chatml"]))
    (tmp_path / "mine.jinja").write_text(CHATML + " ")
    client = MlflowClient()
    runs = {
        option: run_of(plan_of(folder, variant="none", chat_template=option)).run_id
        for option in ("auto", "none", str(tmp_path / "mine.jinja"))
    }
    for option in ("auto", "none"):
        plan = probed_model.find(request(run_id=runs[option]), client).plan
        assert (plan.encoder().chat is None) == (option == "none")
    mine = runs[str(tmp_path / "mine.jinja")]
    with pytest.raises(OptionError, match=r"^chat_template=auto: the run used another chat template \(\w{12}\)"):
        probed_model.find(request(run_id=mine), client)
    found = probed_model.find(request(run_id=mine, chat_template=str(tmp_path / "mine.jinja")), client)
    assert found.plan.encoder().chat.text == CHATML + " "
    with pytest.raises(OptionError, match=r"^chat_template=none: has no effect with kind=weights"):
        request(run_id=mine, kind="weights", chat_template="none")
    with pytest.raises(OptionError, match=r"^chat_template=absent.jinja: is not a file; allowed are auto, none, or"):
        request(model=folder, chat_template="absent.jinja")
