"""Writes the model card of a trained adapter or model: README.md with the metadata that the hub reads."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Literal

from huggingface_hub import ModelCardData

from whichlora.cards.facts import DataSet, RunFacts
from whichlora.cards.rerun import command, other_settings
from whichlora.command_line import PROGRAM
from whichlora.data.language_names import join_names, language_name
from whichlora.data.logged_scores import best_floor, interval_of, scores_by_language
from whichlora.data.metric_names import metric_name, scale_of
from whichlora.errors import one_line
from whichlora.models.notices import NOTICE, SENTENCES
from whichlora.models.published import PublishedBase
from whichlora.text_tables import POINTS

Form = Literal["adapter", "model", "merged"]
"""What a card describes: an adapter, a model all of whose weights were trained, or a base with a merged adapter."""
_KINDS: Mapping[Form, str] = {"adapter": "{} adapter", "model": "{}", "merged": "merged {} adapter"}
_HYPERPARAMETERS = (
    *("seed", "epochs", "batch_size", "learning_rate", "rank", "alpha", "target_modules", "precision", "quantization"),
    *("prompt_version", "chat_template"),
)
_LISTED = 20
"""Most names of layers that the card lists."""
_CODE = re.compile(r"[a-z]{2,3}")
_SYNTHETIC = (
    "The data of this task is **synthetic**: its sentences are generated from names of CLDR. The scores show how "
    "methods compare on it, and not how well the model understands a language."
)


def model_card(facts: RunFacts, base: PublishedBase, *, form: Form, predicts: bool) -> str:
    """Return the text of README.md.

    Args:
        predicts: whether the folder has what `whichlora predict` needs.
    """
    about = _KINDS[form].format(escaped(facts.title))
    parts = [
        f"---\n{_metadata(facts, base, form).to_yaml()}\n---",
        f"# {escaped(base.name.rpartition('/')[2])} for {escaped(facts.params.get('task', '?'))}: {about}",
        _about(facts, base, form),
        *([_SYNTHETIC] if facts.synthetic else []),
        "## Scores",
        _scores(facts),
        "## Training",
        _training(facts),
        "## Use",
        _use(base, form, facts, predicts=predicts),
        "## Versions and licence",
        _versions(facts),
        _licence(base, form),
    ]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text so that Markdown and HTML show it as it is, also in a cell of a table."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(one_line(text), quote=False))


def _metadata(facts: RunFacts, base: PublishedBase, form: Form) -> ModelCardData:
    codes = (re.split("[-_]", code)[0] for code in facts.languages)
    tags = ["whichlora", facts.variant, facts.params.get("task", ""), *(["synthetic"] if facts.synthetic else [])]
    found = {data.hub for data in facts.data.values() if data.hub and "retention" not in data.context}
    return ModelCardData(
        base_model=base.name if base.on_hub else None,
        base_model_relation="adapter" if form == "adapter" else "finetune",
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-generation",
        language=list(dict.fromkeys(code for code in codes if _CODE.fullmatch(code))) or None,
        datasets=sorted(found) or None,
        license=base.licence,
        metrics=["f1"],
        tags=[tag for tag in tags if tag],
    )


def _about(facts: RunFacts, base: PublishedBase, form: Form) -> str:
    """Return what this is: the method, the base model, and what one must know of it."""
    where = f"[{escaped(base.name)}](https://huggingface.co/{base.name})" if base.on_hub else escaped(base.name)
    revision = f" (revision `{base.revision}`)" if base.revision else ""
    what = {
        "adapter": f"An adapter of the method {escaped(facts.title)} for",
        "model": "All weights were trained, starting from",
        "merged": f"An adapter of the method {escaped(facts.title)} was trained, and merged into the weights of",
    }[form]
    notes = [f"{what} {where}{revision}. It was trained by whichlora, as MLflow run `{facts.run_id}`.", base.note]
    if not base.on_hub:
        kind, of = ("GGUF file", "content") if base.is_gguf else ("folder", "files")
        notes.append(f"The base model is a {kind}, and not known on the hub; the revision is the digest of its {of}.")
    if facts.params.get("quantization") == "nf4":
        merged = ", but merged into those of full precision, so its predictions differ from the run's"
        notes.append(f"It was trained on weights in 4 bits (NF4){merged if form == 'merged' else ''}.")
    return "\n\n".join(note for note in notes if note)


def _scores(facts: RunFacts) -> str:
    """Return a table of the headline metric by test set; of a trial, which scores no test items, of the validation."""
    key = facts.headline
    tests = [data for data in facts.data.values() if f"{data.context}/{key}" in facts.metrics]
    if facts.kind == "trial":
        tests = [data for data in tests if data.context.startswith("validation/")]
        about = "This is a trial of a tuning study, which is scored on validation items only."
    else:
        tests = [data for data in tests if data.context.startswith("test/")]
        about = (
            "Intervals are 95 % intervals over the test items; they do not cover the choice of the seed. The floor is "
            "the best of the shallow baselines on the same items, which do not understand the text."
        )
    scale = scale_of(key)
    points = scale is POINTS
    about += " Scores are in points, from 0 to 100; the run's metrics in MLflow are between 0 and 1." if points else ""
    header = (
        "items in",
        "task",
        "n",
        f"{metric_name(key)}{', points' if points else ''}",
        "95 % interval",
        "base model",
        "gain",
        "floor",
    )
    rows = [row for data in tests for row in _rows(facts, data, key)]
    if not rows:
        return "No scores are known."
    columns = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [" | ".join(header[i] for i in columns), " | ".join("---" if i < 2 else "---:" for i in columns)]
    lines += [" | ".join(row[i] for i in columns) for row in rows]
    return f"{about}\n\n" + "\n".join(f"| {line} |" for line in lines)


def _rows(facts: RunFacts, data: DataSet, key: str) -> Iterable[tuple[str, ...]]:
    """Yield the row of a test set, and if it is in several languages one for each."""
    metrics, where = facts.metrics, data.context
    name = where.partition("/")[2]
    ends, floor = interval_of(metrics, f"{where}/{key}"), best_floor(metrics, name)
    base, gain, scale = metrics.get(f"base/{name}/{key}"), metrics.get(f"gain/{name}"), scale_of(key)
    yield (
        escaped(join_names(data.languages)) if data.languages else escaped(name),
        escaped(data.task) + (" (not trained)" if name.startswith("retention/") else ""),
        str(data.items),
        scale.text(metrics[f"{where}/{key}"]),
        "" if ends is None else scale.interval(*ends),
        "" if base is None else scale.text(base),
        "" if gain is None else scale.gain(gain),
        "" if floor is None else scale.text(floor[1]),
    )
    for code, own in scores_by_language(metrics, where, key, data.languages).items():
        yield (escaped(language_name(code)), escaped(data.task), "", scale.text(own), "", "", "", "")


def _training(facts: RunFacts) -> str:
    """Return what it was trained on and how, as a list."""
    params, train = facts.params, facts.data.get("train")
    items = f"{train.items:,}" if train else params.get("train_size", "?")
    languages = train.languages if train and train.languages else facts.languages
    values = {
        "training items": items,
        "languages": join_names(languages),
        "share of the target language": params.get("tl_ratio", "?"),
        **{key.replace("_", " "): params.get(key, "?") for key in _HYPERPARAMETERS},
        "trained in full": _full_layers(params.get("fully_trained", "")),
    }
    return "\n".join(f"- {name}: {escaped(text)}" for name, text in values.items() if text != "None")


def _full_layers(names: str) -> str:
    """Return the names of the layers that were trained in full; "None" if there are none."""
    listed = names.split(",")
    if len(listed) > _LISTED:  # perhaps not all: MLflow's params are cut
        return f"more than {_LISTED} layers, listed in adapter/fully_trained.json of the run"
    return ", ".join(listed) or "None"


def _use(base: PublishedBase, form: Form, facts: RunFacts, *, predicts: bool) -> str:
    """Return the Python code that loads it without whichlora, and the commands that use and repeat it.

    A base model in a folder is assumed beside this one: where it was is not said.
    """
    dtype = {"bf16": "bfloat16"}.get(facts.params.get("precision", ""), "float32")
    revision = f", revision={json.dumps(base.revision)}" if base.on_hub and base.revision else ""
    place = base.name if base.on_hub else f"./{base.name}"
    source = f'".", gguf_file={json.dumps(base.name)}' if base.is_gguf else json.dumps(place)
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # this one, or its id on the hub',
    ]
    if form == "adapter":
        lines.insert(0, "from peft import PeftModel")
        lines.append(f'base = AutoModelForCausalLM.from_pretrained({source}{revision}, dtype="{dtype}")')
        lines.append("model = PeftModel.from_pretrained(base, folder)")
    else:
        saved = "auto" if form == "merged" else dtype
        lines.append(f'model = AutoModelForCausalLM.from_pretrained(folder, dtype="{saved}")')
    lines.append("tokenizer = AutoTokenizer.from_pretrained(folder)")
    parts = [_indented(lines)]
    if facts.has_prompts:
        text = "Prompts must have the form of those in training"
        parts.append(f"{text}, as whichlora writes them for the rows of a table:" if predicts else f"{text}.")
        given = "" if base.on_hub or form != "adapter" else f" --base {shlex.quote(one_line(place))}"
        parts += [_indented([f"{PROGRAM} predict --model .{given} --input texts.csv"])] if predicts else []
    settings = other_settings(facts)
    note = f", with these settings of the method in a file of experiments: `{json.dumps(settings)}`" if settings else ""
    parts.append(f"To train and score it again, with whichlora {facts.versions.get('whichlora', '')}{note}:")
    parts.append(_indented([one_line(command(facts, base))]))
    return "\n\n".join(parts)


def _indented(lines: Iterable[str]) -> str:
    """Return code as an indented block, which nothing in the code can end."""
    return "\n".join(f"    {line}".rstrip() for line in lines)


def _versions(facts: RunFacts) -> str:
    found = [f"{escaped(name)} {escaped(text)}" for name, text in sorted(facts.versions.items()) if text != "none"]
    return f"{', '.join(found)}." if found else "The versions of the packages are not known."


def _licence(base: PublishedBase, form: Form) -> str:
    if base.licence is None:
        return "The licence of the base model is not known here; these weights are subject to it."
    subject = f"The base model has the licence {escaped(base.licence)}, to which these weights are subject."
    if base.licence not in SENTENCES:
        return subject
    change = "made by training" if form == "adapter" else "modified by training"
    names = [NOTICE, *(escaped(path.name) for path in base.documents if path.name != NOTICE)]
    listed = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return f"{subject} {SENTENCES[base.licence]}. These weights were {change}; pass on the files {listed}."
