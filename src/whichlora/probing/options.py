"""Options of the command `probe`, with defaults, help texts and the values that shell completion offers."""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.command_line import BOOLEANS
from whichlora.config.options import AUTO, FIRST_TOKEN, PRECISIONS, QUANTIZATIONS
from whichlora.data.chat import NONE
from whichlora.data.detectors import DETECTORS
from whichlora.data.tasks import PROMPTED, PROMPTED_VALUES
from whichlora.data.tasks.pairs import LANGUAGES
from whichlora.models.packaged import DEFAULT, packaged_names
from whichlora.probing.choices import FIELDS_OF_KIND

TATOEBA = "tatoeba"
"""Value of `pairs` for the sentences of LASER's Tatoeba test sets, which are in `data_dir`."""
LEVELS = ("token", "sequence")
POSITIONS = ("all", "item", "last", "generated")
ARITHMETICS = ("fp32", "bf16")
KEEP_OR_DROP = ("keep", "drop")
OPTIONS = {
    "run_id": (
        AUTO,
        "MLflow id, or its first digits, of a finished run whose model is probed; auto probes a base model.",
    ),
    "model": (
        AUTO,
        f"Base model to probe: {packaged_names()} (packaged), a folder, a GGUF file, or a hub id; auto: {DEFAULT}.",
    ),
    "kind": (
        "language",
        "language (that each layer decodes to), alignment (of translations), retrieval (of answers in several "
        "languages, on XQuAD-R) or weights (of an adapter's update).",
    ),
    "task": (AUTO, f"Task whose test items are read: {PROMPTED_VALUES}; auto is the run's, else atlas-nli."),
    "language": (
        AUTO,
        "Target language (ISO 639-1); auto is the run's, else sw. With pairs=words or tatoeba, also several, as in "
        "tr,az,kk: each is probed, and a table compares them. With kind=retrieval, those that are searched together.",
    ),
    "items": (
        AUTO,
        "Maximum number of test items, or of pairs; auto is the run's number of items, else the task's, or 2000 pairs. "
        "With kind=retrieval, number of questions per language; auto is all.",
    ),
    "data_dir": (
        AUTO,
        "Folder with the data of a task that is not packaged, of Tatoeba (LASER's files) or of XQuAD-R.",
    ),
    "chat_template": (
        AUTO,
        "Form of the prompts: none, a file with a Jinja chat template, or auto: that of the run, else as in run.",
    ),
    "precision": (
        AUTO,
        "Precision of a base model: fp32 or bf16; auto is bf16 on a GPU and fp32 on a CPU. A run keeps its precision.",
    ),
    "quantization": (AUTO, "Quantization of a base model: none or nf4. A run keeps its quantization."),
    "seed": ("42", "Random seed of bootstrap intervals and samples."),
    "preset": (
        "default",
        "Values of auto in the options below: default, paper (the same values) or zhao2024 (its authors' code).",
    ),
    "detector": (AUTO, f"Language detector: {', '.join(DETECTORS)}."),
    "level": (AUTO, "Unit from which metrics are computed: token or sequence; figures show both."),
    "final_norm": (
        AUTO,
        "true: apply the model's final norm before the LM head in every layer; false: in the last layer only.",
    ),
    "positions": (
        AUTO,
        "Decoded positions: all, item (without the instruction), last, or generated (all, and generated tokens).",
    ),
    "top_k": (AUTO, "Number of most likely tokens per position, 1 to 50."),
    "unreliable": (AUTO, "keep or drop results that the detector itself calls unreliable."),
    "special_tokens": (AUTO, "keep or drop special tokens, as positions and among the decoded tokens."),
    "candidates": (
        AUTO,
        "Allowed detected languages, separated by commas; all; or task for the languages of the task.",
    ),
    "arithmetic": (AUTO, "Arithmetic of the LM head: fp32 (exact) or bf16 (faster; its disagreement is measured)."),
    "agreement": (AUTO, "Number of tokens, and of texts, on which the two detectors are compared; 0 for none."),
    "pairs": (
        AUTO,
        f"words (packaged for {', '.join(LANGUAGES)}), task (its hypotheses or questions), tatoeba (sentences, from "
        "data_dir), or a TSV file.",
    ),
    "first_token": (
        AUTO,
        "drop or keep the first token of a text, which makes the averages of all texts similar.",
    ),
    "against": (
        AUTO,
        "MLflow id, or its first digits, of another run to compare with: "
        "its hidden states (alignment; also base) or update (weights).",
    ),
}
GROUPS = {
    "What is probed": ("run_id", "model", "kind", "precision", "quantization"),
    "Texts": ("task", "language", "items", "data_dir", "chat_template", "seed"),
    "Language probe (kind=language)": (
        *("preset", "detector", "level", "final_norm", "positions", "top_k", "unreliable", "special_tokens"),
        *("candidates", "arithmetic", "agreement"),
    ),
    "Alignment probe (kind=alignment; first_token also kind=retrieval)": ("pairs", "first_token"),
    "Comparison (kind=alignment or weights)": ("against",),
}
"""The groups of options in `--help`."""
CHOICES: dict[str, Sequence[str]] = {
    "kind": tuple(FIELDS_OF_KIND),
    "task": PROMPTED,
    "chat_template": (NONE,),
    "precision": PRECISIONS,
    "quantization": QUANTIZATIONS,
    "preset": ("default", "paper", "zhao2024"),
    "detector": DETECTORS,
    "level": LEVELS,
    "final_norm": BOOLEANS,
    "positions": POSITIONS,
    "unreliable": KEEP_OR_DROP,
    "special_tokens": KEEP_OR_DROP,
    "arithmetic": ARITHMETICS,
    "pairs": ("words", "task", TATOEBA),
    "first_token": FIRST_TOKEN,
}
"""The values that shell completion offers."""
