"""The commands and Python blocks of every page are carried out, page by page, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_blocks import GENERATED, PAGES, ROOT, Block, blocks, commands, every_block, sessions
from page_calls import call, shows, target
from page_workshop import WALK, Workshop

from whichlora.testing.runs import tracking_in

CODE = {
    page: found
    for page in PAGES
    if (found := [b for b in blocks(page) if b.language in ("", "python", "yaml", "csv")])
    and page.relative_to(ROOT).as_posix() != GENERATED
}

NAMED = {str(path.relative_to(ROOT)): path for path in CODE}
QUICK = ("docs/start/install.md", "docs/how-to/own-model.md", "docs/how-to/servers.md", "docs/capabilities.md")
"""Pages that take a second or two."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("pages"), tiny_model)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if name in QUICK else pytest.mark.slow, id=name) for name, path in NAMED.items()],
)
def test_a_page_is_executed(path: Path, workshop: Workshop) -> None:
    with workshop.page(str(path.relative_to(ROOT))):
        workshop.prepare(CODE[path])
        for block in CODE[path]:
            carry_out(block, workshop)


def carry_out(block: Block, workshop: Workshop) -> None:
    """Execute what is not marked."""
    if block.language == "":
        for command in commands(block.text):
            if block.reason(command.text) is None and block.page != WALK:
                workshop.execute(next(commands(workshop.replaced(command.text))))
    elif block.reasons:
        return
    elif block.language == "python":
        workshop.run_python(workshop.replaced(block.text))
    elif block.language == "yaml":
        workshop.read_yaml(block)
    elif block.language == "csv":
        workshop.read_csv(block)


@pytest.mark.slow
def test_a_console_block_shows_what_its_command_prints_of_the_pocket_study(tmp_path: Path) -> None:
    archive = str(ROOT / "docs" / "pocket-study" / "tracking.tar.xz")
    call("whichlora.archive", ["unpack", archive, "--folder", str(tmp_path / "study")])
    shown = [session for block in every_block() if block.language == "console" for session in sessions(block.text)]
    with tracking_in(tmp_path / "study"):
        for command, printed in shown:
            found = call(*target(command.words))
            assert shows(printed, found), found
    assert shown


def test_an_output_that_changed_is_found() -> None:
    printed = "1 run\n\n  name   started\n  vera   2026-11-27 10:09\nend\n"
    assert shows("1 run\nname started\nvera 2026-11-28 11:09\nend\n", printed)
    assert shows("1 run\n...\nend\n", printed)
    assert not shows("1 run\n...\nstop\n", printed)
    assert not shows("2 runs\n...\n", printed)
