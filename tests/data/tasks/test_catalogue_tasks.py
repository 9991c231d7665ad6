"""The tasks of the catalogue: every layout gives the same items, and all checks of `whichlora.testing` pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from layouts import LAYOUTS, Layout, invented

from whichlora.data.tasks import get_task, task_class
from whichlora.data.tasks.catalogue import CATALOGUE
from whichlora.data.tasks.items import QaItem
from whichlora.errors import OptionError
from whichlora.testing import check_task

FIRST = {layout.task: layout for layout in reversed(LAYOUTS)}
each_task = pytest.mark.parametrize("name", CATALOGUE)


def some_languages(name: str) -> list[str]:
    task = task_class(name)
    return list(dict.fromkeys([task.declaration.reference, *task.pooled[:2]]))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.task} {layout.title}")
def test_every_layout_gives_the_items_as_they_are(layout: Layout, tmp_path):
    codes = some_languages(layout.task)
    folder = layout.write(tmp_path, codes)
    task = get_task(layout.task)
    for code in codes:
        loaded = {split: task.load(code, split, data_dir=folder) for split in ("train", "validation", "test")}
        assert all(loaded.values())
        for split in layout.paths:
            from_split = [split, *(loaded.keys() - layout.paths.keys() if split in ("train", "all") else ())]
            items = {item.id: item for part in from_split for item in loaded.get(part, ())}
            rows = invented(layout.task, code, split)
            assert len(items) == len(rows)
            for row, item in zip(rows, sorted(items.values(), key=lambda item: position(item.id)), strict=True):
                assert task.gold(item) == (row["answer"],)
                if isinstance(item, QaItem):
                    assert (item.context, item.question, item.answer_start) == (
                        row["context"],
                        row["question"],
                        row["start"],
                    )
                else:
                    assert dict(item.fields) == {name: row[name] for name in dict(item.fields)}


def position(item_id: str) -> tuple[int, ...]:
    """Return the place of an item in its file: the numbers in its id."""
    last = item_id.rpartition("-")[2].removeprefix("w/")
    return tuple(int("".join(c for c in part if c.isdecimal())) for part in last.split())


@each_task
def test_all_checks_pass(name, tmp_path):
    check_task(task_class(name), FIRST[name].write(tmp_path, task_class(name).languages))


@each_task
def test_licence_citation_source_size_and_faults_are_named(name):
    about = task_class(name).declaration.about
    assert all((about.title, about.licence, about.citation, about.size, about.faults))
    assert about.source.startswith("https://")


@each_task
def test_every_dataset_is_read_from_the_hub_too(name):
    *files, hub = task_class(name).declaration.layouts
    assert hub.hub
    assert not any(layout.hub for layout in files)
    assert {layout.title for layout in LAYOUTS if layout.task == name}
    assert len([layout for layout in LAYOUTS if layout.task == name]) == len(files)


@each_task
def test_a_folder_without_the_data_is_told_what_it_has(name, tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(OptionError, match=rf"^data_dir={tmp_path}: has none of .*; it has readme.txt"):
        get_task(name).load(task_class(name).languages[0], "test", data_dir=str(tmp_path))


def test_blanked_labels_are_said_to_be_missing(tmp_path):
    layout = next(layout for layout in LAYOUTS if (layout.task, layout.title) == ("paws-x", "xtreme"))
    folder = Path(layout.write(tmp_path, ["en", "de"]))
    for code in ("en", "de"):
        path = folder / f"test-{code}.tsv"
        path.write_text("".join(line.rpartition("\t")[0] + "\t\n" for line in path.read_text().splitlines()))
    with (
        pytest.warns(UserWarning, match="This copy of the data has no answers; repackagings such as XTREME's"),
        pytest.raises(OptionError, match=r"test-de.tsv has no items in de that can be used"),
    ):
        get_task("paws-x").load("de", "test", data_dir=str(folder))


def test_blanked_answers_are_said_to_be_missing(tmp_path):
    path = tmp_path / "xquad.en.json"
    FIRST["xquad"].write(tmp_path, ["en"])
    path.write_text(re.sub(r'"text": "[^"]*"', '"text": ""', path.read_text()))
    with pytest.raises(OptionError, match="This copy of the data has no answers; repackagings such as XTREME's"):
        get_task("xquad").load("en", "test", data_dir=str(tmp_path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return the working directory, from which `datasets` reads local copies of the hub's layout."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def card(folder: Path, configs: list[str], splits: tuple[str, ...]) -> None:
    """Write the card of a dataset on the hub, which says where each config's files are."""
    lines = ["---", "configs:"]
    for config in configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {config}/{split}-*" for split in splits]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


CARDS = {"xcopa": ("validation", "test"), "xquad": ("validation",), "paws-x": ("train", "validation", "test")}
ON_HUB = ["xcopa parquet", "xquad parquet", "paws-x parquet", "americasnli parquet"]
CONVERTED = ["masakhanews parquet", "massive converted", "indicxnli parquet"]
"""Layouts of the branch that the hub converts to Parquet, in which a config is a folder."""


@pytest.mark.parametrize("title", [*ON_HUB, *CONVERTED])
def test_the_hub_gives_the_same_items_as_a_folder(title, hub):
    layout = next(layout for layout in LAYOUTS if f"{layout.task} {layout.title}" == title)
    declaration = task_class(layout.task).declaration
    codes = some_languages(layout.task)
    folder = hub / str(declaration.layouts[-1].hub)
    layout.write(folder, declaration.codes if declaration.on_bad == "skip" else codes)
    configs = sorted(path.name for path in folder.iterdir())
    task = get_task(layout.task)
    expected = {(c, s): task.load(c, s, data_dir=str(folder)) for c in codes for s in ("train", "test")}
    if title in ON_HUB:
        card(folder, configs, CARDS.get(layout.task, ("validation", "test")))
    for (code, split), items in expected.items():
        assert task.load(code, split) == items
