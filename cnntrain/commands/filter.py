"""`cnntrain filter image=FILE kernel=NAME`: a classic filter on a picture or signal, as a network computes it."""

import io
import math
from collections.abc import Sequence
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
from cnntrain.text import counted, cut, few, printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

WIDEST_TABLE = 7  # rows and columns of a kernel that are printed
LONGEST_NAME = 40  # characters of a caption
MOST_NOTED = 9  # weights in a note


def run(args: FilterArgs) -> None:
    """Filter an image or a signal, print the kernel, the sizes and the range of values, and write the picture.

    Raises:
        ConfigError: a kernel or padding that does not fit the image.
        DataError: the image is broken, or a signal is not of numbers.
        FileSystemError: the picture cannot be written.
        ResourceError: they are too large for the memory.
    """
    if args.signal is not None:
        return _filter_signal(args, args.signal)
    assert args.image is not None
    return _filter_image(args, args.image)


def _filter_image(args: FilterArgs, source: Path) -> None:
    kernel, (out,) = args.kernel, _files(args, source, (".png",))

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


def _filter_signal(args: FilterArgs, source: Path | tuple[float, ...]) -> None:
    files = _files(args, source if isinstance(source, Path) else None, (".png", ".svg", ".csv"))

    import torch

    from cnntrain.inspect.convolve import convolve
    from cnntrain.inspect.signal import Signal, place, read_signal, side_by_side
    from cnntrain.plots.signal_curves import draw_signal

    signal = read_signal(source, args.column) if isinstance(source, Path) else Signal(list(source))
    row, count = args.kernel.row(), len(signal.values)
    assert row is not None  # as FilterArgs.faults has it
    window = _fit_signal(args, row, count)
    values = torch.tensor(signal.values, dtype=torch.float64)
    filtered = convolve(values[None, None, None], [[row]], window, args.padding_mode.name)[0, 0, 0]
    result = filtered.tolist()

    name, title = _name(args), printable(source.name) if isinstance(source, Path) else ""
    title += f", column {printable(signal.column)}" if signal.column else ""
    lines = {
        "kernel": " ".join([name, *(f"{key}={value:.4g}" for key, value in args.kernel.parameters().items())]),
        "signal": f"{title}{', ' if title else ''}{counted(count, 'value')}, {_range(values)}",
        "length": _in_two(window.arithmetic((1, count), 1).replace("W", "N")),
        "result": f"{counted(len(result), 'value')}, {_range(filtered)}",
        "written": ", ".join(printable(file) for file in files),
    }
    if signal.others:
        lines["signal"] += f"\n{'':9}other columns of numbers: {few(map(printable, signal.others))} (column=NAME)"
    weights = " ".join(f"{weight:.3g}" for weight in row[:MOST_NOTED]) + (" …" if len(row) > MOST_NOTED else "")
    notes = [", ".join([f"{lines['kernel']} ({weights})", *_notes(args)]), "A result lies at the middle of its window."]
    places = [place(index, window) for index in range(len(result))]
    chart = draw_signal(signal.values, places, result, title or "a signal", notes)
    contents = [chart.content("png"), chart.content("svg"), side_by_side(signal.values, result, window).encode()]
    for file, content in zip(files, contents, strict=True):
        write_atomic(file, content, word="out=FILE.png")
    print("\n".join(_table([row])), end="\n\n")
    print("\n".join(f"{key:<9}{value}" for key, value in lines.items()))


# --- what is told ----------------------------------------------------------------------------------------------------


def fit(args: FilterArgs, matrix: Weights, size: tuple[int, int]) -> Window:
    """How the kernel goes over an image of `size` (height, width); raises ConfigError where it does not fit."""
    block = Block(
        filters=1,
        kernel=[len(matrix), len(matrix[0])],
        stride=args.stride,
        padding=args.padding if args.padding in ("same", "valid") else _added(args),
        padding_mode=args.padding_mode.name,
        dilation=args.dilation,
        pool="none",
    )
    try:
        through(block, 1, size)
    except Misfit as misfit:
        raise ConfigError(f"{misfit.what}; padding=same with padding_mode=zeros fits every kernel") from None
    return convolution_window(block, first=True)


def _added(args: FilterArgs) -> int | list[int]:
    """Pixels added on each side; of a signal there is nothing above and below."""
    return int(args.padding) if args.signal is None else [0, int(args.padding)]


def _fit_signal(args: FilterArgs, row: list[float], count: int) -> Window:
    """How the kernel goes over a signal of so many values; raises ConfigError where it is longer."""
    span = args.dilation * (len(row) - 1) + 1
    if span > count:
        stretch = f" with dilation {args.dilation}" if args.dilation > 1 else ""
        raise ConfigError(
            f"kernel: {counted(len(row), 'weight')}{stretch} cover {counted(span, 'value')}, and the signal has "
            f"{count:,}; take a shorter kernel or a longer signal"
        )
    return fit(args, [row], (1, count))


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
    """The weights in columns; of a large kernel its middle, or the one weight that stands everywhere."""
    rows, columns = len(matrix), len(matrix[0])
    top, left = (max(0, (count - WIDEST_TABLE) // 2) for count in (rows, columns))
    middle = [row[left : left + WIDEST_TABLE] for row in matrix[top : top + WIDEST_TABLE]]
    values = [value for row in middle for value in row]
    is_whole = all(value == round(value) for value in values)
    largest = max(map(abs, values))
    digits = 0 if is_whole else 1 if largest >= 1000 else min(7, max(4, 3 - math.floor(math.log10(largest))))
    cells = [[f"{round(value, digits) + 0.0:.{digits}f}" for value in row] for row in middle]
    width = max(len(cell) for row in cells for cell in row)
    is_part = len(middle) < rows or len(middle[0]) < columns
    if is_part and len({value for row in matrix for value in row}) == 1:
        return [f"  {cells[0][0]} at all {_size(rows, columns)} places"]
    lines = ["  " + " ".join(f"{cell:>{width}}" for cell in row) for row in cells]
    if is_part:
        lines.append(f"  (the middle {_size(len(middle), len(middle[0]))} of {_size(rows, columns)})")
    return lines


def _png(picture: "NDArray[np.uint8]") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _files(args: FilterArgs, source: Path | None, ends: Sequence[str]) -> list[Path]:
    """The files to write, of one name and several ends; the picture is the first.

    Raises:
        ConfigError: one of them is the source itself.
        FileSystemError: one is a folder, or their folder is not there.
    """
    stem = source.stem if source else "signal"
    out = args.out or out_file(f"{stem}_{_name(args)}.png", "FILE.png")
    files = [out, *(out_file(str(out.with_suffix(end)), "FILE.png") for end in ends[1:])]
    for file in files:
        if source and file.exists() and file.samefile(source):
            what = "image" if args.image else "signal"
            raise ConfigError(f"out: {printable(file)} is the {what} itself; write out=FILE.png")
    return files


def _name(args: FilterArgs) -> str:
    return next((name for name, kind in KERNELS.items() if type(args.kernel) is kind), "custom")
