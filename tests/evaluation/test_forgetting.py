"""The rise of cross-entropy on general text, against losses of plain transformers and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import save_family
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient
from peft import PeftModel
from runs import plan_of, run_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from whichlora.data.encoding import Encoder
from whichlora.data.general_text import LANGUAGES, general_texts
from whichlora.data.general_text.windows import WINDOW, windows
from whichlora.data.tasks import get_task
from whichlora.evaluation.cross_entropy import cross_entropy
from whichlora.models import packing
from whichlora.run.command import main

SHORT, LONG = "Everyone has the right to life.", "Everyone has the right to life, liberty and security. " * 6


def encoder_of(model: str | Path, *, max_length: int | None = None) -> Encoder:
    return Encoder(get_task("atlas-nli"), AutoTokenizer.from_pretrained(model), max_length=max_length)


@torch.no_grad()
def plain_losses(model: Any, tokenizer: Any, blocks: list[str] | tuple[str, ...]) -> tuple[float, int]:
    """Return the summed loss that transformers computes with `labels`, text by text, and the tokens it is over."""
    nats, tokens = 0.0, 0
    for block in blocks:
        ids = torch.tensor([tokenizer(block).input_ids])
        nats += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return nats, tokens


@pytest.fixture(scope="module")
def padded_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose texts are padded, not packed."""
    return str(save_family(tmp_path_factory.mktemp("padded"), "gpt_neo", tiny_model))


@pytest.mark.parametrize("name", ["tiny_model", "padded_model"])
@pytest.mark.parametrize("prepended", [True, False])
def test_it_is_the_loss_of_transformers_over_all_tokens(
    name: str, prepended: bool, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert packing.can_pack(model) == (name == "tiny_model")
    encoder = encoder_of(folder)
    if prepended:
        encoder.tokenizer.backend_tokenizer.post_processor = _prepend(encoder.tokenizer)
    blocks = [SHORT, LONG, "Life."]
    nats, tokens = plain_losses(model, encoder.tokenizer, blocks)
    found = cross_entropy(model, encoder, blocks, name="text")
    assert found.tokens == tokens == sum(len(encoder.tokenizer(block).input_ids) - 1 for block in blocks)
    assert found.nats == pytest.approx(nats / tokens, rel=1e-5)
    # The two means that are easily taken for it: over texts, and over padding as well.
    each = [plain_losses(model, encoder.tokenizer, [block]) for block in blocks]
    assert found.nats != pytest.approx(sum(n / t for n, t in each) / len(each), rel=1e-3)
    batch = encoder.tokenizer(blocks, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert found.nats != pytest.approx(float(model(**batch, labels=batch["input_ids"]).loss), rel=1e-3)


def _prepend(tokenizer: Any) -> Any:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])


@pytest.mark.parametrize("length", [16, 17, None])
def test_every_token_of_a_long_block_is_predicted_once_from_at_least_half_a_window(
    tiny_model: str, length: int | None
) -> None:
    encoder = encoder_of(tiny_model, max_length=length)
    block = LONG if length else LONG * 20
    ids = encoder.tokenizer(block).input_ids
    parts = windows(encoder, block)
    size = length or WINDOW
    assert len(ids) > 2 * size
    assert [token for part in parts for token in part.answer] == ids[1:]
    assert all(len(part) <= size for part in parts)
    assert all(len(part.prompt) == size // 2 for part in parts[1:])
    position = 1
    for part in parts:  # what is read before a part is what stands before it in the text
        assert part.prompt == ids[position - len(part.prompt) : position]
        position += len(part.answer)


def test_a_window_has_the_loss_of_its_last_tokens(tiny_model: str) -> None:
    model, encoder = AutoModelForCausalLM.from_pretrained(tiny_model).eval(), encoder_of(tiny_model, max_length=16)
    ids = torch.tensor([encoder.tokenizer(LONG).input_ids])
    nats, start = 0.0, 1
    while start < ids.shape[1]:
        first = max(0, start - 8) if start > 1 else 0
        end = min(first + 16, ids.shape[1])
        labels = ids[:, first:end].clone()
        labels[:, : start - first] = -100
        with torch.no_grad():
            nats += float(model(input_ids=ids[:, first:end], labels=labels).loss) * (end - start)
        start = end
    found = cross_entropy(model, encoder, [LONG], name="text")
    assert found.nats == pytest.approx(nats / (ids.shape[1] - 1), rel=1e-5)


def test_the_declaration_is_packaged_in_all_languages_article_by_article() -> None:
    texts = general_texts("forgetting", f"udhr:{','.join(LANGUAGES)}", ())
    assert set(texts) == set(LANGUAGES)
    assert {len(text.blocks) for text in texts.values()} == {30}
    assert len({text.digest for text in texts.values()}) == len(LANGUAGES)
    assert texts["en"].blocks[2] == "Everyone has the right to life, liberty and the security of person."
    assert set(general_texts("forgetting", "udhr", ("eng_Latn", "swh_Latn"))) == {"en", "sw"}


@pytest.mark.slow
def test_a_method_that_starts_elsewhere_is_compared_with_the_plain_base(store: Path, tiny_model: str) -> None:
    """PiSSA takes the principal components out of the base weights, and trains them as the adapter."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    english = general_texts("forgetting", "udhr", ("en",))["en"].blocks
    none = run_of(plan_of(tiny_model, variant="none", forgetting="udhr"))
    result = run_of(plan_of(tiny_model, variant="pissa", forgetting="udhr"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    before, tokens = plain_losses(base, tokenizer, english)
    folder = download_artifacts(run_id=result.run_id, artifact_path="adapter")
    after, _ = plain_losses(PeftModel.from_pretrained(base, folder).eval(), tokenizer, english)
    metrics = result.metrics
    assert metrics["forgetting/en/tokens"] == tokens
    assert metrics["forgetting/en/base_ce"] == pytest.approx(before / tokens, rel=1e-5)
    assert metrics["forgetting/en/ce"] == pytest.approx(after / tokens, rel=1e-4)
    assert metrics["forgetting/en/ce_rise"] == metrics["forgetting/en/ce"] - metrics["forgetting/en/base_ce"]
    assert abs(metrics["forgetting/en/ce_rise"]) > 1e-3
    assert none.metrics["forgetting/sw/ce"] == metrics["forgetting/sw/base_ce"]
    assert none.metrics["forgetting/sw/ce_rise"] == 0
    client = MlflowClient()
    condition = "tags.`whichlora.kind` = 'base' and params.task = 'general text'"
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], condition)
    assert sorted(run.data.params["text"] for run in found) == ["en", "sw"]  # measured once for both runs
    run = client.get_run(result.run_id)
    assert "rise (forgetting)" in run.data.tags["mlflow.note.content"]
    assert "--forgetting udhr" in (Path(folder) / "README.md").read_text()
    assert {"forgetting/en", "forgetting/sw"} <= {given.tags[0].value for given in run.inputs.dataset_inputs}


@pytest.mark.slow
def test_runs_that_share_an_adapter_share_what_was_measured(store: Path, tiny_model: str) -> None:
    at_zero = {"tl_ratio": 0, "forgetting": "udhr:en"}
    first = run_of(plan_of(tiny_model, language="sw", **at_zero))
    other = run_of(plan_of(tiny_model, language="hi", **at_zero))
    names = [name for name in first.metrics if name.startswith("forgetting/")]
    assert len(names) == 4
    assert {name: other.metrics[name] for name in names} == {name: first.metrics[name] for name in names}


def test_the_option_changes_neither_training_nor_runs_without_it(store: Path, tiny_model: str) -> None:
    plain, own = plan_of(tiny_model), store / "notes.txt"
    own.write_text("One paragraph.\nIts second line.\n\n\nAnother paragraph.\n", encoding="utf-8")
    measured, of_file = plan_of(tiny_model, forgetting="udhr"), plan_of(tiny_model, forgetting=own)
    assert set(plain.spec.test_digests) == {"en", "tl"}
    assert set(measured.spec.test_digests) == {"en", "tl", "forgetting/en", "forgetting/sw"}
    assert set(of_file.spec.test_digests) == {"en", "tl", "forgetting/notes"}
    assert of_file.texts["notes"].blocks == ("One paragraph.\nIts second line.", "Another paragraph.")
    assert plain.spec.training_fingerprint == measured.spec.training_fingerprint
    assert len({plan.spec.fingerprint for plan in (plain, measured, of_file)}) == 3
    assert "forgetting" not in plain.spec.to_dict()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("udhr:de", "forgetting=udhr:de: the packaged text is not in 'de'; allowed are en, sw"),
        ("udhr:", "forgetting=udhr:: the packaged text is not in ''"),
        ("missing", "forgetting=missing: is neither a file nor a folder"),
        (".", "forgetting=.: has no .txt file"),
        ("a b.txt", "the name a b.txt without its ending must be a language or another name"),
        ("empty.txt", "empty.txt is empty"),
        ("bytes.txt", "bytes.txt must be UTF-8 text"),
        ("x.txt", "the text x has too few tokens"),
    ],
)
def test_a_text_that_cannot_be_measured_is_refused_in_one_line(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], value: str, message: str
) -> None:
    for name, content in {"a b": b"text", "empty": b" \n\n", "bytes": b"\xff\xfe\x80", "x": b"a"}.items():
        (store / f"{name}.txt").write_bytes(content)
    if value == ".":
        (store / "sub").mkdir()
        value = "sub"
        message = message.replace("=.", "=sub")
    assert main(["--forgetting", value, "--model", tiny_model]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
