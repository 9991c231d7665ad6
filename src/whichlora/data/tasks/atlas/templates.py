"""The sentence templates of the six languages.

Names are not inflected, but stay as CLDR writes them: a postposition (Urdu, Hindi), a locative noun (Swahili "nchini
Kenya", Bengali "কেনিয়া দেশে", Telugu "కెన్యా దేశంలో") or a preposition (English) marks the case. Bengali and Telugu use
the polite form, in which verbs are the same for women and men.
"""

from __future__ import annotations

from typing import Literal

from whichlora.data.tasks.atlas.world import Level

Verb = Literal["live", "work", "study", "born"]
VERBS: tuple[Verb, ...] = ("live", "work", "study", "born")

# (affirmative, negated); {p} is a person, {x} a place with its case marker, {g} the verb's ending by gender.
SAYS: dict[str, dict[Verb, tuple[str, str]]] = {
    "en": {
        "live": ("{p} lives in {x}.", "{p} does not live in {x}."),
        "work": ("{p} works in {x}.", "{p} does not work in {x}."),
        "study": ("{p} studies in {x}.", "{p} does not study in {x}."),
        "born": ("{p} was born in {x}.", "{p} was not born in {x}."),
    },
    "ur": {
        "live": ("{p} {x} میں رہت{g} ہے۔", "{p} {x} میں نہیں رہت{g}۔"),
        "work": ("{p} {x} میں کام کرت{g} ہے۔", "{p} {x} میں کام نہیں کرت{g}۔"),
        "study": ("{p} {x} میں پڑھت{g} ہے۔", "{p} {x} میں نہیں پڑھت{g}۔"),
        "born": ("{p} کی پیدائش {x} میں ہوئی تھی۔", "{p} کی پیدائش {x} میں نہیں ہوئی تھی۔"),
    },
    "sw": {
        "live": ("{p} anaishi {x}.", "{p} haishi {x}."),
        "work": ("{p} anafanya kazi {x}.", "{p} hafanyi kazi {x}."),
        "study": ("{p} anasoma {x}.", "{p} hasomi {x}."),
        "born": ("{p} alizaliwa {x}.", "{p} hakuzaliwa {x}."),
    },
    "hi": {
        "live": ("{p} {x} में रहत{g} है।", "{p} {x} में नहीं रहत{g}।"),
        "work": ("{p} {x} में काम करत{g} है।", "{p} {x} में काम नहीं करत{g}।"),
        "study": ("{p} {x} में पढ़त{g} है।", "{p} {x} में नहीं पढ़त{g}।"),
        "born": ("{p} का जन्म {x} में हुआ था।", "{p} का जन्म {x} में नहीं हुआ था।"),
    },
    "bn": {
        "live": ("{p} {x} থাকেন।", "{p} {x} থাকেন না।"),
        "work": ("{p} {x} কাজ করেন।", "{p} {x} কাজ করেন না।"),
        "study": ("{p} {x} পড়েন।", "{p} {x} পড়েন না।"),
        "born": ("{p} {x} জন্মগ্রহণ করেছেন।", "{p} {x} জন্মগ্রহণ করেননি।"),
    },
    "te": {
        "live": ("{p} {x} నివసిస్తున్నారు.", "{p} {x} నివసించడం లేదు."),
        "work": ("{p} {x} పని చేస్తున్నారు.", "{p} {x} పని చేయడం లేదు."),
        "study": ("{p} {x} చదువుతున్నారు.", "{p} {x} చదవడం లేదు."),
        "born": ("{p} {x} జన్మించారు.", "{p} {x} జన్మించలేదు."),
    },
}

# {a} is a place, {x} the place that contains it, with its case marker.
INSIDE = {
    "en": "{a} is in {x}.",
    "ur": "{a} {x} میں ہے۔",
    "sw": "{a} iko {x}.",
    "hi": "{a} {x} में है।",
    "bn": "{a} {x} অবস্থিত।",
    "te": "{a} {x} ఉంది.",
}

WHICH_CITY: dict[str, dict[Verb, str]] = {
    "en": {
        "live": "Which city does {p} live in?",
        "work": "Which city does {p} work in?",
        "study": "Which city does {p} study in?",
        "born": "Which city was {p} born in?",
    },
    "ur": {
        "live": "{p} کس شہر میں رہت{g} ہے؟",
        "work": "{p} کس شہر میں کام کرت{g} ہے؟",
        "study": "{p} کس شہر میں پڑھت{g} ہے؟",
        "born": "{p} کی پیدائش کس شہر میں ہوئی تھی؟",
    },
    "sw": {
        "live": "{p} anaishi katika mji gani?",
        "work": "{p} anafanya kazi katika mji gani?",
        "study": "{p} anasoma katika mji gani?",
        "born": "{p} alizaliwa katika mji gani?",
    },
    "hi": {
        "live": "{p} किस शहर में रहत{g} है?",
        "work": "{p} किस शहर में काम करत{g} है?",
        "study": "{p} किस शहर में पढ़त{g} है?",
        "born": "{p} का जन्म किस शहर में हुआ था?",
    },
    "bn": {
        "live": "{p} কোন শহরে থাকেন?",
        "work": "{p} কোন শহরে কাজ করেন?",
        "study": "{p} কোন শহরে পড়েন?",
        "born": "{p} কোন শহরে জন্মগ্রহণ করেছেন?",
    },
    "te": {
        "live": "{p} ఏ నగరంలో నివసిస్తున్నారు?",
        "work": "{p} ఏ నగరంలో పని చేస్తున్నారు?",
        "study": "{p} ఏ నగరంలో చదువుతున్నారు?",
        "born": "{p} ఏ నగరంలో జన్మించారు?",
    },
}

WHO: dict[str, dict[Verb, str]] = {
    "en": {
        "live": "Who lives in {x}?",
        "work": "Who works in {x}?",
        "study": "Who studies in {x}?",
        "born": "Who was born in {x}?",
    },
    "ur": {
        "live": "{x} میں کون رہتا ہے؟",
        "work": "{x} میں کون کام کرتا ہے؟",
        "study": "{x} میں کون پڑھتا ہے؟",
        "born": "{x} میں کس کی پیدائش ہوئی تھی؟",
    },
    "sw": {
        "live": "Nani anaishi {x}?",
        "work": "Nani anafanya kazi {x}?",
        "study": "Nani anasoma {x}?",
        "born": "Nani alizaliwa {x}?",
    },
    "hi": {
        "live": "{x} में कौन रहता है?",
        "work": "{x} में कौन काम करता है?",
        "study": "{x} में कौन पढ़ता है?",
        "born": "{x} में किसका जन्म हुआ था?",
    },
    "bn": {
        "live": "{x} কে থাকেন?",
        "work": "{x} কে কাজ করেন?",
        "study": "{x} কে পড়েন?",
        "born": "{x} কে জন্মগ্রহণ করেছেন?",
    },
    "te": {
        "live": "{x} ఎవరు నివసిస్తున్నారు?",
        "work": "{x} ఎవరు పని చేస్తున్నారు?",
        "study": "{x} ఎవరు చదువుతున్నారు?",
        "born": "{x} ఎవరు జన్మించారు?",
    },
}

WHICH_COUNTRY = {
    "en": "Which country is {a} in?",
    "ur": "{a} کس ملک میں ہے؟",
    "sw": "{a} iko katika nchi gani?",
    "hi": "{a} किस देश में है?",
    "bn": "{a} কোন দেশে অবস্থিত?",
    "te": "{a} ఏ దేశంలో ఉంది?",
}

# Locative markers by level of the place.
WHERE: dict[str, dict[Level, str]] = {
    "sw": {"city": "mjini {n}", "country": "nchini {n}", "continent": "barani {n}"},
    "bn": {"city": "{n} শহরে", "country": "{n} দেশে", "continent": "{n} মহাদেশে"},
    "te": {"city": "{n} నగరంలో", "country": "{n} దేశంలో", "continent": "{n} ఖండంలో"},
}

ENDING = {"ur": {"f": "ی", "m": "ا"}, "hi": {"f": "ी", "m": "ा"}}
ENGLISH_ARTICLE = frozenset({"Americas", "Bahamas", "Gambia", "Netherlands", "Philippines"})
