"""The alignment probe: statistics of states whose cosines are known, and the original's artefact on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from probes import probed, probes, table
from runs import plan_of, run_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from whichlora.data.tasks import pairs
from whichlora.errors import OptionError
from whichlora.evaluation import translation_similarity
from whichlora.evaluation.translation_similarity import CSLS_MEASURES, MEASURES, compare
from whichlora.probing import main
from whichlora.training import adapter

WIDTH = 64


def states(cosine: float, count: int = 300) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return unit vectors without a common direction, and for each a vector at this cosine."""
    random = np.random.default_rng(0)
    first, noise = random.normal(size=(2, count, WIDTH))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    noise -= np.einsum("iw,iw->i", noise, first)[:, None] * first
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return first, cosine * first + np.sqrt(1 - cosine**2) * noise


def both(first: Any, second: Any) -> np.ndarray[Any, Any]:
    return np.stack([first, second], axis=1)


def measured(first: Any, second: Any, names: list[pairs.Pair] | None = None) -> dict[str, float]:
    names = names or [(f"a{i}", f"b{i}") for i in range(len(first))]
    return dict(zip(MEASURES, compare(both(first, second), names).mean(0), strict=True))


@pytest.mark.parametrize("cosine", [0.3211, 0.4113, 0.9])
def test_known_cosines_come_out(cosine: float) -> None:
    found = measured(*states(cosine))
    assert found["cosine/translation/raw"] == pytest.approx(cosine)
    assert found["cosine/random/raw"] == pytest.approx(0, abs=0.01)
    assert found["cosine/gap/raw"] == pytest.approx(found["cosine/translation/raw"] - found["cosine/random/raw"])
    assert found["cosine/translation/centred"] == pytest.approx(cosine, abs=0.01)


def test_a_common_direction_makes_all_similar_and_centring_removes_it() -> None:
    """The artefact of averaging over the first token: meaningless cosines of .99."""
    first, second = states(0.4)
    found = measured(first + 20, second + 20)
    assert found["cosine/translation/raw"] > 0.999
    assert found["cosine/random/raw"] > 0.999
    assert found["cosine/translation/centred"] == pytest.approx(0.4, abs=0.01)
    assert found["cosine/random/centred"] == pytest.approx(0, abs=0.01)


def test_different_means_of_the_languages_do_not_matter_after_centring() -> None:
    first, second = states(0.4)
    apart = np.zeros(WIDTH)
    apart[0] = 10
    assert measured(first + apart, second - apart)["cosine/translation/raw"] < -0.9
    found, usual = measured(first + apart, second - apart), measured(first, second)
    assert found["p1/to/centred"] == pytest.approx(usual["p1/to/centred"], abs=0.05)


def test_a_few_very_long_states_do_not_dominate_the_mean() -> None:
    first, second = states(0.4)
    first[:5] *= 1000
    second[:5] *= 1000
    assert measured(first, second)["cosine/random/centred"] == pytest.approx(0, abs=0.01)


def test_ranks_are_those_of_the_sorted_cosines() -> None:
    first, second = states(0.5, count=40)
    cosine = first @ second.T
    to = [1 + sorted(-row).index(-row[i]) for i, row in enumerate(cosine)]
    back = [1 + sorted(-row).index(-row[i]) for i, row in enumerate(cosine.T)]
    found = measured(first, second)
    assert found["p1/to/raw"] == np.mean(np.array(to) == 1)
    assert found["p1/from/raw"] == np.mean(np.array(back) == 1)
    assert found["mrr/to/raw"] == pytest.approx(np.mean(1 / np.array(to)))
    assert found["mrr/from/raw"] == pytest.approx(np.mean(1 / np.array(back)))
    assert measured(first, first)["p1/to/raw"] == 1


def test_a_repeated_text_does_not_count_as_another_text() -> None:
    first, second = states(0.9, count=20)
    second[1] = second[0]
    names = [(f"a{i}", f"b{max(i, 1)}") for i in range(20)]
    found = compare(both(first, second), names)[:, MEASURES.index("p1/to/raw")]
    assert found[0] == 1
    assert compare(both(first, second), names)[0, MEASURES.index("cosine/random/raw")] < 0.5


@pytest.mark.parametrize("block", [1, 7, 40])
def test_the_size_of_a_block_does_not_matter(block: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = states(0.5, count=40)
    names = [(f"a{i // 2}", f"b{i % 30}") for i in range(40)]
    whole = compare(both(first, second), names)
    np.save(tmp_path / "states.npy", both(first, second))
    monkeypatch.setattr(translation_similarity, "BLOCK", block)
    mapped = np.load(tmp_path / "states.npy", mmap_mode="r")
    np.testing.assert_allclose(compare(mapped, names), whole, rtol=0, atol=1e-12)


def test_random_pairs_are_all_pairs_of_different_texts() -> None:
    first, second = states(0.5, count=12)
    names = [(f"a{i // 2}", f"b{i % 5}") for i in range(12)]
    cosine = first @ second.T
    expected = []
    for i, (english, other) in enumerate(names):
        to = [cosine[i, j] for j, (_, text) in enumerate(names) if text != other]
        back = [cosine[j, i] for j, (text, _) in enumerate(names) if text != english]
        expected.append((np.mean(to) + np.mean(back)) / 2)
    found = compare(both(first, second), names)[:, MEASURES.index("cosine/random/raw")]
    assert found == pytest.approx(np.array(expected))


@pytest.mark.parametrize("language", pairs.LANGUAGES)
def test_packaged_pairs_are_words_that_differ(language: str) -> None:
    found = pairs.packaged(language)
    assert len(found) > 350
    assert len({english for english, _ in found}) == len(found)
    for english, other in found:
        assert english.isascii()
        assert english.islower()
        assert len(other.split()) == 1
        assert other.lower() != english


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moon\tmwezi\n", "at least 2 pairs"),
        ("moon\tmwezi\nsun\n", "line 2 is not"),
        ("a\tb\tc\n", "line 1 is not"),
    ],
)
def test_a_bad_file_of_pairs_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        pairs.from_file(str(path))


def value(run: Any, measure: str, layer: int) -> float:
    layers = table(run)
    return float(layers[(layers["measure"] == measure) & (layers["layer"] == layer)]["value"].item())


def test_the_scan_of_a_model_and_the_artefact_of_its_first_token(store: Path, tiny_model: str) -> None:
    few = ("--model", tiny_model, "--kind", "alignment", "--items", "60")
    run, original = probed(*few), probed(*few, "--first_token", "keep")
    layers = table(run)
    assert set(layers["layer"]) == {-1, 0, 1, 2}
    assert set(layers["measure"]) == {*MEASURES, *CSLS_MEASURES}
    assert set(layers["n"]) == {60}
    assert run.data.params["pairs"] == "words"
    assert run.data.params["first_token"] == "drop"
    assert run.data.metrics["chance/p1"] == 1 / 60
    for layer in (0, 1, 2):
        # What all texts have in common makes random pairs more similar.
        assert value(original, "cosine/random/raw", layer) > value(run, "cosine/random/raw", layer) + 0.1


def test_a_word_with_itself_is_found_at_every_layer(store: Path, tiny_model: str) -> None:
    path = store / "same.tsv"
    path.write_text("".join(f"{english}\t{english}\n" for english, _ in pairs.packaged("sw")[:40]))
    run = probed("--model", tiny_model, "--kind", "alignment", "--pairs", str(path), "--language", "en")
    layers = table(run)
    same = layers[layers["measure"].isin(["cosine/translation/raw", "p1/to/raw", "mrr/from/centred"])]
    assert same["value"].to_numpy() == pytest.approx(1)


def test_parts_do_not_matter(store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    from whichlora.probing import partial_results

    few = ("--model", tiny_model, "--kind", "alignment", "--items", "20", "--language", "tr")
    whole = probed(*few)
    MlflowClient().delete_run(whole.info.run_id)
    monkeypatch.setattr(partial_results, "PART_ITEMS", 3)
    pd.testing.assert_frame_equal(table(whole), table(probed(*few)), rtol=1e-4, atol=1e-5)


def test_parts_are_gathered_in_order_and_a_mapped_file_is_not_overwritten(tmp_path: Path) -> None:
    from whichlora.probing.partial_results import PartialResults

    parts = PartialResults(tmp_path / "parts", 70)  # of three parts
    rows = np.arange(70 * 2 * 3, dtype=np.float32).reshape(70, 2, 3)
    parts.fill(lambda part: {"low": rows[list(part)], "high": rows[list(part)] + 1000}, description="rows")
    low = parts.gather("low", tmp_path / "rows.npy")
    high = parts.gather("high", tmp_path / "rows.npy")
    assert isinstance(high, np.memmap)
    assert (low.dtype, low.tolist(), high.tolist()) == (np.float32, rows.tolist(), (rows + 1000).tolist())


def test_parallel_texts_of_a_run_in_the_language_of_the_run(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, language="hi", variant="none"))
    run = probed("--run_id", result.run_id, "--kind", "alignment", "--pairs", "task")
    assert run.data.params["language"] == "hi"
    assert run.data.params["items"] == "9"
    words = probed("--run_id", result.run_id, "--kind", "alignment", "--items", "5")
    assert words.data.params["language"] == "hi"


@pytest.mark.parametrize(("kind", "what"), [("alignment", "the states of "), ("language", "states after block 1")])
def test_a_model_whose_states_are_not_finite_is_not_probed(
    store: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, what: str
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "broken")
    assert main(["--model", str(tmp_path / "broken"), "--kind", kind, "--items", "6"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert what in line
    assert "not finite" in line
    (run,) = probes()
    assert run.info.status == "FAILED"
    assert run.data.tags["whichlora.error"].startswith("NonFiniteError: ")


def test_an_update_that_is_not_finite_is_not_measured(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_of(plan_of(tiny_model, variant="lora"))
    load = adapter.load_saved

    def damaged(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        next(p for n, p in model.named_parameters() if "1.mlp.up_proj.lora_B" in n).data[0, 0] = float("inf")
        return model

    monkeypatch.setattr(adapter, "load_saved", damaged)
    assert main(["--run_id", done.run_id, "--kind", "weights"]) == 1
    assert "error: the update of model.layers.1.mlp.up_proj is not finite" in capsys.readouterr().err
