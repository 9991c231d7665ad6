"""The least times on paper: by hand, and as the page states them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu import roofline
from benchmarks.gpu.roofline import A100, BODY, H100, HEAD, HERE, USUAL, Phase, decode, hours, read, seconds, train
from whichlora.config.options import parse_options
from whichlora.config.outline import outline
from whichlora.experiment.device_hours import OVERHEAD, UTILISATION

RUN = {"task": "xnli", "model": "meta-llama/Llama-3.1-8B", "epochs": "3", "tl_ratio": "0"}


def test_a_phase_is_limited_by_products_or_by_memory() -> None:
    assert Phase(312e12, 1.0).seconds(A100) == pytest.approx(1)
    assert Phase(1.0, 3.35e12).seconds(H100) == pytest.approx(1)
    assert BODY + 2 * HEAD == 8_030_261_248
    weights = 2 * (BODY + HEAD)
    assert seconds(decode(1, 7), A100) == pytest.approx(7 * weights / 2.039e12)  # one token a pass: memory
    assert seconds(read(10_000, 1), A100) == pytest.approx(2 * (BODY * 10_000 + HEAD) / 312e12)
    assert seconds(train(10_000, 5), A100) == pytest.approx(4 * (BODY * 10_000 + HEAD * 5) / 312e12)


def test_an_adapter_that_serves_two_languages_is_trained_and_scored_in_english_once() -> None:
    swahili, hindi = (outline(parse_options(RUN | {"language": language})) for language in ("sw", "hi"))
    score_hindi = 5010 / 16 * seconds(HERE.score(106), A100) / UTILISATION / 3600
    one, both = hours([swahili], A100, HERE), hours([swahili, hindi], A100, HERE)
    assert both - one == pytest.approx(score_hindi)
    usual = [hours(runs, A100, USUAL) for runs in ([swahili], [hindi], [swahili, hindi])]
    assert usual[2] == pytest.approx(usual[0] + usual[1])
    trained, read_items = 3 * 5000 / 16, {60: 5010 + 500 * 4, 85: 5010 + 500}
    by_hand = trained * seconds(USUAL.train(60), A100)
    by_hand += sum(n / 16 * seconds(USUAL.score(length), A100) for length, n in read_items.items())
    assert usual[0] == pytest.approx((by_hand / UTILISATION + OVERHEAD) / 3600)


def test_the_page_has_the_tables_of_the_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "device-hours.md").read_text()
    assert all(table in page for table in roofline.report().split("\n\n"))
