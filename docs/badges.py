"""Draws the badges of README.md from pyproject.toml, so that they need no service: `python -m docs.badges`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

import whichlora

FOLDER = Path(__file__).parent / "badges"
_LABEL, _VALUE = "#555", "#2a6db0"
_CHARACTER, _SPACE, _HEIGHT = 6.6, 10, 20
"""Pixels: the mean width of a character at 11 px, the space around a text, and the height of a badge."""


def badges() -> dict[str, tuple[str, str]]:
    """Return the label and the text of each badge, by the name of its file."""
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", project["requires-python"]))
    pythons = " | ".join(f"3.{minor}" for minor in range(low, high))
    return {
        "version.svg": ("version", whichlora.__version__),
        "python.svg": ("Python", pythons),
        "licence.svg": ("licence", project["license"]),
    }


def svg(label: str, value: str) -> str:
    """Return a badge as SVG."""
    left, right = (round(len(text) * _CHARACTER) + _SPACE for text in (label, value))
    title, name, shown = (escape(text) for text in (f"{label}: {value}", label, value))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}" role="img">\n'
        f"<title>{title}</title>\n"
        f'<rect width="{left + right}" height="{_HEIGHT}" rx="3" fill="{_VALUE}"/>\n'
        f'<path d="M3 0H{left}V{_HEIGHT}H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3" fill="{_LABEL}"/>\n'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">\n'
        f'<text x="{left / 2}" y="14">{name}</text>\n<text x="{left + right / 2}" y="14">{shown}</text>\n'
        "</g>\n</svg>\n"
    )


def write() -> None:
    """Write the badges."""
    for file, texts in badges().items():
        (FOLDER / file).write_text(svg(*texts), encoding="utf-8")


if __name__ == "__main__":
    write()
