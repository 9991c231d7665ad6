"""What is stored beside an adapter, as `whichlora.json`: all that its predictions need except the base model.

The base model is a reference: the packaged one by name, one of the hub by id and commit, a folder by its digest and
where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from whichlora.config.plan import Plan, TestSet
from whichlora.data.encoding import Encoder
from whichlora.data.targets import target_languages
from whichlora.data.tasks import PairTask, Task, get_task
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.data.tasks.items import Item, kind_of, named_texts, unanswered
from whichlora.data.tasks.prompts import PromptLanguage
from whichlora.errors import OptionError, first_line
from whichlora.models.loading import ModelSource
from whichlora.models.packaged import CATALOGUE

FILE_NAME = "whichlora.json"
FORMAT = 1
"""Increased when older versions could not predict the same from a file."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, protected_namespaces=())


class SavedBase(_Part):
    """The base model by reference.

    Attributes:
        name: the option `model` of the run.
        digest: SHA-256 of its content, or hub id and commit.
        revision: commit on the hub; None for a folder, a GGUF file or a packaged model.
        folder: where the folder or file was; None for one from the hub and a packaged model.
    """

    name: str
    digest: str
    revision: str | None
    folder: str | None

    @property
    def public_name(self) -> str:
        """The name without the path of a folder, which says nothing to others."""
        return self.name if self.folder is None else Path(self.folder).name


class SavedTask(_Part):
    """The task of a model.

    Attributes:
        option: the name of a task of the package, or MODULE:CLASS.
        yaml: the declaration of a declared task; empty for a task in Python.
    """

    name: str
    option: str
    yaml: str
    prompt_language: PromptLanguage
    prompt_version: str

    def task(self) -> Task:
        """Return the task, whose data is not needed.

        Raises:
            OptionError: it cannot be found, or its prompts are no longer the same.
        """
        if self.yaml:
            from whichlora.data.tasks.declared import from_text  # pydantic, PyYAML and Jinja

            task: Task = from_text(self.yaml, name=self.name)(self.prompt_language)
        else:
            task = get_task(self.option, self.prompt_language, stored=True)
        if task.prompt_version != self.prompt_version:
            allowed = (
                f"has the prompts {task.prompt_version} here, but the model was trained with {self.prompt_version}"
            )
            raise OptionError("task", self.option, f"{allowed}; install the version of whichlora that trained it")
        return task


class SavedInput(_Part):
    """The texts that a prediction needs.

    Attributes:
        kind: the kind of the items, see `items.unanswered`.
        texts: names of the texts, in order.
        optional: those that may be empty.
        needs_language: whether prompts depend on the language of an item, which is then a column too.
    """

    kind: Literal["nli", "qa", "fields"]
    texts: tuple[str, ...]
    optional: tuple[str, ...]
    needs_language: bool


class SavedModel(_Part):
    """The content of `whichlora.json`.

    Attributes:
        form: an adapter, the whole model (variants `full` and `molf`), or the base model alone (variant `none`).
        exact_factors: whether the adapter's factors may not be rounded in scoring, see `fast_paths.scoring`.
        languages: the source language, if there is one, and the target languages.
        chat_template: text of the chat template; None for plain prompts.
        context: longest input of the model in tokens; None for no limit.
        versions: of the packages that matter, by name.
    """

    format: int = FORMAT
    name: str
    variant: str
    arm: str
    form: Literal["adapter", "model", "base"]
    exact_factors: bool
    task: SavedTask
    input: SavedInput
    source: str | None
    languages: tuple[str, ...]
    headline: str
    labels: tuple[str, ...]
    chat_template: str | None
    scoring: Literal["likelihood", "generate"]
    precision: Literal["fp32", "bf16"]
    quantization: Literal["none", "nf4"]
    context: int | None
    base: SavedBase
    spec_version: int
    fingerprint: str
    training_fingerprint: str
    versions: dict[str, str]

    def write(self, folder: Path) -> Path:
        """Write `whichlora.json` into a folder and return its path."""
        path = folder / FILE_NAME
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return path


def of_plan(plan: Plan, versions: Mapping[str, str]) -> SavedModel | None:
    """Return what to store beside the model of a run; None if no table of texts can be predicted with it.

    These are the models of word pairs, and of tasks in Python with items of their own kind.

    Args:
        versions: of the packages that matter, by name.
    """
    task, spec, source = plan.task, plan.spec, plan.source
    item = example_of(plan)
    kind = None if isinstance(task, PairTask) else kind_of(item)
    if kind is None or not _can_be_rebuilt(plan.encoder(), item, kind):
        return None
    texts = tuple(texts_of_input(task, item))
    languages = tuple(dict.fromkeys(filter(None, (task.source, *target_languages(task, spec.language)))))
    chat = plan.model.chat(task)
    variant = plan.variant
    return SavedModel(
        name=plan.name,
        variant=spec.variant,
        arm=spec.arm,
        form="model" if variant.trains_whole_model else "adapter" if variant.trains else "base",
        exact_factors=variant.converts_base_change,
        task=SavedTask(
            name=task.name,
            option=task.name if task.yaml else plan.options.task,
            yaml=task.yaml,
            prompt_language=task.prompt_language,
            prompt_version=task.prompt_version,
        ),
        input=SavedInput(
            kind=kind,  # type: ignore[arg-type]
            texts=texts,
            optional=tuple(name for name in texts if name in task.optional_texts()),
            needs_language=_depends_on_language(plan.encoder(), item, languages),
        ),
        source=task.source,
        languages=languages,
        headline=task.headline,
        labels=tuple(task.labels),
        chat_template=None if chat is None else chat.text,
        scoring=str(plan.scoring),  # type: ignore[arg-type]
        precision=spec.precision,  # type: ignore[arg-type]
        quantization=spec.quantization,  # type: ignore[arg-type]
        context=plan.shape.context,
        base=SavedBase(
            name=spec.model,
            digest=source.digest,
            revision=source.revision,
            folder=None if source.revision or spec.model in CATALOGUE else _place(source),
        ),
        spec_version=int(spec.to_dict()["spec_version"]),
        fingerprint=spec.fingerprint,
        training_fingerprint=spec.training_fingerprint,
        versions=dict(versions),
    )


def _place(source: ModelSource) -> str:
    """Return the folder or GGUF file of a model."""
    return source.gguf or str(Path(source.name_or_path).absolute())


def read(folder: Path) -> SavedModel:
    """Return what is stored beside the model in a folder.

    Raises:
        OptionError: there is no `whichlora.json`, it is damaged, or it was written by a later version of whichlora.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        allowed = f"has no {FILE_NAME}; must be the folder of a model that whichlora logged"
        raise OptionError("model", folder, allowed) from error
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError("model", folder, f"its {FILE_NAME} cannot be read ({first_line(error)})") from error
    try:
        return _of_this_version(_Header.model_validate_json(text).format, text, folder)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise OptionError("model", folder, f"its {FILE_NAME} is damaged: {place} {first['msg']}") from error


class _Header(_Part):
    format: int


def _of_this_version(number: int, text: str, folder: Path) -> SavedModel:
    if number > FORMAT:
        allowed = f"its {FILE_NAME} was written by a later version of whichlora (format {number}, here {FORMAT})"
        raise OptionError("model", folder, f"{allowed}; update whichlora")
    return SavedModel.model_validate_json(text)


def texts_of_input(task: Task, item: Item) -> dict[str, str]:
    """Return the texts of an item on which its prediction depends, by name."""
    used = task.texts(item)
    return {name: text for name, text in named_texts(item).items() if name in used}


def example_of(plan: Plan) -> Item:
    """Return the first test item of the trained task, in the target language if there is one."""
    return _example_set(list(plan.tests.values())).items[0]


def _example_set(tests: Sequence[TestSet]) -> TestSet:
    own = [test for test in tests if test.trained]
    return next((test for test in own if test.role == "tl"), own[0])


def _can_be_rebuilt(encoder: Encoder, item: Item, kind: str) -> bool:
    """Return whether an item of a kind, made of the texts of `item`, has the same prompt."""
    try:
        rebuilt = unanswered(kind, texts_of_input(encoder.task, item), item)
        return encoder.prompt_text(rebuilt) == encoder.prompt_text(item)
    except Exception:  # a user's own task may raise anything
        return False


def _depends_on_language(encoder: Encoder, item: Item, languages: Sequence[str]) -> bool:
    """Return whether the prompt of an item, or the words of its labels, differ by its language."""
    copies = [replace(item, language=language) for language in languages or (SOURCE_LANGUAGE,)]
    return len({(encoder.prompt_text(copy), encoder.task.label_words(copy)) for copy in copies}) > 1
