"""The prompts and the words of the labels of a declaration, rendered for an item."""

from __future__ import annotations

from dataclasses import replace

from whichlora.data.chat import transcript
from whichlora.data.tasks import prompts
from whichlora.data.tasks.declared import templates
from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.data.tasks.items import FieldsItem, Item, QaItem, named_texts


def prompt_of(declaration: Declaration, item: Item, language: str) -> str:
    """Return the prompt of an item, with instruction and labels in a language.

    Raises:
        ValueError: the template fails for this item.
    """
    template = declaration.prompt
    if isinstance(item, QaItem):
        if template is None:
            return prompts.QA[language if language in prompts.QA else "en"].text(item.context, item.question)
        fields = {"context": item.context, "question": item.question}
    else:
        assert isinstance(item, FieldsItem)
        if item.turns is not None:
            return transcript(item.turns)
        fields = dict(item.fields)
    text = template[language] if isinstance(template, dict) else template
    assert text is not None
    labels = words_of(declaration, item, language)
    try:
        return templates.render(text, fields, labels=labels, language=item.language)
    except ValueError as error:
        raise ValueError(f"the prompt {error}") from error


def control_of(declaration: Declaration, item: Item) -> Item | None:
    """Return an item without the fields that the control leaves empty; None if there are none."""
    if not declaration.control_without:
        return None
    assert isinstance(item, FieldsItem)
    fields = tuple((name, "" if name in declaration.control_without else text) for name, text in item.fields)
    return replace(item, fields=fields)


def texts_in_prompt(declaration: Declaration, item: Item) -> dict[str, str]:
    """Return the texts of an item that are in its prompt or choices, by name; those of a conversation as one."""
    if not isinstance(item, FieldsItem):
        return named_texts(item)
    if item.turns is not None:
        return {"messages": transcript(item.turns)}
    used = declaration.prompted(dict(item.fields))
    return {name: text for name, text in item.fields if name in used}


def words_of(declaration: Declaration, item: Item, language: str) -> tuple[str, ...]:
    """Return the words of the labels in a language, or the item's own choices, in the order of the labels.

    Values with the same word are one label.

    Raises:
        ValueError: the template of a choice fails for this item.
    """
    words = declaration.words
    labels = dict.fromkeys(declaration.label_names.values())
    chosen = (words[label] for label in labels)
    texts = tuple(word[language] if isinstance(word, dict) else word for word in chosen)
    if not declaration.choices:
        return texts
    assert isinstance(item, FieldsItem)
    try:
        return tuple(
            templates.render(text, dict(item.fields), labels=(), language=item.language).lstrip() for text in texts
        )
    except ValueError as error:
        raise ValueError(f"a choice {error}") from error
