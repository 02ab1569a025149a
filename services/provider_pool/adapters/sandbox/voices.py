"""Who speaks, and in which language: told by the voice that is asked for and the letters of the text."""

from __future__ import annotations

import re
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

# Letters that Russian has not.
_UKRAINIAN: Final = frozenset("іїєґ")
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
    ("sv", frozenset("å")),
    ("de", frozenset("äöüß")),
    ("es", frozenset("ñ¿¡")),
    ("pt", frozenset("ãõ")),
    ("fr", frozenset("çèêœàù")),
)
# Short words that nearly every text in a language has, and few others have.
_WORDS: Final = {
    "de": "der das und ist ich nicht ein eine einen mit auf für von zu dem sie wir es auch guten morgen abend heute",  # codespell:ignore
    "fr": "le la les un une des du et est je il elle nous vous pas que qui dans pour sur avec bonjour très c'est",
    "es": "el la los las un una y es de que en se por con para su lo como está hola muy buenos mi",
    "it": "il lo gli un una e è di che con sono ciao questa questo nostra della del buongiorno tutti",
    "pt": "os uma e é de que em não se por com para seu bom dia muito obrigado você da",
    "nl": "de het een en ik niet je dat met voor zijn aan wij goede goedemorgen wat er",
    "sv": "och är det att en jag inte som på av för med du hej vi från",  # codespell:ignore
    "pl": "i w nie się na z że jak dzień dobry wszystkim co tak",
    "tr": "ve bir bu ne için ile çok değil merhaba günaydın nasıl",  # codespell:ignore
    "vi": "xin chào là và của không các bạn có tôi một cho được",
    "id": "yang di ini itu dengan untuk tidak saya anda selamat pagi adalah dari",
    "en-us": "the and is are of to a in that it you for on with this was be have not we i my your at from as by or our an",
}
_OWN_WORDS: Final = {language: frozenset(words.split()) for language, words in _WORDS.items()}
# One word alone may be a name, or a loan.
_WORDS_LEAST: Final = 2
_WORDS_SHARE: Final = 5
# Latin script is read as English unless one letter in so many is another language's own.
_MARKED_SHARE: Final = 40


def language_of(text: str) -> str:
    """The language a text is read in, as the speech library names it."""
    letters = [char for char in unicodedata.normalize("NFC", text).casefold() if char.isalpha()]
    scripts = [unicodedata.name(char, "").partition(" ")[0].partition("-")[0] for char in letters]
    foreign = [_LANGUAGES[script] for script in scripts if script in _LANGUAGES]
    if len(foreign) * 2 > len(letters):
        if "ru" in foreign and _UKRAINIAN.intersection(letters):
            return "uk"
        # Much of a Japanese text is in Chinese characters, but only Japanese has kana.
        return "ja" if "ja" in foreign else max(sorted(set(foreign)), key=foreign.count)
    return _by_words(text) or _by_letters(letters)


def _by_words(text: str) -> str:
    """The language whose short words a text in Latin script has most of, English included; empty where that is unclear."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", unicodedata.normalize("NFC", text).casefold())
    heard = {language: sum(word in own for word in words) for language, own in _OWN_WORDS.items()}
    best, second, *_ = sorted(heard.values(), reverse=True)
    if best == second or best < max(_WORDS_LEAST, len(words) // _WORDS_SHARE):
        return ""
    return max(heard, key=lambda language: heard[language])


def _by_letters(letters: list[str]) -> str:
    for language, own in _MARKED:
        if sum(char in own for char in letters) * _MARKED_SHARE > len(letters):
            return language
    return "en-us"
