"""Writes a text about what a prompt asks for: whole sentences from a small grammar, within a number of words.

It knows nothing about anything, and says so at the end: it shows a reader how a text will look, not what to think.
"""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.provider_pool.adapters.sandbox.prose_phrases import (
    CLOSING,
    FIRST,
    FORMS,
    MIDDLE,
    SIGNED,
    STOP_WORDS,
    VERSE,
)
from services.provider_pool.adapters.sandbox.render_order import RenderOrder

_USUAL_WORDS: Final = 260
_SENTENCES_A_PARAGRAPH: Final = 4
_KEYWORDS: Final = 6
_TOPIC_WORDS: Final = 12
# A longer one is no word.
_WORD_MAX: Final = 40
# Nothing that is said later changes the subject.
_READ_MAX: Final = 4_000
_MARKER: Final = re.compile(r"\[sandbox:[^\]]*\]")
_ASKED_WORDS: Final = re.compile(r"\b(\d{1,4})[ -]words?\b", re.IGNORECASE)
_TEXTS: Final = frozenset({"article", "essay", "text", "paragraph", "post", "tagline", "summary", "ideas"})
_REQUEST: Final = re.compile(
    r"^(?:please\s+|can you\s+|could you\s+)?(?:write|compose|draft|create|tell|give|explain|describe|summari[sz]e|generate"
    r"|list|name|suggest)"
    r"\s+(?:me\s+|us\s+)?(?:(?:an?|the|some|one|two|three|\d{1,2})\s+)?"
    r"|^(?:what|who)\s+(?:is|are|was|were)\s+",
    re.IGNORECASE,
)
# "A slogan for …", "Product description: …": a request without a verb.
_KIND: Final = re.compile(
    rf"^(?:an?\s+|the\s+)?(?:[^\W\d]+\s+){{0,2}}(?:{'|'.join(sorted(set().union(*FORMS.values(), _TEXTS)))})"
    r"(?:\s+(?:about|on|for|of|to)\s+|\s*:\s*)",
    re.IGNORECASE,
)
_ABOUT: Final = re.compile(r"\b(?:about|on|for|describing|explaining|regarding|of)\s+", re.IGNORECASE)


def written(prompt: str, seed: int, max_words: int) -> str:
    """A text of at most so many words, the same for the same prompt and seed. Paragraphs are parted by an empty line."""
    said = " ".join(_printable(_MARKER.sub(" ", prompt[:_READ_MAX])).split())
    digest = hashlib.sha256(f"prose\n{seed}\n{said}".encode("utf-8", "surrogatepass")).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    asked = _ASKED_WORDS.search(said)
    wanted = min(max_words, int(asked[1]) if asked and int(asked[1]) else _USUAL_WORDS)
    form, topic = _form_of(said), _inside(topic_of(said))
    sentences = _sentences(topic, _keywords(said, topic), form, rng)
    if form == "poem":
        return _verses(sentences, topic, wanted)
    return _paragraphs(sentences, topic, wanted, rng)


def topic_of(said: str) -> str:
    """What a request is about, without the request."""
    plain = _ASKED_WORDS.sub("", said)
    request, kind = _REQUEST.match(plain), _KIND.match(plain)
    topic = plain[request.end() :] if request else plain[kind.end() :] if kind else plain
    asks = request and not request[0].casefold().startswith(("what", "who"))
    if asks and (about := _ABOUT.search(topic)):
        topic = topic[about.end() :]
    topic = re.split(r"[.!?;:\n]|,\s", topic.strip(" .!?:;,\"'"))[0]
    words = topic.split()[:_TOPIC_WORDS]
    while words and words[-1].casefold() in STOP_WORDS:
        words.pop()
    return " ".join(word[:_WORD_MAX] for word in words).strip(" ,;:\"'") or "a subject of your choice"


def _inside(topic: str) -> str:
    """The topic as it stands in the middle of a sentence."""
    first, space, rest = topic.partition(" ")
    return f"{first.lower()} {rest}" if space and first in ("A", "An", "The") else topic


def write_prose(order: RenderOrder, path: Path) -> None:
    """Write an order of kind text into a UTF-8 file."""
    path.write_bytes(written(order.prompt, order.seed, order.max_words).encode())


def _printable(text: str) -> str:
    # Half characters cannot be stored, and what steers a screen is no text.
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in text)


def _form_of(said: str) -> str:
    words = re.findall(r"\w+", said.casefold())
    return next((form for word in words for form, names in FORMS.items() if word in names), "article")


def _keywords(said: str, topic: str) -> list[str]:
    """The longest words of the request, in its order: what its sentences come back to."""
    words = [
        word[:_WORD_MAX]
        for word in re.findall(r"[^\W\d_][\w'-]{3,}", said)
        if word.casefold() not in STOP_WORDS
    ]
    longest = sorted(dict.fromkeys(words), key=len, reverse=True)[:_KEYWORDS]
    return [word for word in dict.fromkeys(words) if word in longest] or [topic]


def _sentences(topic: str, keywords: list[str], form: str, rng: random.Random) -> Iterator[str]:
    """First what opens the form, then the middle in a shuffled order; it comes again only when all of it was said."""
    turn = 0

    def filled(pattern: str) -> str:
        nonlocal turn
        turn += 1
        key, other = keywords[turn % len(keywords)], keywords[(turn + 1) % len(keywords)]
        sentence = pattern.format(topic=topic, key=key, other=other)
        return sentence[:1].upper() + sentence[1:]

    if form == "poem":
        bank = list(VERSE)
    else:
        yield filled(rng.choice(FIRST[form]))
        bank = list(MIDDLE[form])
    while True:
        rng.shuffle(bank)
        for pattern in bank:
            yield filled(pattern)


def _paragraphs(sentences: Iterator[str], topic: str, wanted: int, rng: random.Random) -> str:
    last = rng.choice(CLOSING).format(topic=topic)
    last = last[:1].upper() + last[1:]
    reserve = _count(last) + _count(SIGNED)
    if wanted < reserve + 12:
        return _cut(next(sentences), wanted)
    paragraphs: list[list[str]] = [[]]
    left = wanted - reserve
    for sentence in sentences:
        if _count(sentence) > left:
            break
        if len(paragraphs[-1]) == _SENTENCES_A_PARAGRAPH:
            paragraphs.append([])
        paragraphs[-1].append(sentence)
        left -= _count(sentence)
    paragraphs.append([last, SIGNED])
    return "\n\n".join(" ".join(paragraph) for paragraph in paragraphs if paragraph)


def _verses(sentences: Iterator[str], topic: str, wanted: int) -> str:
    title = topic[:1].upper() + topic[1:]
    left = wanted - _count(title) - _count(SIGNED)
    lines: list[str] = []
    for line in sentences:
        if _count(line) > left or len(lines) == 16:
            break
        lines.append(line)
        left -= _count(line)
    if not lines:
        return _cut(title, wanted)
    stanzas = ["\n".join(lines[start : start + 4]) for start in range(0, len(lines), 4)]
    return "\n\n".join([title, *stanzas, SIGNED])


def _count(text: str) -> int:
    return len(text.split())


def _cut(sentence: str, wanted: int) -> str:
    words = sentence.split()
    if len(words) <= wanted:
        return sentence
    kept = words[:wanted]
    while len(kept) > 1 and kept[-1].casefold() in STOP_WORDS:
        kept.pop()
    return " ".join(kept).rstrip(" ,;:-") + "."
