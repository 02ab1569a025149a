"""The words in a picture: the prompt on a panel of strong contrast, and the discreet mark of the sandbox."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PANEL: Final = (14, 17, 24)
INK: Final = (246, 246, 242)
MARK: Final = "sandbox"
WATERMARK: Final = "AI generated"
_WATERMARK_SIZE: Final = 0.055
# Opaque enough that white text keeps a contrast of more than 7 to 1 even over a white scene.
_PANEL_OPACITY: Final = 214
# Panel and text sizes in shares of the frame's shorter side.
_MARGIN: Final = 0.035
_TEXT_LARGE: Final = 0.044
_TEXT_SMALL: Final = 0.024
_TEXT_MIN_PX: Final = 11
_LINE_HEIGHT: Final = 1.34
_PANEL_HEIGHT_USUAL: Final = 0.22
# Only at the smallest type may words cover this much of the scene.
_PANEL_HEIGHT_MAX: Final = 0.34
# Only this much of a prompt can ever fit at the smallest size, so no more is measured.
_READ_MAX: Final = 4_000
_PLAIN: Final = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "–": "-",
        "—": "-",
        "…": "...",
        "\u00a0": " ",
        "×": "x",
        "•": "-",
        "⁄": "/",
    }
)


@dataclass(frozen=True)
class Overlay:
    """A picture with transparency laid over every frame; `panel_box` is left, top, right, bottom of the text panel."""

    image: Image.Image
    panel_box: tuple[int, int, int, int]


@functools.cache
def _font(size_px: int) -> Font:
    return ImageFont.load_default(size_px)


@functools.cache
def _missing_glyph() -> tuple[tuple[int, int], bytes]:
    return _glyph("\U0010fffd")


def _glyph(char: str) -> tuple[tuple[int, int], bytes]:
    mask = _font(24).getmask(char)
    return mask.size, bytes(mask)


@functools.lru_cache(maxsize=4096)
def _spelling(char: str) -> str:
    """How the built-in font can show `char`: itself, its base letter, its name in brackets, or nothing."""
    category = unicodedata.category(char)
    if char.isspace() or category in ("Cc", "Zl", "Zp"):
        return " "
    if category in ("Cf", "Cs", "Co", "Cn", "Mn", "Me", "Mc") or (category == "Sk" and ord(char) > 0xFFFF):
        return ""
    if _glyph(char) != _missing_glyph():
        return char
    name = unicodedata.name(char, "")
    base = unicodedata.normalize("NFKD", char).translate(_PLAIN)
    if base != char:
        return "".join(map(_spelling, base))
    if " LETTER " in name and " WITH " in name and name.startswith("LATIN"):
        letter = name.split(" LETTER ")[1].split(" WITH ")[0]
        return letter.lower() if "SMALL" in name else letter
    word = name.lower() if category == "So" else name.split(" ")[0].split("-")[0].lower()
    return f" [{word}] " if word else ""


def readable(prompt: str) -> str:
    """The prompt in characters that can be drawn: spaces tidied, runs of foreign script named once in brackets."""
    pieces: list[str] = []
    named = ""
    for char in prompt[:_READ_MAX].translate(_PLAIN):
        piece = _spelling(char)
        # One name stands for a whole run of a script, spaces between its words included.
        if piece.startswith(" [") and piece == named:
            continue
        named = piece if piece.startswith(" [") else named if piece.isspace() or not piece else ""
        pieces.append(piece)
    return " ".join("".join(pieces).split())


def wrap(text: str, font: Font, width_px: float, lines_max: int) -> tuple[list[str], bool]:
    """Break `text` into at most `lines_max` lines of `width_px`; the flag says whether all of it fitted."""
    lines, line = [], ""
    words = [part for word in text.split() for part in _fitting_parts(word, font, width_px)]
    for place, word in enumerate(words):
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width_px:
            line = longer
            continue
        lines.append(line)
        line = word
        if len(lines) == lines_max:
            return [*lines[:-1], _ellipsised(lines[-1], font, width_px)], place == len(words)
    return [*lines, line], True


def _fitting_parts(word: str, font: Font, width_px: float) -> list[str]:
    """A word that is wider than a line, cut into pieces that are not."""
    if font.getlength(word) <= width_px:
        return [word]
    parts, part = [], ""
    for char in word:
        if part and font.getlength(part + char) > width_px:
            parts.append(part)
            part = ""
        part += char
    return [*parts, part]


def _ellipsised(line: str, font: Font, width_px: float) -> str:
    while line and font.getlength(line + " ...") > width_px:
        line = line.rsplit(" ", 1)[0] if " " in line else line[:-1]
    return line.rstrip(" ,.;:-") + " ..."


def _set_text(text: str, width: int, height: int, inner_px: float) -> tuple[list[str], Font, int]:
    """The largest type at which the whole text fits the panel, or the smallest with an ellipsis."""
    short = min(width, height)
    large, small = (max(_TEXT_MIN_PX, round(short * share)) for share in (_TEXT_LARGE, _TEXT_SMALL))
    for size in range(large, small - 1, -max(1, (large - small) // 4)):
        lines_max = max(2, int(height * _PANEL_HEIGHT_USUAL / (size * _LINE_HEIGHT)) - 1)
        lines, complete = wrap(text, _font(size), inner_px, lines_max)
        if complete:
            return lines, _font(size), size
    lines_max = max(1, int(height * _PANEL_HEIGHT_MAX / (small * _LINE_HEIGHT)) - 1)
    return wrap(text, _font(small), inner_px, lines_max)[0], _font(small), small


def make_overlay(
    prompt: str, label: str, width: int, height: int, *, bar: bool, watermark: bool = False
) -> Overlay:
    """Draw panel, prompt and mark for a frame of this size; `bar` leaves room for a progress bar under the text."""
    short = min(width, height)
    margin, pad = max(4, round(short * _MARGIN)), max(5, round(short * 0.028))
    lines, font, size = _set_text(readable(prompt), width, height, width - 2 * margin - 2 * pad)
    step = round(size * _LINE_HEIGHT)
    tall = len(lines) * step + 2 * pad - (step - size) // 2 + (round(short * 0.018) if bar else 0)
    box = (margin, height - margin - tall, width - margin, height - margin)
    image = Image.new("RGBA", (width, height))
    _rounded(image, box, pad * 0.8, (*PANEL, _PANEL_OPACITY))
    pen = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        pen.text((box[0] + pad, box[1] + pad + row * step - size * 0.12), line, (*INK, 255), font)
    _draw_mark(image, readable(label), margin)
    if watermark:
        _draw_watermark(image, margin)
    return Overlay(image, box)


def _rounded(
    image: Image.Image, box: tuple[int, int, int, int], radius: float, fill: tuple[int, ...]
) -> None:
    """A rounded rectangle with smooth corners."""
    width, height = box[2] - box[0], box[3] - box[1]
    mask = Image.new("L", (width * 2, height * 2))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * 2 - 1, height * 2 - 1), radius * 2, fill=fill[3])
    image.paste(Image.new("RGBA", (width, height), (*fill[:3], 255)), box[:2])
    alpha = image.getchannel("A")
    alpha.paste(mask.reduce(2), box[:2])
    image.putalpha(alpha)


def _draw_watermark(image: Image.Image, margin: int) -> None:
    """Large and half transparent, with an edge that is seen on any ground."""
    size = max(_TEXT_MIN_PX, round(min(image.size) * _WATERMARK_SIZE))
    layer = Image.new("RGBA", image.size)
    edge = max(1, size // 24)
    ImageDraw.Draw(layer).text(
        (margin, margin), WATERMARK, (*INK, 170), _font(size), stroke_width=edge, stroke_fill=(*PANEL, 130)
    )
    image.alpha_composite(layer)


def _draw_mark(image: Image.Image, label: str, margin: int) -> None:
    size = max(_TEXT_MIN_PX - 1, round(min(image.size) * 0.02))
    text = f"{MARK} - {label}" if label else MARK
    lines, _ = wrap(text, _font(size), image.width * 0.6, 1)
    text, pad = lines[0], round(size * 0.5)
    wide = round(_font(size).getlength(text)) + 2 * pad
    left, top = image.width - margin - wide, margin
    _rounded(image, (left, top, left + wide, top + size + 2 * pad), size, (*PANEL, 120))
    ImageDraw.Draw(image).text((left + pad, top + pad - size * 0.12), text, (*INK, 235), _font(size))
