"""A file of another language is neither read nor suggested."""

from __future__ import annotations

from pathlib import Path

import pytest
from declaring import declared

from whichlora.data.tasks import task_class
from whichlora.data.tasks.catalogue import CATALOGUE
from whichlora.data.tasks.declared.file_names import files_of
from whichlora.data.tasks.declared.layouts import filled
from whichlora.errors import OptionError

WORDS = {"et": "set", "en": "sentences", "de": "decoded", "id": "hidden", "tr": "train", "st": "test", "zh": "zhong"}


def languages(*codes: str) -> dict[str, object]:
    return {"languages": list(codes), "source": codes[0]}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_language_has_its_own_files_alone(name: str, tmp_path: Path) -> None:
    declaration = task_class(name).declaration
    for number, layout in enumerate(layout for layout in declaration.layouts if not layout.hub):
        folder = tmp_path / str(number)
        pattern = layout.pattern_of_test
        if "{lang}" not in pattern and "{name}" not in pattern:
            continue
        paths: dict[str, tuple[dict[str, str], Path]] = {}
        for code in declaration.codes:
            names = {"lang": code, "name": declaration.name_in_data(code), "split": "test"}
            paths[code] = names, folder / filled(pattern, names).replace("*", "x")
            paths[code][1].parent.mkdir(parents=True, exist_ok=True)
            paths[code][1].touch()
        for names, path in paths.values():
            assert files_of(declaration, folder, pattern, names) == [path]
            path.unlink()
            assert files_of(declaration, folder, pattern, names) == []
            path.touch()


@pytest.mark.parametrize("code", WORDS)
@pytest.mark.parametrize("pattern", ["*{lang}*.csv", "*{lang}.csv", "{lang}*.csv", "sub-{lang}/*{lang}*.csv"])
def test_a_code_beside_an_asterisk_is_a_word(pattern: str, code: str, tmp_path: Path) -> None:
    declaration = declared(tmp_path, **languages(*WORDS), data={"test": pattern}).declaration
    names = {"lang": code, "name": code, "split": "test"}
    folder = tmp_path / f"sub-{code}" if "/" in pattern else tmp_path
    folder.mkdir(exist_ok=True)
    for word in WORDS.values():
        (folder / f"{word}.csv").touch()
    assert files_of(declaration, tmp_path, pattern, names) == []
    own = folder / filled(pattern.rpartition("/")[2], names).replace("*{", "{").replace("*", "-")
    own.touch()
    assert files_of(declaration, tmp_path, pattern, names) == [own]


def test_a_longer_code_is_another_language(tmp_path: Path) -> None:
    declaration = declared(tmp_path, **languages("zh", "zh-TW"), data={"test": "{lang}*.csv"}).declaration
    for name in ("zh-TW.csv", "zh-1.csv"):
        (tmp_path / name).touch()
    found = {
        code: [path.name for path in files_of(declaration, tmp_path, "{lang}*.csv", {"lang": code, "name": code})]
        for code in ("zh", "zh-TW")
    }
    assert found == {"zh": ["zh-1.csv"], "zh-TW": ["zh-TW.csv"]}


@pytest.mark.parametrize("language", ["tr", "et"])
def test_a_file_of_another_language_is_not_suggested(language: str, tmp_path: Path) -> None:
    for code in {"sw", "et", "tr"} - {language}:
        for split in ("val", "test"):
            (tmp_path / code).mkdir(exist_ok=True)
            (tmp_path / code / f"{split}.{code}.jsonl").write_text(
                '{"idx": 0, "premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "label": 0}\n'
            )
    (tmp_path / language).mkdir()
    with pytest.raises(OptionError, match=f"has no {language}/test.{language}.jsonl") as caught:
        task_class("xcopa")().load(language, "test", data_dir=str(tmp_path))
    assert "meant to be" not in str(caught.value)
