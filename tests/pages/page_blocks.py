"""Reads the fenced blocks of README, CONTRIBUTING and the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "tables" not in path.parts),
]
GENERATED = "docs/reference/commands.md"
"""Its blocks are the examples of `--help`, which the pages repeat: they are parsed, not executed."""
REASONS = {
    "gpu": "needs a GPU",
    "hub": "needs the internet",
    "docker": "needs Docker",
    "hours": "takes long or changes the installation, and no small size shows the same",
    "server": "needs a server or is one",
    "data": "needs data that are not part of the project",
    "part": "is a part of a file or program, or rewrites a file of the project",
}
"""Why a block is not executed, as in `<!-- not run: gpu -->` above it; `gpu (accelerate)` is only for the commands with
that word."""
LANGUAGES = ("", "console", "python", "yaml", "toml", "csv", "text")
"""Info strings of fences. Blocks without one are commands, `console` shows what they print, `text` is not read."""
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reasons>[^>]*) -->\n+)?"
    r"^(?P<fence>```+|~~~+)(?P<language>.*)\n(?P<text>(?s:.*?)\n)(?P=fence)$",
    re.MULTILINE,
)
_REASON = re.compile(r"(\w+)(?: \(([^)]+)\))?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the reasons not to execute it by the word of the commands they are about."""

    page: str
    line: int
    language: str
    text: str
    reasons: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def reason(self, text: str) -> str | None:
        """Why a command (or, for other languages, the block) is not executed; None if it is."""
        return next((reason for word, reason in self.reasons.items() if word in text), None)


@dataclass(frozen=True)
class Command:
    """A command line of a block: its text, its words, and the variables that it sets for itself."""

    text: str
    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict, hash=False)
    stdin: str | None = None
    stdout: str | None = None


def blocks(path: Path) -> list[Block]:
    """Return the blocks of a page in order.

    Raises:
        ValueError: a mark or a fence is none of those that exist.
    """
    text = path.read_text(encoding="utf-8")
    page = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("fence")) + 1
        language = match["language"].strip()
        reasons = {word: name for name, word in _REASON.findall(match["reasons"] or "")}
        if unknown := sorted(set(reasons.values()) - REASONS.keys()):
            raise ValueError(f"{page}:{line}: unknown reason {', '.join(unknown)}; known are {', '.join(REASONS)}")
        if language not in LANGUAGES:
            raise ValueError(f"{page}:{line}: unknown language {language}; known are {', '.join(LANGUAGES[1:])}")
        found.append(Block(page, line, language, match["text"], reasons))
    if len(re.findall("^<!-- not run", text, re.MULTILINE)) != sum(bool(block.reasons) for block in found):
        raise ValueError(f"{page}: a mark `not run` is not directly above a block")
    return found


def every_block() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for path in PAGES for block in blocks(path)]


def sessions(text: str) -> list[tuple[Command, str]]:
    """Return the commands of a `console` block, which follow a dollar sign, each with what it prints."""
    parts = re.split(r"^\$ (.+)\n", text, flags=re.MULTILINE)
    return [(next(commands(line)), printed) for line, printed in zip(parts[1::2], parts[2::2], strict=True)]


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of a block; a line may end in a backslash, hold several of them, and end in a comment."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        streams = {}
        for sign in "<>":
            if sign in words:
                at = words.index(sign)
                streams[sign] = words[at + 1]
                del words[at : at + 2]
        variables = {}
        while re.match(r"[A-Za-z_]\w*=", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        yield Command(line, tuple(words), variables, streams.get("<"), streams.get(">"))
