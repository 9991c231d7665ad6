"""The command `variants`: prints the catalogue with hyperparameters and trainable parameters on a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from whichlora.announcements import announced
from whichlora.command_line import FOLDER, Command, exit_with
from whichlora.errors import OptionError, check_choice, check_text, parse_integer, parse_unless
from whichlora.models.loading import ModelShape, locate, read_shape
from whichlora.models.packaged import DEFAULT, packaged_names
from whichlora.models.quiet import quiet
from whichlora.variants import CATALOGUE, Variant, get_variant, name_conflicts, variant_names
from whichlora.variants.capabilities import CAPABILITIES, NO_NEEDS, capabilities_text, has_all, parse_needs

FORMATS = ("text", "markdown")
COMMAND = Command(
    "variants",
    "List the adapter methods with their hyperparameters, sources and trainable parameters on a model.",
    {
        "model": (
            DEFAULT,
            f"Model for which parameters are counted: {packaged_names()}, a folder, a GGUF file, or a hub id.",
        ),
        "rank": ("auto", "Rank for which parameters are counted; auto is the rank of the arm matched."),
        "needs": (
            NO_NEEDS,
            f"Only variants with all of these capabilities, joined by commas: {', '.join(CAPABILITIES)}. Each was "
            "tried out on a tiny model (docs/capabilities.md).",
        ),
        "format": (FORMATS[0], f"Output: {' or '.join(FORMATS)}."),
    },
    choices={"model": FOLDER, "needs": tuple(CAPABILITIES), "format": FORMATS},
    examples=("whichlora variants --rank 8 --format markdown", "whichlora variants --needs nf4,merge"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the catalogue. Return the exit status: 2 for bad options."""
    texts = COMMAND.read(arguments)
    quiet()
    try:
        output_format = check_choice("format", texts["format"], FORMATS)
        needs = parse_needs(texts["needs"])
        rank = parse_unless("auto", parse_integer, "rank", texts["rank"], 1)
        with announced("Loading packages and the shape of the model."):
            shape = read_shape(locate(check_text("model", texts["model"])))
        shown = [variant for variant in (*CATALOGUE.values(), *_package_variants()) if has_all(variant.name, needs)]
        rows = [describe(variant, shape, rank) for variant in shown]
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(_markdown(rows) if output_format == "markdown" else _text(rows))
    return 0


def _package_variants() -> list[Variant]:
    """Load the variants of installed packages, and warn on stderr about each that cannot be used."""
    variants, warnings = [], name_conflicts()
    for name in variant_names()[len(CATALOGUE) :]:
        try:
            variants.append(get_variant(name))
        except OptionError as error:
            warnings.append(str(error))
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    return variants


def describe(variant: Variant, shape: ModelShape, rank: int | None) -> dict[str, str]:
    """Return what the catalogue says of a variant, by title; `-` where it says nothing.

    Args:
        shape: the model for which parameters are counted.
        rank: the rank for which they are; None is that of the arm matched.
    """
    adapter = variant.adapts_layers
    supports = {
        "layers": adapter,
        "nf4": variant.quantizable,
        "alpha": variant.has_alpha,
        "rank": variant.has_rank,
    }
    return {
        "variant": variant.name,
        "title": variant.title,
        "paper": variant.paper,
        "recommended": _recommended(variant),
        "source": variant.recommended.source if variant.recommended else "-",
        "matched": _matched(variant),
        "own settings": ", ".join(f"{k} {v}" for k, v in variant.options.items()) or "-",
        "rank": variant.rank_means if variant.has_rank else "-",
        "parameters": _parameters(variant, shape, rank),
        **({"not adapted": shape.unadapted_text() if variant.has_adapter else "-"} if shape.unadapted else {}),
        "supports": ", ".join(name for name, supported in supports.items() if supported) or "-",
        "capabilities": capabilities_text(variant.name),
    }


def _recommended(variant: Variant) -> str:
    values = variant.recommended
    if values is None:
        return "-"
    parts = {
        "rank": values.rank,
        "alpha": values.alpha,
        "learning rate": values.learning_rate,
        "epochs": values.epochs,
        "batch": values.batch_size,
        "warm-up": values.warmup,
        "dropout": values.dropout or None,
        "weight decay": values.weight_decay or None,
    }
    text = ", ".join(f"{name} {value:g}" for name, value in parts.items() if value is not None)
    modules = values.target_modules
    where = f", {modules if isinstance(modules, str) else ' '.join(modules)}" if variant.adapts_layers else ""
    return f"{text}, {values.scheduler}{where}"


def _matched(variant: Variant) -> str:
    if variant.recommended is None:
        return "-"
    rate = variant.matched_learning_rate
    parts = {"rank": variant.matched_rank, "alpha": variant.matched_alpha if variant.has_alpha else None}
    texts = [f"{name} {value:g}" for name, value in parts.items() if value is not None]
    last = "learning rate must be set (no equal sweep yet)" if rate is None else f"learning rate {rate:g}"
    return ", ".join([*texts, last])


def _parameters(variant: Variant, shape: ModelShape, rank: int | None) -> str:
    if not variant.trains:
        return "0"
    count, note = shape.parameters, ""
    if variant.expected_parameters is not None:
        shapes = shape.linears
        used_rank = 0
        if variant.has_rank:
            assert variant.matched_rank is not None
            used_rank = min(variant.matched_rank, variant.rank_limit(shapes)) if rank is None else rank
            problem = variant.rank_problem(used_rank, shapes)
            if problem is not None:
                return f"rank {used_rank} does not fit: {problem}"
            note = f" at rank {used_rank}" + ", if no layer is trained in full" * (variant.fully_trained is not None)
        own = variant.expected_parameters(shapes, used_rank, variant.options)
        count = own + (shape.parameters if variant.trains_whole_model else 0)
    return f"{count:,} ({100 * count / shape.parameters:.3f} %){note}"


def _text(rows: list[dict[str, str]]) -> str:
    if not rows:
        return "No variant has all of these capabilities."
    width = max(map(len, rows[0]))
    return "\n\n".join("\n".join(f"{name:{width}}  {value}" for name, value in row.items()) for row in rows)


def _markdown(rows: list[dict[str, str]]) -> str:
    if not rows:
        return _text(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    exit_with(main)
