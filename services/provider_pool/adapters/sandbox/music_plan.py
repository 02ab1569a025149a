"""What a prompt asks a piece of music to be: how fast, in which mode, played by whom, in what form."""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

Scale = tuple[int, ...]

SCALES: Final[dict[str, Scale]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
# Steps of the scale on which the chords stand; the first row of each is the usual one.
_PROGRESSIONS: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 1, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6)),
    "dorian": ((0, 3, 0, 6), (0, 6, 3, 0), (0, 2, 3, 6)),
    "lydian": ((0, 1, 0, 4), (0, 4, 1, 5), (0, 1, 5, 4)),
    "mixolydian": ((0, 6, 3, 0), (0, 3, 6, 0), (0, 4, 3, 6)),
}


@dataclass(frozen=True, slots=True)
class Manner:
    """A way to play: beats a minute, mode, who has the melody, the chords and the low notes, and the drums."""

    beats_a_minute: int
    mode: str
    lead: str
    chords: str
    bass: str
    drums: str = ""
    swing: bool = False
    beats: int = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first note. `sections` are letters, one for every four bars or fewer."""

    manner: Manner
    bars: int
    beat_s: float
    tail_s: float
    root: int
    progression: tuple[int, ...]
    answer: tuple[int, ...]
    sections: tuple[str, ...]
    chance: int

    @property
    def scale(self) -> Scale:
        """Steps above the root, in semitones."""
        return SCALES[self.manner.mode]


BARS_OF_A_SECTION: Final = 4
# At least so long the last chord rings out.
_TAIL_S: Final = 1.2

_MANNERS: Final[tuple[tuple[str, Manner], ...]] = (
    (
        "lofi lo-fi chillhop study chill relaxed",
        Manner(78, "dorian", "epiano", "epiano", "bass", "soft", swing=True),
    ),
    (
        "techno house edm dance club trance electronic disco",
        Manner(126, "minor", "synth", "saws", "synthbass", "four"),
    ),
    ("synthwave retro cyberpunk neon 80s", Manner(104, "minor", "saws", "saws", "synthbass", "rock")),
    ("chiptune arcade game 8-bit 8bit pixel", Manner(138, "major", "square", "square", "square", "four")),
    (
        "rock punk metal indie garage",
        Manner(128, "mixolydian", "electric", "electric", "bass", "rock"),
    ),
    ("jazz swing blues noir", Manner(112, "dorian", "brass", "piano", "bass", "brush", swing=True)),
    ("funk soul groove funky", Manner(106, "mixolydian", "brass", "epiano", "bass", "rock")),
    (
        "epic trailer battle heroic cinematic war storm adventure film",
        Manner(92, "minor", "brass", "strings", "strings", "war"),
    ),
    (
        "ambient space drone meditation sleep dream dreamy floating yoga",
        Manner(62, "lydian", "bells", "pad", "pad"),
    ),
    ("lullaby baby music-box toy child children", Manner(72, "major", "bells", "harp", "harp", beats=3)),
    ("waltz ballroom vienna carousel", Manner(140, "major", "strings", "strings", "bass", beats=3)),
    (
        "folk acoustic country campfire celtic irish medieval",
        Manner(98, "mixolydian", "flute", "guitar", "bass"),
    ),
    (
        "classical orchestra symphony baroque chamber quartet elegant",
        Manner(86, "major", "strings", "strings", "strings"),
    ),
    ("reggae island tropical beach summer", Manner(88, "major", "marimba", "organ", "bass", "soft")),
    ("hymn church gospel choir sacred", Manner(72, "major", "choir", "organ", "organ")),
    (
        "sad melancholy melancholic lonely rain grief farewell sorrow",
        Manner(66, "minor", "piano", "strings", "strings"),
    ),
    (
        "dark horror scary tense suspense mystery mysterious",
        Manner(70, "minor", "choir", "pad", "pad", "war"),
    ),
    ("march parade anthem victory triumphant", Manner(112, "major", "brass", "brass", "bass", "rock")),
    (
        "happy upbeat joyful cheerful fun bright pop sunny commercial",
        Manner(120, "major", "marimba", "guitar", "bass", "rock"),
    ),
    ("calm gentle soft peaceful quiet morning nature", Manner(74, "major", "piano", "pad", "pad")),
)
# Where nothing in the prompt says how, one of these.
_USUAL: Final = (
    Manner(96, "major", "piano", "strings", "bass", "soft"),
    Manner(84, "dorian", "epiano", "pad", "bass", "soft"),
    Manner(104, "minor", "harp", "strings", "bass"),
    Manner(110, "mixolydian", "guitar", "organ", "bass", "rock"),
)
_PLAYERS: Final = {
    "piano": "piano",
    "keys": "epiano",
    "guitar": "guitar",
    "ukulele": "guitar",
    "strings": "strings",
    "violin": "strings",
    "cello": "strings",
    "flute": "flute",
    "whistle": "flute",
    "bells": "bells",
    "glockenspiel": "bells",
    "chimes": "bells",
    "harp": "harp",
    "marimba": "marimba",
    "xylophone": "marimba",
    "trumpet": "brass",
    "horn": "brass",
    "horns": "brass",
    "brass": "brass",
    "saxophone": "brass",
    "organ": "organ",
    "choir": "choir",
    "voices": "choir",
    "synth": "synth",
    "synthesizer": "synth",
}
_MODES: Final = {
    "major": "major",
    "happy": "major",
    "bright": "major",
    "joyful": "major",
    "triumphant": "major",
    "minor": "minor",
    "sad": "minor",
    "dark": "minor",
    "melancholic": "minor",
    "melancholy": "minor",
    "tense": "minor",
    "dreamy": "lydian",
    "mysterious": "dorian",
}
_SLOWER: Final = frozenset({"slow", "slowly", "sleepy", "adagio", "largo"})
_FASTER: Final = frozenset(
    ["fast", "quick", "energetic", "upbeat", "driving", "allegro", "presto", "running", "workout"]
)
_WITHOUT_DRUMS: Final = re.compile(r"\b(?:no|without)\s+(?:drums|percussion|beat)\b")
_TEMPO: Final = re.compile(r"\b(\d{2,3})\s*bpm\b")
_TEMPI: Final = (50, 180)
_MARKER: Final = re.compile(r"\[sandbox:[^\]]*\]")


def plan(prompt: str, seed: int, duration_s: int) -> Plan:
    """The plan of a piece of this length: by the words of the prompt, and by chance of prompt and seed."""
    said = unicodedata.normalize("NFKC", _MARKER.sub(" ", prompt)).casefold()
    digest = hashlib.sha256(f"music\n{seed}\n{said}".encode("utf-8", "surrogatepass")).digest()
    chance = int.from_bytes(digest[:8], "big")
    rng = random.Random(chance)
    words = re.findall(r"[\w'-]+", said)
    manner = _with_wishes(_manner(words, rng), said, words)
    speed = manner.beats_a_minute * rng.uniform(0.96, 1.04) if _TEMPO.search(said) is None else None
    bar_s = manner.beats * 60 / (speed or manner.beats_a_minute)
    bars = max(1, int((duration_s - _TAIL_S) / bar_s))
    choices = _PROGRESSIONS[manner.mode]
    first = rng.choice(choices)
    return Plan(
        manner=manner,
        bars=bars,
        beat_s=bar_s / manner.beats,
        tail_s=duration_s - bars * bar_s,
        root=rng.randrange(-5, 7),
        progression=first,
        answer=rng.choice([other for other in choices if other != first]),
        sections=_form(bars),
        chance=chance,
    )


def _manner(words: list[str], rng: random.Random) -> Manner:
    for word in words:
        for names, manner in _MANNERS:
            if word in names.split():
                return manner
    return rng.choice(_USUAL)


def _with_wishes(manner: Manner, said: str, words: list[str]) -> Manner:
    players = list(dict.fromkeys(_PLAYERS[word] for word in words if word in _PLAYERS))
    lead = players[0] if players else manner.lead
    chords = players[1] if len(players) > 1 else manner.chords
    # Whoever is asked for alone plays alone.
    if len(players) == 1 and "solo" in words:
        chords = players[0]
    alone = "solo" in words or _WITHOUT_DRUMS.search(said) is not None
    drums = "" if alone else manner.drums or ("soft" if "drums" in words or "beat" in words else "")
    mode = next((_MODES[word] for word in words if word in _MODES), manner.mode)
    return Manner(
        _tempo(manner, said, words), mode, lead, chords, manner.bass, drums, manner.swing, manner.beats
    )


def _tempo(manner: Manner, said: str, words: list[str]) -> int:
    lowest, highest = _TEMPI
    asked = _TEMPO.search(said)
    if asked is not None:
        return min(max(int(asked[1]), lowest), highest)
    if _SLOWER & set(words):
        return max(lowest, manner.beats_a_minute * 4 // 5)
    if _FASTER & set(words):
        return min(highest, manner.beats_a_minute * 5 // 4)
    return manner.beats_a_minute


def _form(bars: int) -> tuple[str, ...]:
    """Statement, statement, contrast, return; longer pieces come in without the melody and go out so."""
    count = -(-bars // BARS_OF_A_SECTION)
    if count == 1:
        return ("A",)
    if count < 4:
        return ("A", "B", "A")[:count]
    if count == 4:
        return ("A", "A", "B", "A")
    middle = "AABA" * (count // 4 + 1)
    return ("I", *middle[: count - 2], "A")
