"""Reads the Tatoeba test sets of LASER (Artetxe and Schwenk 2019), with which XTREME-R measures retrieval.

A language has two files, `tatoeba.tur-eng.tur` and `tatoeba.tur-eng.eng`, in which line i of one is the translation of
line i of the other. Do not use XTREME's own copy: its preprocessing sorts the English side, so that the lines no longer
match.
"""

from __future__ import annotations

from pathlib import Path

from whichlora.caller import given_path
from whichlora.data.tasks.folder_contents import contents
from whichlora.data.tasks.pairs import MIN_PAIRS, Pair
from whichlora.errors import OptionError, check_text, is_file, is_folder

CLONE = Path("data/tatoeba/v1")
"""Where the files are in a clone of LASER's repository."""
_CODES = """
af=afr am=amh ar=ara az=aze be=bel bg=bul bn=ben br=bre bs=bos ca=cat cs=ces cy=cym da=dan de=deu el=ell eo=epo es=spa
et=est eu=eus fa=pes fi=fin fo=fao fr=fra fy=fry ga=gle gd=gla gl=glg he=heb hi=hin hr=hrv hu=hun hy=hye ia=ina id=ind
ie=ile io=ido is=isl it=ita ja=jpn jv=jav ka=kat kk=kaz km=khm ko=kor ku=kur kw=cor ky=kir la=lat lt=lit lv=lvs mk=mkd
ml=mal mn=mon mr=mar ms=zsm nb=nob nl=nld nn=nno no=nob oc=oci pl=pol pt=por ro=ron ru=rus sk=slk sl=slv sq=sqi sr=srp
sv=swe sw=swh ta=tam te=tel th=tha tk=tuk tl=tgl tr=tur tt=tat ug=uig uk=ukr ur=urd uz=uzb vi=vie yi=yid zh=cmn
"""
ISO_639_3 = dict(pair.split("=") for pair in _CODES.split())
"""LASER's names of languages by ISO 639-1 code; other languages are named by their three letters."""
_ISO_639_1 = {long: short for short, long in ISO_639_3.items()}


def short_code(language: str) -> str:
    """Return the ISO 639-1 code for LASER's three letters; other codes as they are."""
    return _ISO_639_1.get(language, language)


def read(language: str, data_dir: str | None, *, option: str = "data_dir") -> list[Pair]:
    """Return English sentences and their translations into a language, in the order of the files.

    Args:
        language: an ISO 639-1 code, or LASER's three letters.
        data_dir: the folder with the files, or a clone of LASER's repository.
        option: name of the option whose value is `data_dir`, for error messages.

    Raises:
        OptionError: there is no such folder or file, the two files have different numbers of lines, or a line is empty
            or not UTF-8.
    """
    english, other = files(language, data_dir, option=option)
    assert data_dir is not None
    sides = [_lines(path, data_dir, option) for path in (english, other)]
    if len(sides[0]) != len(sides[1]):
        problem = (
            f"{english.name} has {len(sides[0])} lines and {other.name} {len(sides[1])}; line i of one must be the "
        )
        raise OptionError(option, data_dir, f"{problem}translation of line i of the other")
    if len(sides[0]) < MIN_PAIRS:
        raise OptionError(option, data_dir, f"{english.name} must have at least {MIN_PAIRS} lines")
    return list(zip(*sides, strict=True))


def files(language: str, data_dir: str | None, *, option: str = "data_dir") -> tuple[Path, Path]:
    """Return the English file and that of the language; the arguments and errors are those of `read`."""
    if data_dir is None:
        allowed = "must be a folder with LASER's files tatoeba.XXX-eng.XXX and tatoeba.XXX-eng.eng"
        raise OptionError(option, "auto", allowed)
    code = check_text("language", language)
    code = ISO_639_3.get(code, code)
    if not (len(code) == 3 and code.isascii() and code.isalpha()):
        known = f"allowed are {', '.join(ISO_639_3)}, or the three letters of a file name, as in tatoeba.kab-eng.kab"
        raise OptionError("language", language, known)
    folder = given_path(data_dir)
    if not is_folder(folder):
        raise OptionError(option, data_dir, "is not a folder")
    names = [f"tatoeba.{code}-eng.{side}" for side in ("eng", code)]
    for place in (folder, folder / CLONE):
        english, other = (place / name for name in names)
        if is_file(english) and is_file(other):
            return english, other
    missing = next((name for name in names if not any(is_file(p / name) for p in (folder, folder / CLONE))), names[0])
    found = sorted({path.suffix[1:] for place in (folder, folder / CLONE) for path in place.glob("tatoeba.*-eng.*")})
    others = [name for name in found if name != "eng"]
    listed = f"it has {', '.join(others)}" if others else contents(folder)
    raise OptionError(option, data_dir, f"has no {missing}; {listed}")


def _lines(path: Path, data_dir: str, option: str) -> list[str]:
    """Return the lines of a file without the blanks around them and without empty ones at the end."""
    try:
        # Not `splitlines`: it also splits at other characters, such as U+2028, which texts may contain.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(option, data_dir, f"{path.name} cannot be read ({type(error).__name__})") from error
    texts = [line.strip() for line in lines]
    while len(texts) > 1 and not texts[-1]:
        texts.pop()
    if "" in texts:
        raise OptionError(option, data_dir, f"{path.name} line {texts.index('') + 1} is empty")
    return texts
