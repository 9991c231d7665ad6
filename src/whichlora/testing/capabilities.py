"""Tries out what each adapter can do, and writes the table of `whichlora.variants.capabilities`.

`python -m whichlora.testing.capabilities` tries every adapter of the catalogue, or those named, and prints the table as
Markdown; with `--write` it also replaces their rows in the package.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from whichlora.models.quiet import quiet
from whichlora.testing.capability_probes import Models, probe
from whichlora.variants import CATALOGUE
from whichlora.variants.capabilities import FILE, Table, markdown, table


def main(arguments: list[str] | None = None) -> int:
    """Try out the adapters, print the table, and write it if asked to. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m whichlora.testing.capabilities", description=__doc__)
    adapters = [name for name, variant in CATALOGUE.items() if variant.has_adapter]
    parser.add_argument("names", nargs="*", metavar="VARIANT", help="default: every adapter of the catalogue")
    parser.add_argument("--write", action="store_true", help="replace the rows of these adapters in the package")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.names if name not in adapters]:
        parser.error(f"variant={unknown[0]}: allowed are {', '.join(adapters)}")
    names = chosen.names or adapters
    quiet()
    with tempfile.TemporaryDirectory(prefix="whichlora-") as folder:
        models = Models(Path(folder))
        rows: Table = {name: probe(name, models) for name in names}
    print(markdown(rows))
    if chosen.write:
        whole = {**(table() if chosen.names else {}), **rows}
        content = {"peft": version("peft"), "variants": {name: whole[name] for name in adapters if name in whole}}
        path = Path(str(files("whichlora.variants").joinpath(FILE)))
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
