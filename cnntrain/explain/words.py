"""The words of `cnntrain explain` that are no overrides. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnntrain.faults import ConfigErrors, hint, nearest
from cnntrain.paths import expanded

PARTS = ("filters", "features", "excite", "gradcam", "shift")
KEYS = ("what", "layers", "images", "filters", "out")
MOST_IMAGES, MOST_FILTERS = 32, 256


@dataclass(frozen=True)
class Wishes:
    """What is to be drawn, of what, and where to."""

    what: tuple[str, ...] = PARTS
    layers: tuple[str, ...] = ("stages",)  # names, patterns, and the words first, last and stages
    images: int | tuple[Path, ...] = 8  # a count, or files
    filters: int | None = None  # of each layer; None: as many as suit the picture
    out: Path | None = None


def read_words(words: Sequence[str]) -> tuple[Wishes, list[str]]:
    """Part a command line into the wishes and the overrides of the run's config.

    Raises:
        ConfigErrors: with all values that break a rule, one line each.
    """
    own = dict(word.split("=", 1) for word in words if "=" in word and word.split("=", 1)[0] in KEYS)
    overrides = [word for word in words if word.partition("=")[0] not in KEYS or "=" not in word]
    faults: list[str] = []
    wishes = Wishes(
        what=_parts(own["what"], faults) if "what" in own else Wishes.what,
        layers=_layers(own["layers"], faults) if "layers" in own else Wishes.layers,
        images=_images(own["images"], faults) if "images" in own else Wishes.images,
        filters=_count("filters", own["filters"], MOST_FILTERS, faults) if "filters" in own else None,
        out=_folder(own["out"], faults) if "out" in own else None,
    )
    if faults:
        raise ConfigErrors(faults)
    return wishes, overrides


def listed(value: str) -> list[str]:
    """`[a,b]` or `a,b` as a list; an item may stand in quotes."""
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    items = (item.strip() for item in value.split(","))
    return [
        item[1:-1] if len(item) > 1 and item[0] == item[-1] and item[0] in "'\"" else item for item in items if item
    ]


def _parts(value: str, faults: list[str]) -> tuple[str, ...]:
    items = listed(value)
    wrong = [item for item in items if item not in PARTS]
    faults += [f"what: must be among {', '.join(PARTS)} (given {item})" + hint(nearest(item, PARTS)) for item in wrong]
    if not items:
        faults.append(f"what: must not be empty; choose among {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in items)


def _layers(value: str, faults: list[str]) -> tuple[str, ...]:
    items = tuple(listed(value))
    if not items:
        faults.append("layers: must not be empty; give names, patterns such as 'layer*.0', or first, last or stages")
    return items


def _count(key: str, value: str, most: int, faults: list[str]) -> int:
    count = int(value) if value.isdecimal() else 0
    if not 1 <= count <= most:
        faults.append(f"{key}: must be a whole number from 1 to {most} (given {value or 'nothing'})")
    return count


def _images(value: str, faults: list[str]) -> int | tuple[Path, ...]:
    if value.lstrip("-").isdecimal():
        return _count("images", value, MOST_IMAGES, faults)
    whole = expanded(value)
    files = [whole] if value and whole.is_file() else [expanded(item) for item in listed(value)]
    advice = "give a count such as images=8, or files as 'images=[cat.jpg,dog.jpg]'"
    faults += [f"images: {file} is no file; {advice}" for file in files if not file.is_file()]
    if not files or len(files) > MOST_IMAGES:
        faults.append(f"images: must be 1 to {MOST_IMAGES} files (given {len(files)}); {advice}")
    return tuple(files)


def _folder(value: str, faults: list[str]) -> Path:
    if not value.strip():
        faults.append("out: must be the name of a folder (given nothing); write out=DIR")
    return expanded(value)
