"""The prompts of a declaration, rendered for an item."""

from __future__ import annotations

from whichlora.data.chat import transcript
from whichlora.data.tasks import prompts
from whichlora.data.tasks.declared import templates
from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.data.tasks.items import FieldsItem, Item, QaItem


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
    labels = words_in(declaration, language)
    return templates.render(text, fields, labels=labels, language=item.language)


def words_in(declaration: Declaration, language: str) -> tuple[str, ...]:
    """Return the words of the labels in a language, in the order of the labels; values with the same are one label."""
    words = declaration.words
    labels = dict.fromkeys(declaration.label_names.values())
    chosen = (words[label] for label in labels)
    return tuple(word[language] if isinstance(word, dict) else word for word in chosen)
