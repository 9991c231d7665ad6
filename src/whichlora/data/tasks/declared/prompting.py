"""The prompts of a declaration, rendered for an item."""

from __future__ import annotations

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
    labels = words_in(declaration, language)
    return templates.render(text, fields, labels=labels, language=item.language)


def texts_in_prompt(declaration: Declaration, item: Item) -> dict[str, str]:
    """Return the texts of an item that are in its prompt, by name; those of a conversation as one."""
    if not isinstance(item, FieldsItem):
        return named_texts(item)
    if item.turns is not None:
        return {"messages": transcript(item.turns)}
    used = declaration.prompted(dict(item.fields))
    return {name: text for name, text in item.fields if name in used}


def words_in(declaration: Declaration, language: str) -> tuple[str, ...]:
    """Return the words of the labels in a language, in the order of the labels; values with the same are one label."""
    words = declaration.words
    labels = dict.fromkeys(declaration.label_names.values())
    chosen = (words[label] for label in labels)
    return tuple(word[language] if isinstance(word, dict) else word for word in chosen)
