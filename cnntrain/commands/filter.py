"""`cnntrain filter image=FILE kernel=NAME`: a classic filter on a picture, as a network's convolution computes it."""

import io
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from cnntrain.config.paths import out_file
from cnntrain.config.schema.cnn import Block
from cnntrain.config.schema.commands import FilterArgs
from cnntrain.config.schema.filter import KERNELS, Weights
from cnntrain.errors import ConfigError, DataError
from cnntrain.models.map_sizes import Misfit, Window, convolution_window, through
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import cut, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

WIDEST_TABLE = 7  # rows and columns of a kernel that are printed
LONGEST_NAME = 40  # characters of a caption


def run(args: FilterArgs) -> None:
    """Filter an image, print the kernel, the sizes and the range of values, and write the picture.

    Raises:
        ConfigError: a kernel or padding that does not fit the image.
        DataError: the image is broken.
        FileSystemError: the picture cannot be written.
        ResourceError: they are too large for the memory.
    """
    source, kernel, out = args.image, args.kernel, _place(args)

    from cnntrain.data.decode import BadImage, read_image
    from cnntrain.inspect.convolve import as_picture, convolve, inner_part, need_memory
    from cnntrain.plots.filter_result import beside

    gray = kernel.finds_edges if args.gray is None else args.gray
    try:
        original = read_image(source, 3)
        image = (read_image(source, 1) if gray else original).permute(2, 0, 1).float()
    except BadImage as error:
        raise DataError(f"image: {printable(source)}: {error}; give another image") from None
    height, width = original.shape[:2]
    matrices = kernel.matrices()
    window = fit(args, matrices[0], (height, width))
    need_memory(printable(source), max(height * width, math.prod(window.output((height, width)))))
    result = convolve(image[None], matrices, window, args.padding_mode.name)[0]
    pixels, scale = as_picture(result, kernel, inner_part(result, window, (height, width)))

    name = _name(args)
    colors = "grey" if gray else "colour"
    before, after = _size(height, width), _size(*result.shape[1:])
    lines = {
        "kernel": " ".join([name, *(f"{key}={value:.4g}" for key, value in kernel.parameters().items())]),
        "image": f"{printable(source)}, {before}, {colors}, values {_range(image)}",
        "height": _in_two(window.arithmetic((height, width), 0)),
        "width": _in_two(window.arithmetic((height, width), 1)),
        "result": f"{after}, values {_range(result)}",
        "shown": scale,
        "written": printable(out),
    }
    captions = [
        [cut(printable(source.name), LONGEST_NAME), before],
        [name, _size(*window.kernel), *_notes(args)],
        [f"{name}, in {colors}", after, scale],
    ]
    write_atomic(out, _png(beside(original.numpy(), matrices, pixels, captions)), word="out=FILE.png")
    for matrix in matrices:
        print("\n".join(_table(matrix)), end="\n\n")
    print("\n".join(f"{key:<9}{value}" for key, value in lines.items()))


# --- what is told ----------------------------------------------------------------------------------------------------


def fit(args: FilterArgs, matrix: Weights, size: tuple[int, int]) -> Window:
    """How the kernel goes over an image of `size` (height, width); raises ConfigError where it does not fit."""
    block = Block(
        filters=1,
        kernel=[len(matrix), len(matrix[0])],
        stride=args.stride,
        padding=args.padding if args.padding in ("same", "valid") else int(args.padding),
        padding_mode=args.padding_mode.name,
        dilation=args.dilation,
        pool="none",
    )
    try:
        through(block, 1, size)
    except Misfit as misfit:
        raise ConfigError(f"{misfit.what}; padding=same with padding_mode=zeros fits every kernel") from None
    return convolution_window(block, first=True)


def _notes(args: FilterArgs) -> list[str]:
    """How the kernel is laid over the image, where that is not the usual way."""
    usual = {item.name: item.default for item in fields(args)}
    words = {key: getattr(args, key) for key in ("stride", "dilation", "padding")}
    notes = [f"{key} {value}" for key, value in words.items() if value != usual[key]]
    if args.padding_mode != usual["padding_mode"] and args.padding != "valid":
        notes.append(f"padding {args.padding_mode.name}")
    return notes


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
    middle = [row[left : left + WIDEST_TABLE] for row in matrix[top : top + WIDEST_TABLE]]
    values = [value for row in middle for value in row]
    is_whole = all(value == round(value) for value in values)
    largest = max(map(abs, values))
    digits = 0 if is_whole else 1 if largest >= 1000 else min(7, max(4, 3 - math.floor(math.log10(largest))))
    cells = [[f"{round(value, digits) + 0.0:.{digits}f}" for value in row] for row in middle]
    width = max(len(cell) for row in cells for cell in row)
    lines = ["  " + " ".join(f"{cell:>{width}}" for cell in row) for row in cells]
    if len(middle) < rows or len(middle[0]) < columns:
        lines.append(f"  (the middle {_size(len(middle), len(middle[0]))} of {_size(rows, columns)})")
    return lines


def _png(picture: "NDArray[np.uint8]") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _place(args: FilterArgs) -> Path:
    """The file to write.

    Raises:
        ConfigError: it is the image itself.
        FileSystemError: it is a folder, or its folder is not there.
    """
    out = args.out or out_file(f"{args.image.stem}_{_name(args)}.png", "FILE.png")
    if out.exists() and out.samefile(args.image):
        raise ConfigError(f"out: {printable(out)} is the image itself; write out=FILE.png")
    return out


def _name(args: FilterArgs) -> str:
    return next((name for name, kind in KERNELS.items() if type(args.kernel) is kind), "custom")
