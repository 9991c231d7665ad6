"""Resolves the option `forgetting`: general texts whose cross-entropy a run measures before and after training."""

from __future__ import annotations

from collections.abc import Mapping

from whichlora.config.options import RunOptions
from whichlora.config.spec import canonical_digest
from whichlora.data.encoding import Encoder
from whichlora.data.general_text import GeneralText, general_texts
from whichlora.data.general_text.windows import MEASURE, windows
from whichlora.data.targets import target_languages
from whichlora.data.tasks import Task
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.errors import OptionError


def forgetting_texts(task: Task, options: RunOptions) -> dict[str, GeneralText]:
    """Return the general texts of a run by name; of the packaged one those in English and in the run's languages.

    Raises:
        OptionError: the packaged text is not in one of the languages, or a file cannot be read.
    """
    languages = dict.fromkeys((task.source or SOURCE_LANGUAGE, *target_languages(task, options.language)))
    return general_texts("forgetting", options.forgetting, tuple(languages))


def check_tokens(texts: Mapping[str, GeneralText], encoder: Encoder, options: RunOptions) -> None:
    """Check that each text has a token to predict, which a text of one short word may not have.

    Raises:
        OptionError: one has none.
    """
    for text in texts.values():
        if not any(windows(encoder, block) for block in text.blocks):
            raise OptionError("forgetting", options.forgetting, f"the text {text.name} has too few tokens")


def text_digests(texts: Mapping[str, GeneralText]) -> dict[str, str]:
    """Return the digest of each text and of how it is measured, by its name among the test digests of a spec."""
    return {f"forgetting/{name}": canonical_digest([MEASURE, text.digest]) for name, text in texts.items()}
