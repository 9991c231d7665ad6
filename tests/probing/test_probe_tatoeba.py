"""Retrieval of Tatoeba's sentences: LASER's files, CSLS against its definition, and a table over languages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import probed, probes, table

from whichlora.data.tasks.pairs import tatoeba
from whichlora.data.word_pooling import retrieval_layer
from whichlora.errors import OptionError
from whichlora.evaluation import translation_similarity
from whichlora.evaluation.translation_similarity import CSLS_MEASURES, CSLS_NEIGHBOURS, compare_by_csls
from whichlora.probing import main

SENTENCES = {
    "tur": ["Merhaba.", "Kedi uyuyor.", "Yarın gel!", "Su iç.", "Kapıyı aç.", "Çok soğuk.", "Geç kaldım.", "Bak."],
    "kaz": ["Сәлем.", "Мысық ұйықтап жатыр.", "Ертең кел!", "Су іш.", "Есікті аш.", "Өте суық."],
    "swh": ["Habari.", "Paka analala.", "Njoo kesho!", "Kunywa maji."],
}
ENGLISH = [
    "Hello.",
    "The cat sleeps.",
    "Come tomorrow!",
    "Drink.",
    "Open the door.",
    "It is cold.",
    "I am late.",
    "Look.",
]


def laser(folder: Path, sentences: dict[str, list[str]] = SENTENCES) -> Path:
    """Write files in LASER's format, as many pairs as a language has sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, texts in sentences.items():
        for side, lines in ((code, texts), ("eng", ENGLISH[: len(texts)])):
            (folder / f"tatoeba.{code}-eng.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("place", ["", "data/tatoeba/v1"])
def test_the_files_are_read_flat_and_in_a_clone(tmp_path: Path, place: str) -> None:
    laser(tmp_path / place)
    assert tatoeba.read("tr", str(tmp_path))[1] == ("The cat sleeps.", "Kedi uyuyor.")
    assert tatoeba.read("sw", str(tmp_path)) == tatoeba.read("swh", str(tmp_path))
    assert len(tatoeba.read("kk", str(tmp_path))) == 6


def test_only_line_feeds_divide_lines(tmp_path: Path) -> None:
    laser(tmp_path, {"tur": ["Bir\u2028iki.", "Üç.\r"]})
    assert [text for _, text in tatoeba.read("tr", str(tmp_path))] == ["Bir\u2028iki.", "Üç."]


def test_empty_lines_at_the_end_are_no_sentences(tmp_path: Path) -> None:
    laser(tmp_path)
    whole = tatoeba.read("tr", str(tmp_path))
    for name in ("tatoeba.tur-eng.tur", "tatoeba.tur-eng.eng"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes() + b"\n\r\n")
        assert tatoeba.read("tr", str(tmp_path)) == whole


def test_a_folder_with_english_files_alone_is_listed(tmp_path: Path) -> None:
    laser(tmp_path, {"tur": SENTENCES["tur"]})
    (tmp_path / "tatoeba.tur-eng.tur").unlink()
    with pytest.raises(OptionError, match=r"has no tatoeba\.tur-eng\.tur; it has tatoeba\.tur-eng\.eng$"):
        tatoeba.read("tr", str(tmp_path))


@pytest.mark.parametrize(
    ("language", "damage", "message"),
    [
        ("ky", None, "has no tatoeba.kir-eng.eng; it has kaz, swh, tur"),
        ("turkish", None, "or the three letters of a file name"),
        ("tr", ("tatoeba.tur-eng.tur", None), "has no tatoeba.tur-eng.tur"),
        ("tr", ("tatoeba.tur-eng.tur", "bir\n"), "tatoeba.tur-eng.eng has 8 lines and tatoeba.tur-eng.tur 1"),
        ("tr", ("tatoeba.tur-eng.eng", "a\n \nb\n"), "tatoeba.tur-eng.eng line 2 is empty"),
        ("tr", ("tatoeba.tur-eng.eng", ""), "tatoeba.tur-eng.eng line 1 is empty"),
        ("tr", ("tatoeba.tur-eng.eng", "\n\n"), "tatoeba.tur-eng.eng line 1 is empty"),
        ("tr", ("tatoeba.tur-eng.eng", b"\xff\n"), "tatoeba.tur-eng.eng cannot be read (UnicodeDecodeError)"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(tmp_path: Path, language: str, damage: Any, message: str) -> None:
    laser(tmp_path)
    if damage:
        name, content = damage
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OptionError) as raised:
        tatoeba.read(language, str(tmp_path))
    assert message in str(raised.value)


def test_the_headline_layers_are_those_of_xtreme_r() -> None:
    assert [retrieval_layer(n) for n in (12, 24)] == [7, 13]  # its `specific_layer`, counted from 0
    assert [retrieval_layer(n) for n in (1, 2, 3, 30)] == [0, 1, 2, 17]


def csls_by_definition(first: Any, second: Any, k: int) -> Any:
    """Return Conneau's CSLS, (texts, texts), from sorted cosines."""
    cosine = (first / np.linalg.norm(first, axis=1)[:, None]) @ (second / np.linalg.norm(second, axis=1)[:, None]).T
    near = [np.sort(matrix, axis=1)[:, -k:].mean(1) for matrix in (cosine, cosine.T)]
    return 2 * cosine - near[0][:, None] - near[1]


@pytest.mark.parametrize("count", [CSLS_NEIGHBOURS - 3, 40])
@pytest.mark.parametrize("block", [7, 1024])
def test_csls_is_that_of_its_definition(count: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    first = random.normal(size=(count, 16))
    second = first + random.normal(size=(count, 16)) + 2 * random.random((count, 1))  # some texts are hubs
    similarity = csls_by_definition(first, second, min(CSLS_NEIGHBOURS, count))
    ranks = [1 + (matrix > np.diag(matrix)[:, None]).sum(1) for matrix in (similarity, similarity.T)]
    monkeypatch.setattr(translation_similarity, "BLOCK", block)
    found = compare_by_csls(np.stack([first, second], axis=1), [(f"a{i}", f"b{i}") for i in range(count)])
    expected = [ranks[0] == 1, ranks[1] == 1, 1 / ranks[0], 1 / ranks[1]]
    np.testing.assert_allclose(found, np.stack(expected, axis=1))
    assert found.shape[1] == len(CSLS_MEASURES)


def test_a_repeated_text_is_one_neighbour() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 30, 8))
    second[1:15] = second[0]
    names = [(f"a{i}", f"b{0 if i < 15 else i}") for i in range(30)]
    once = [0, *range(15, 30)]
    similarity = csls_by_definition(first, second[once], CSLS_NEIGHBOURS)
    found = compare_by_csls(np.stack([first, second], axis=1), names)
    assert found[29, 0] == (similarity[29].argmax() == once.index(29))
    assert found[0, 0] == (similarity[0].argmax() == 0)


def test_several_languages_are_compared_with_their_own_chance(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    laser(store / "laser")
    options = ["--model", tiny_model, "--kind", "alignment", "--pairs", "tatoeba", "--data_dir", "laser"]
    assert main([*options, "--language", "sw,tur,kk"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["Turkish", "Kazakh", "Turkic,", "Swahili", "all,"]
    assert "after block 2 (counted from 0)" in lines[0]
    runs = {run.data.params["language"]: run for run in probes()}
    assert {code: run.data.metrics["chance/p1"] for code, run in runs.items()} == {
        "sw": 1 / 4,
        "tr": 1 / 8,
        "kk": 1 / 6,
    }
    assert runs["tr"].info.run_name.endswith(", tatoeba tr")
    metrics, layers = runs["tr"].data.metrics, table(runs["tr"])
    assert metrics["headline/layer"] == 2
    at = layers[layers["layer"] == 2].set_index("measure")
    for name in ("p1/to/raw", "p1/from/centred", "mrr/to/csls"):
        assert metrics[f"headline/{name}"] == at.loc[name, "value"]
        assert metrics[f"headline/{name}_low"] == at.loc[name, "low"] <= at.loc[name, "value"] <= at.loc[name, "high"]
    mean = (metrics["headline/p1/to/raw"] + runs["kk"].data.metrics["headline/p1/to/raw"]) / 2
    assert f"{mean:.3f} / " in lines[4]
    shutil.rmtree(store / "laser")  # the probe of one language is done, and its files are needed to know it
    assert main([*options, "--language", "tr"]) == 2


def test_pairs_of_a_file_give_the_same_numbers(store: Path, tiny_model: str) -> None:
    laser(store / "laser")
    lines = (f"{english}\t{turkish}\n" for english, turkish in zip(ENGLISH, SENTENCES["tur"], strict=True))
    (store / "pairs.tsv").write_text("".join(lines))
    first = probed("--model", tiny_model, "--kind", "alignment", "--pairs", "pairs.tsv")
    second = probed(
        *("--model", tiny_model, "--kind", "alignment", "--pairs", "tatoeba", "--data_dir", "laser", "--language", "tr")
    )
    assert first.info.run_id != second.info.run_id
    assert first.data.metrics == second.data.metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "tatoeba"}, "data_dir=auto: must be a folder with LASER's files"),
        ({"pairs": "tatoeba", "data_dir": "laser", "language": "tr,ky"}, "has no tatoeba.kir-eng.eng"),
        ({"pairs": "tatoeba", "data_dir": "laser", "language": "tr,tr"}, "language=tr,tr: must be different codes"),
        ({"pairs": "tatoeba", "data_dir": "laser", "language": "tr,tur"}, "language=tr,tur: must be different codes"),
        ({"pairs": "tatoeba", "data_dir": "laser", "language": "tr,"}, "language=tr,: must be different codes"),
        ({"pairs": "tatoeba", "data_dir": "laser", "task": "xnli"}, "task=xnli: has no effect"),
        ({"pairs": "words", "data_dir": "laser"}, "data_dir=laser: has no effect"),
        ({"pairs": "words", "language": "sw,xx"}, "language=sw,xx: has xx; allowed are"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_no_run(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], options: dict[str, str], message: str
) -> None:
    laser(store / "laser")
    words = [word for name, text in options.items() for word in (f"--{name}", text)]
    assert main(["--model", tiny_model, "--kind", "alignment", *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert probes() == []
