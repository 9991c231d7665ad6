"""The language detectors on texts in known languages."""

from __future__ import annotations

import pytest

from whichlora.data.detectors import NO_LANGUAGE, Detector, canonical, detect, get_detector
from whichlora.errors import OptionError

SENTENCES = {
    "en": "The children went to the market with their mother this morning.",
    "sw": "Watoto walikwenda sokoni pamoja na mama yao asubuhi ya leo.",
    "hi": "बच्चे आज सुबह अपनी माँ के साथ बाज़ार गए।",
    "ur": "بچے آج صبح اپنی ماں کے ساتھ بازار گئے۔",
    "he": "הילדים הלכו הבוקר לשוק עם אמא שלהם.",
    "no": "Barna gikk til markedet sammen med moren sin i morges, fordi de ikke hadde noe brød hjemme.",
}


@pytest.fixture(params=["cld3", "lingua"])
def detector(request: pytest.FixtureRequest) -> Detector:
    return get_detector(request.param, tuple(SENTENCES))


def test_both_know_the_language_of_a_sentence_by_the_same_code(detector: Detector) -> None:
    found = {code: detect(detector, text) for code, text in SENTENCES.items()}
    assert {code: detection.language for code, detection in found.items()} == {code: code for code in SENTENCES}
    assert found["hi"].reliable


@pytest.mark.parametrize("text", ["", "  ", "47", "।", " , ", "��", "ा", "�\n7�"])
def test_a_text_without_a_letter_is_in_no_language(detector: Detector, text: str) -> None:
    assert detect(detector, text) == NO_LANGUAGE


def test_cld3_alone_would_call_it_japanese() -> None:
    """The reason for the check for letters."""
    assert get_detector("cld3").detect("47").language == "ja"


def test_broken_characters_among_letters_are_ignored(detector: Detector) -> None:
    broken = SENTENCES["hi"][:20] + "��" + SENTENCES["hi"][20:]
    assert detect(detector, broken).language == "hi"


@pytest.mark.parametrize(
    ("code", "same"), [("hi-Latn", "hi"), ("iw", "he"), ("nb", "no"), ("NN", "no"), ("fil", "tl"), ("sw", "sw")]
)
def test_codes_have_one_spelling(code: str, same: str) -> None:
    assert canonical(code) == same


@pytest.mark.parametrize("candidates", [("en",), ("en", "xx")])
def test_lingua_rejects_unknown_or_too_few_candidates(candidates: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match=r"^candidates=.*two or more of af, ar"):
        get_detector("lingua", candidates)
