"""The people of the atlas: given names, written by hand in six languages."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from whichlora.data.tasks.atlas.splits import split_of
from whichlora.data.tasks.base import Split

# One person per line, in the order of _COLUMNS. Swahili uses the English spelling. Names that are also common words
# (Urdu and Bengali "John") or that are or resemble places of the atlas (Sofia, Grace) are excluded.
_COLUMNS = ("en", "ur", "hi", "bn", "te")
_FEMALE = """
Amina امینہ अमीना আমিনা అమీనా
Asha آشا आशा আশা ఆశా
Sara سارہ सारा সারা సారా
Maria ماریہ मारिया মারিয়া మారియా
Nina نینا नीना নিনা నీనా
Leila لیلیٰ लैला লায়লা లైలా
Anita انیتا अनीता অনিতা అనిత
Rita ریٹا रीटा রিটা రీటా
Fatima فاطمہ फ़ातिमा ফাতিমা ఫాతిమా
Zainab زینب ज़ैनब জয়নব జైనబ్
Mariam مریم मरियम মরিয়ম మరియం
Elena ایلینا एलेना এলেনা ఎలెనా
Julia جولیا जूलिया জুলিয়া జూలియా
Diana ڈیانا डायना ডায়ানা డయానా
Lakshmi لکشمی लक्ष्मी লক্ষ্মী లక్ష్మి
Radha رادھا राधा রাধা రాధ
Kavita کویتا कविता কবিতা కవిత
Sunita سنیتا सुनीता সুনীতা సునీత
Salma سلمیٰ सलमा সালমা సల్మా
Nadia نادیہ नादिया নাদিয়া నాదియా
Laura لورا लॉरा লরা లారా
Clara کلارا क्लारा ক্লারা క్లారా
Monica مونیکا मोनिका মনিকা మోనికా
Halima حلیمہ हलीमा হালিমা హలీమా
"""
_MALE = """
Ali علی अली আলী అలీ
Ravi روی रवि রবি రవి
Juma جوما जुमा জুমা జుమా
David ڈیوڈ डेविड ডেভিড డేవిడ్
Omar عمر उमर ওমর ఉమర్
Peter پیٹر पीटर পিটার పీటర్
Hassan حسن हसन হাসান హసన్
Samuel سیموئل सैमुअल স্যামুয়েল శామ్యూల్
Daniel ڈینیئل डैनियल ড্যানিয়েল డేనియల్
Joseph جوزف जोसेफ़ জোসেফ జోసెఫ్
Thomas تھامس थॉमस টমাস థామస్
Robert رابرٹ रॉबर्ट রবার্ট రాబర్ట్
Karim کریم करीम করিম కరీం
Rashid راشد राशिद রশিদ రషీద్
Yusuf یوسف यूसुफ़ ইউসুফ యూసుఫ్
Ibrahim ابراہیم इब्राहीम ইব্রাহিম ఇబ్రహీం
Khalid خالد ख़ालिद খালিদ ఖాలిద్
Salim سلیم सलीम সেলিম సలీం
Bilal بلال बिलाल বিলাল బిలాల్
Mohan موہن मोहन মোহন మోహన్
Rahul راہل राहुल রাহুল రాహుల్
Anil انیل अनिल অনিল అనిల్
Arjun ارجن अर्जुन অর্জুন అర్జున్
Victor وکٹر विक्टर ভিক্টর విక్టర్
"""


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A given name; `gender` selects the verb forms in Hindi and Urdu. People compare by identity."""

    key: str
    gender: Literal["f", "m"]
    names: Mapping[str, str]

    def name(self, language: str) -> str:
        """Return the name as written in `language`."""
        return self.names[language]


@functools.cache
def people() -> tuple[Person, ...]:
    """Return all people, in the order of the tables."""
    tables: tuple[tuple[Literal["f", "m"], str], ...] = (("f", _FEMALE), ("m", _MALE))
    everyone = []
    for gender, table in tables:
        for line in table.strip().splitlines():
            names = dict(zip(_COLUMNS, line.split(), strict=True))
            names["sw"] = names["en"]
            everyone.append(Person(names["en"], gender, names))
    return tuple(everyone)


@functools.cache
def people_of(split: Split) -> tuple[Person, ...]:
    """Return the people of one split; no name is in two splits in any language."""
    return tuple(person for person in people() if split_of("person", person.key) == split)
