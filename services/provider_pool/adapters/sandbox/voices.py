"""Who speaks, and in which language: told by the voice that is asked for and the letters of the text."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Speaker:
    """A variant of the speech library's voices, words a minute, and pitch and its movement (0 to 100)."""

    variant: str
    words_a_minute: int
    pitch: int
    movement: int


# Chosen among some thirty by how well a recogniser understands them.
SPEAKERS: Final = {
    "alice": Speaker("f2", 160, 62, 62),
    "brian": Speaker("m2", 150, 50, 50),
    "charlotte": Speaker("f2", 146, 50, 50),
    "daniel": Speaker("m1", 155, 50, 55),
    "george": Speaker("m3", 150, 48, 50),
    "lily": Speaker("f5", 168, 70, 68),
}
USUAL: Final = "alice"

# Of a letter's Unicode name, the first word tells its script.
_LANGUAGES: Final = {
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARABIC": "ar",
    "HEBREW": "he",
    "DEVANAGARI": "hi",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "cmn",
    "THAI": "th",
}
# Letters that a language in Latin script has almost to itself; the first that are found often enough decide.
_MARKED: Final = (
    ("vi", frozenset("ăơưđạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ")),
    ("pl", frozenset("ąęłńśźż")),
    ("tr", frozenset("ğış")),
    ("de", frozenset("äöüß")),
    ("es", frozenset("ñ¿¡")),
    ("pt", frozenset("ãõ")),
    ("fr", frozenset("çèêœàù")),
)
# Latin script is read as English unless one letter in so many is another language's own.
_MARKED_SHARE: Final = 40


def language_of(text: str) -> str:
    """The language a text is read in, as the speech library names it."""
    letters = [char for char in unicodedata.normalize("NFC", text).casefold() if char.isalpha()]
    scripts = [unicodedata.name(char, "").partition(" ")[0].partition("-")[0] for char in letters]
    foreign = [_LANGUAGES[script] for script in scripts if script in _LANGUAGES]
    if len(foreign) * 2 > len(letters):
        # Much of a Japanese text is in Chinese characters, but only Japanese has kana.
        return "ja" if "ja" in foreign else max(sorted(set(foreign)), key=foreign.count)
    for language, own in _MARKED:
        if sum(char in own for char in letters) * _MARKED_SHARE > len(letters):
            return language
    return "en-us"
