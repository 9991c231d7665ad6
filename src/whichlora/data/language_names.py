"""The English names of languages and of groups of them, for messages, tables and figures."""

from __future__ import annotations

import functools
from collections.abc import Iterable

GROUPS = {"Turkic": ("tr", "az", "kk", "uz", "tt", "ug", "tk", "ky")}
"""Groups of related languages that tables show together, by name, as ISO 639-1 codes."""


@functools.cache
def language_name(code: str) -> str:
    """Return the English name of a language by CLDR, such as "German" for `de`; a code that CLDR lacks stays as it is.

    Codes may have a script or a region, as in `zh-Hans` or `swh_Latn`.
    """
    from babel import Locale, UnknownLocaleError  # needed by few commands

    tag = code.replace("-", "_")
    known = Locale("en").languages
    if tag in known:
        return str(known[tag])
    try:
        return str(Locale.parse(tag).get_display_name("en") or code)
    except (UnknownLocaleError, ValueError, TypeError):
        return code


def join_names(codes: Iterable[str]) -> str:
    """Return the names of languages as "Turkish, Azerbaijani and Kazakh"."""
    *first, last = map(language_name, codes)
    return f"{', '.join(first)} and {last}" if first else last
