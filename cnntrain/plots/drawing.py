"""The colours of all pictures, and letters in them whatever the language, drawn with Pillow."""

import functools
import unicodedata
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from cnntrain.text import printable

Color: TypeAlias = tuple[int, int, int]
Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

BACKGROUND, INK, FAINT_INK = (255, 255, 255), (40, 40, 40), (130, 130, 130)
RIGHT, WRONG = (31, 90, 166), (178, 24, 43)
# Pillow's own font knows ASCII alone. These are found by name where the system has them.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "Arial.ttf", "arial.ttf")


@functools.cache
def font(size: int, ascii_only: bool = True) -> Font:
    """Pillow's own font, or for other letters one of the system's, where there is one."""
    for name in () if ascii_only else SYSTEM_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


@functools.cache
def readable(text: str, size: int) -> tuple[str, Font]:
    """A text of one line, and a font for it; letters that no font has lose their accents or are escaped."""
    text = printable(text)
    if text.isascii():
        return text, font(size)
    face = font(size, False)
    unknown = _glyph(face, "\uffff")
    letters = [letter if letter == " " or _glyph(face, letter) != unknown else ascii_letter(letter) for letter in text]
    return "".join(letters), face


def _glyph(face: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = face.getmask(letter)
    return mask.size, bytes(mask.getpixel((x, y)) for y in range(mask.size[1]) for x in range(mask.size[0]))


def ascii_letter(letter: str) -> str:
    """A letter without its accents, or as an escape."""
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return base or letter.encode("ascii", "backslashreplace").decode()


def length(text: str, size: int) -> float:
    """Of a text of one line, in pixels."""
    text, face = readable(text, size)
    return face.getlength(text)


def write(
    picture: Image.Image, place: tuple[float, float], text: str, size: int, ink: Color = INK, anchor: str = "la"
) -> None:
    """A text of one line at a place (x, y)."""
    text, face = readable(text, size)
    ImageDraw.Draw(picture).text(place, text, fill=ink, font=face, anchor=anchor)


def fit(text: str, room: float, size: int) -> str:
    """The text, cut to `room` pixels."""
    if length(text, size) <= room:
        return text
    while text and length(text + "...", size) > room:
        text = text[:-1]
    return text + "..."


def wrap(text: str, room: float, size: int) -> list[str]:
    """The text in lines of at most `room` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
