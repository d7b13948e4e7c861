"""Titles and labels as they are compared: case, accents, articles, punctuation, subtitles in brackets, years, parts."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

_YEAR: Final = re.compile(r"\b(1[5-9]\d\d|20\d\d)\b")
_BRACKETS: Final = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]")
_KIND: Final = re.compile(
    r"^(the )?((1[5-9]|20)\d\d\b ?)?([a-z]+ )?(film|movie|book|novel|album|song|series|game|tv series)$"
)
_ARTICLES: Final = frozenset((
    "the", "a", "an", "le", "la", "les", "l", "un", "une", "il", "lo", "gli", "i", "el", "los", "las", "der", "die",
    "das", "ein", "eine", "de", "het",
))  # fmt: skip
_ROMAN: Final = {
    "i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8", "ix": "9", "x": "10",
}  # fmt: skip
_WORDS: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Title:
    """A title in the forms that are compared. forms: normalised, the whole one first. parts: numbers of a series."""

    raw: str
    forms: tuple[str, ...]
    year: int | None
    parts: frozenset[str]


def normal_form(text: str) -> str:
    """Return a title without case, accents, punctuation and articles at either end; roman numbers as arabic ones.

    >>> normal_form("Usual Suspects, The"), normal_form("Les Misérables"), normal_form("Mr. & Mrs. Smith")
    ('usual suspects', 'miserables', 'mr and mrs smith')
    """
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    folded = plain.casefold().replace("&", " and ").replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    start, comma, last = folded.rpartition(",")
    if comma and last.strip() in _ARTICLES:
        folded = start
    words = _WORDS.findall(folded)
    if len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words[:1] + [word if word == "i" else _ROMAN.get(word, word) for word in words[1:]])


def read_title(text: str, year: int | None = None) -> Title:
    """Return a title's forms: without what stands in brackets, what stands in brackets alone, and all of it.

    `year` wins over one in brackets; brackets that only say a year or a kind ("1995 film") give no form.

    >>> read_title("Seven (Se7en) (1995)")
    Title(raw='Seven (Se7en) (1995)', forms=('seven', 'se7en', 'seven se7en'), year=1995, parts=frozenset())
    """
    inside = [one or two for one, two in _BRACKETS.findall(text)]
    for words in inside:
        found = _YEAR.search(words)
        if year is None and found and (found[0] == words.strip() or _KIND.match(words.strip().casefold())):
            year = int(found[0])
    names = [
        words for words in inside if not _YEAR.fullmatch(words.strip()) and not _KIND.match(words.strip().casefold())
    ]
    outside = _BRACKETS.sub(" ", text)
    whole = " ".join([outside, *names])
    forms = dict.fromkeys(normal_form(form) for form in (outside, *names, whole))
    kept = tuple(form for form in forms if form) or (text.strip().casefold(),)
    return Title(text, kept, year, _parts(kept[0]))


def _parts(form: str) -> frozenset[str]:
    """Numbers within a normal form, which tell a film from its sequel. A leading word is no number.

    >>> sorted(_parts("rocky 3")), sorted(_parts("i robot"))
    (['3'], [])
    """
    return frozenset(word for word in form.split()[1:] if word.isdigit())


def first_year(text: str) -> int | None:
    """Return the first year from 1500 to 2099 in a text.

    >>> first_year("release_year:1995-03-01")
    1995
    """
    found = _YEAR.search(text)
    return int(found[0]) if found else None
