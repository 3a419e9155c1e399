"""`cnntrain filter image=FILE kernel=NAME`: a classic filter on a picture, as a network's convolution computes it."""

import io
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from cnntrain.config.messages import ConfigErrors, Key, options_of, wrong_value
from cnntrain.config.paths import absence, out_file, unquoted
from cnntrain.config.schema.cnn import Block
from cnntrain.config.schema.filter import (
    HEAVIEST,
    KERNELS,
    LARGEST,
    MOST_PADDING,
    OWN_KERNEL,
    FilterSettings,
    Kernel,
    OwnKernel,
    Weights,
    read_matrix,
)
from cnntrain.config.schema.limits import out_of_range
from cnntrain.errors import ConfigError, DataError
from cnntrain.models.map_sizes import Misfit, Window, convolution_window, through
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import hint, nearest, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

WIDEST_TABLE = 7  # rows and columns of a kernel that are printed
LONGEST_NAME = 40  # characters of a caption


def filter(words: list[str]) -> None:
    """Filter an image, print the kernel, the sizes and the range of values, and write the picture.

    Args:
        words: KEY=VALUE, the keys being those of FilterSettings and of the kernel (config/schema/filter.py).

    Raises:
        ConfigError: with all faults of the words; or a kernel or padding that does not fit the image.
        DataError: the image is absent or broken.
        FileSystemError: the picture cannot be written.
        ResourceError: they are too large for the memory.
    """
    settings, kernel = read(words)
    source, out = Path(settings.image), _place(settings)

    from cnntrain.data.decode import BadImage, read_image
    from cnntrain.inspect.filter import as_picture, convolve, inner_part, need_memory
    from cnntrain.plots.filter_result import beside

    gray = kernel.finds_edges if settings.gray is None else settings.gray
    try:
        original = read_image(source, 3)
        image = (read_image(source, 1) if gray else original).permute(2, 0, 1).float()
    except BadImage as error:
        raise DataError(f"image: {printable(source)}: {error}; give another image") from None
    height, width = original.shape[:2]
    matrices = kernel.matrices()
    window = fit(settings, matrices[0], (height, width))
    need_memory(printable(source), max(height * width, math.prod(window.output((height, width)))))
    result = convolve(image[None], matrices, window, settings.padding_mode.name)[0]
    pixels, scale = as_picture(result, kernel, inner_part(result, window, (height, width)))

    name = _name(settings)
    colours = "grey" if gray else "colour"
    before, after = _size(height, width), _size(*result.shape[1:])
    lines = {
        "kernel": " ".join([name, *(f"{key}={value:.4g}" for key, value in kernel.parameters().items())]),
        "image": f"{printable(source)}, {before}, {colours}, values {_range(image)}",
        "height": _in_two(window.arithmetic((height, width), 0)),
        "width": _in_two(window.arithmetic((height, width), 1)),
        "result": f"{after}, values {_range(result)}",
        "shown": scale,
        "written": printable(out),
    }
    captions = [
        [_short(printable(source.name)), before],
        [name, _size(*window.kernel), *_changed(settings)],
        [f"{name}, in {colours}", after, scale],
    ]
    write_atomic(out, _png(beside(original.numpy(), matrices, pixels, captions)), word="out=FILE.png")
    for matrix in matrices:
        print("\n".join(_table(matrix)), end="\n\n")
    print("\n".join(f"{key:<9}{value}" for key, value in lines.items()))


# --- what is told ----------------------------------------------------------------------------------------------------


def fit(settings: FilterSettings, matrix: Weights, size: tuple[int, int]) -> Window:
    """How the kernel goes over an image of `size` (height, width); raises ConfigError where it does not fit."""
    block = Block(
        filters=1,
        kernel=[len(matrix), len(matrix[0])],
        stride=settings.stride,
        padding=settings.padding if settings.padding in ("same", "valid") else int(settings.padding),
        padding_mode=settings.padding_mode.name,
        dilation=settings.dilation,
        pool="none",
    )
    try:
        through(block, 1, size)
    except Misfit as misfit:
        raise ConfigError(f"{misfit.what}; padding=same with padding_mode=zeros fits every kernel") from None
    return convolution_window(block, first=True)


def _changed(settings: FilterSettings) -> list[str]:
    """How the kernel is laid over the image, where that is not the usual way."""
    usual = FilterSettings()
    words = {key: getattr(settings, key) for key in ("stride", "dilation", "padding")}
    found = [f"{key} {value}" for key, value in words.items() if value != getattr(usual, key)]
    if settings.padding_mode != usual.padding_mode and settings.padding != "valid":
        found.append(f"padding {settings.padding_mode.name}")
    return found


def _size(height: int, width: int) -> str:
    return f"{height} x {width}"


def _in_two(arithmetic: str) -> str:
    """`H' = formula = numbers = 7` on two lines of less than 80 columns."""
    side, formula, *numbers = arithmetic.split(" = ")
    return f"{side} = {formula}\n{'':12}= {' = '.join(numbers)}"


def _range(values: "Tensor") -> str:
    return f"{values.min():.4g} to {values.max():.4g}"


def _table(matrix: Weights) -> list[str]:
    """The weights in columns; of a large kernel its middle."""
    rows, columns = len(matrix), len(matrix[0])
    top, left = (max(0, (count - WIDEST_TABLE) // 2) for count in (rows, columns))
    cut = [row[left : left + WIDEST_TABLE] for row in matrix[top : top + WIDEST_TABLE]]
    values = [value for row in cut for value in row]
    whole = all(value == round(value) for value in values)
    largest = max(map(abs, values))
    digits = 0 if whole else 1 if largest >= 1000 else min(7, max(4, 3 - math.floor(math.log10(largest))))
    cells = [[f"{round(value, digits) + 0.0:.{digits}f}" for value in row] for row in cut]
    width = max(len(cell) for row in cells for cell in row)
    lines = ["  " + " ".join(f"{cell:>{width}}" for cell in row) for row in cells]
    if len(cut) < rows or len(cut[0]) < columns:
        lines.append(f"  (the middle {_size(len(cut), len(cut[0]))} of {_size(rows, columns)})")
    return lines


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _png(picture: "NDArray[np.uint8]") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


# --- the words -------------------------------------------------------------------------------------------------------


def read(words: list[str]) -> tuple[FilterSettings, Kernel]:
    """The settings and the kernel.

    Raises:
        ConfigErrors: with all faults of the words.
        DataError: the only fault is that the image is not there.
    """
    given, found = _pairs(words)
    name = given.get("kernel", "")
    rows = read_matrix(name)
    kind = KERNELS.get(name, Kernel)
    known = _keys(FilterSettings) | _keys(kind)
    values: dict[str, Any] = {}
    for key, text in given.items():
        try:
            values[key] = _convert(text, known[key])
        except ValueError:
            found.append(wrong_value(key, text, known[key]))
        except KeyError:
            found += _stray_key(key, text, name)
    common = _keys(FilterSettings)
    settings = FilterSettings(**{key: value for key, value in values.items() if key in common})
    kernel = OwnKernel(rows) if rows else kind(**{key: value for key, value in values.items() if key not in common})
    found += [
        wrong_value(key, value, known[key]) for part in (settings, kernel) for key, value, _ in out_of_range(part)
    ]
    found += [] if rows or name in KERNELS else [_no_kernel(name)]
    found += _own_rules(settings)
    settings.image = os.path.expanduser(settings.image)
    absent = _absent(settings.image)
    if found:
        raise ConfigErrors([*found, *absent])
    if absent:
        raise DataError(absent[0])
    return settings, kernel


def _pairs(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The words as keys and values, and a fault for each that is none."""
    given, found = {}, []
    for word in words:
        key, sign, value = word.partition("=")
        value = unquoted(value)
        if word.startswith("-"):
            found.append(f"{word}: no flag of filter; see cnntrain filter --help")
        elif not sign:
            meant = "kernel" if word in KERNELS else "image"
            found.append(f"{word}: not KEY=VALUE" + hint(f"{meant}={word}"))
        else:
            given[key] = value
    return given, found


def _keys(kind: type) -> dict[str, Key]:
    hints = get_type_hints(kind)
    return {item.name: Key(hints[item.name], item.metadata.get("limits", {})) for item in fields(kind)}


def _convert(text: str, key: Key) -> Any:
    """The value that a word means to its key; ValueError where it means none."""
    kinds = options_of(key.hint)
    if type(None) in kinds and text == "null":
        return None
    if bool in kinds:
        return ("false", "true").index(text) == 1
    if choices := key.choices():
        return kinds[0][choices[choices.index(text)]]
    return kinds[0](text)


def _stray_key(key: str, text: str, name: str) -> list[str]:
    owners = [other for other, kind in KERNELS.items() if key in _keys(kind)]
    if owners and name not in KERNELS and not read_matrix(name):
        return []  # the kernel's name is a fault already
    if owners:
        have = f"{' and '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
        return [f"{key}: this kernel has no {key} (given {text}); {have}: kernel={owners[0]}"]
    known = [*_keys(FilterSettings), *(_keys(KERNELS[name]) if name in KERNELS else ())]
    return [f"{key}: no such key (given {text})" + hint(nearest(key, known), f"keys: {', '.join(known)}")]


def _no_kernel(name: str) -> str:
    names = ", ".join(KERNELS)
    if not name:
        return f"kernel: missing; write kernel=NAME, one of {names}, or weights: '{OWN_KERNEL}'"
    if name.startswith("["):
        rule = f"rows of as many numbers each, {LARGEST} at most, none beyond {HEAVIEST:,} either way"
        return f"kernel: must be {rule} (given {name}); write it as '{OWN_KERNEL}'"
    meant = nearest(name, KERNELS)
    advice = f"did you mean {meant}? " if meant else ""
    return f"kernel: no kernel {name}; {advice}kernels: {names}, or weights: '{OWN_KERNEL}'"


def _own_rules(settings: FilterSettings) -> list[str]:
    """Faults of single values that their types and limits do not tell."""
    found = []
    padding = settings.padding
    if padding not in ("same", "valid") and not (
        padding.isdecimal() and len(padding) <= 4 and int(padding) <= MOST_PADDING
    ):
        rule = f"same, valid or a whole number of pixels >= 0 and <= {MOST_PADDING}"
        found.append(f"padding: must be {rule} (given {padding})" + hint(nearest(padding, ("same", "valid"))))
    if settings.out and not settings.out.lower().endswith(".png"):
        found.append(f"out: must end in .png (given {printable(settings.out)}); write out=FILE.png")
    if not settings.image:
        found.append("image: missing; write image=FILE")
    return found


def _absent(image: str) -> list[str]:
    what = absence(image) or ("is a folder, not an image" if os.path.isdir(image) else "")
    return [f"image: {printable(image)} {what}; give an image file, such as image=cat.jpg"] if image and what else []


def _place(settings: FilterSettings) -> Path:
    """The file to write.

    Raises:
        ConfigError: it is the image itself.
        FileSystemError: it is a folder, or its folder is not there.
    """
    image = Path(settings.image)
    out = out_file(settings.out or f"{image.stem}_{_name(settings)}.png", "FILE.png")
    if out.exists() and out.samefile(image):
        raise ConfigError(f"out: {printable(out)} is the image itself; write out=FILE.png")
    return out


def _name(settings: FilterSettings) -> str:
    return settings.kernel if settings.kernel in KERNELS else "custom"
