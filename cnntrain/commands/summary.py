"""`cnntrain summary [overrides] [formulas=true] [out=FILE.csv]`: a network taken apart. Needs no data."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import SummaryArgs
from cnntrain.config.schema.data import DATASETS
from cnntrain.config.schema.settings import Settings
from cnntrain.models.catalogue import catalogue
from cnntrain.registry import is_dotted
from cnntrain.storage import spreadsheet
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import printable

if TYPE_CHECKING:
    from rich.text import Text

    from cnntrain.inspect.summary.rows import LayerRow

Sizes = tuple[int, int, int]  # classes, channels, pixels a side
PHOTOS = (1000, 3, 224)
COLUMNS = (
    "layer", "kind", "kernel_h", "kernel_w", "stride_h", "stride_w",
    "padding_top", "padding_bottom", "padding_left", "padding_right", "dilation_h", "dilation_w", "groups",
    "input", "output", "output_formula", "parameters", "parameters_formula", "trainable", "macs", "macs_formula",
    "field_h", "field_w", "jump_h", "jump_w", "memory_bytes",
)  # fmt: skip

_ASCII = {"·": "*", "⌊": "floor(", "⌋": ")", "⌈": "ceil(", "⌉": ")", "…": "."}


def run(args: SummaryArgs, config: RunConfig) -> None:
    """Print the layers and totals of a network.

    Args:
        config: of which the model and the looks of the images count. Where no word names a data set, the images are
            those that the network was made for.

    Raises:
        ConfigError: a network that cannot be built.
        FileSystemError: `out` cannot be written.
    """
    names_data = any(word.lstrip("+").startswith(("data=", "experiment=")) for word in config.overrides)
    take_apart(config.settings, args, native_input(config.settings, names_data, config.model_option))


def native_input(settings: Settings, data_named: bool, option: str | None = None) -> Sizes:
    """Classes, channels and pixels a side of the images that the network is shown with. Without torch."""
    data, names = settings.data, (option, settings.model.name)
    if data_named:
        entry = DATASETS.entry(data.name)
        sizes = entry.class_count(data.args), entry.channels, entry.image_size or PHOTOS[2]
    else:
        counts = catalogue()
        figures = next((counts[name] for name in names if name in counts), None)
        sizes = (figures.classes, figures.channels, figures.image_size) if figures else PHOTOS
    classes, channels, image_size = sizes
    if data_named and data.classes:
        classes = len(data.classes)
    return classes, data.channels or channels, data.image_size or image_size


def take_apart(settings: Settings, args: SummaryArgs, sizes: Sizes) -> None:
    """Build the network without memory for its weights, follow one image through it, and print what was seen."""
    import torch
    from rich.console import Console
    from rich.text import Text

    from cnntrain.inspect.summary.rows import inspect
    from cnntrain.inspect.summary.table import LEGEND, table
    from cnntrain.models.build import build_model

    classes, channels, image_size = sizes
    # A user's code may compute with its weights, which the meta device cannot.
    with torch.device("cpu" if is_dotted(settings.model.name) else "meta"):
        sizes_by_name = {"classes": classes, "channels": channels, "image_size": image_size}
        model, notes = build_model(settings.model, **sizes_by_name, head=settings.finetune.head)
    rows = inspect(model, channels, image_size)
    console = Console(highlight=False)
    width = console.width if console.is_terminal else 80

    def say(text: Text | str, style: str = "") -> None:
        line = text if isinstance(text, Text) else Text(text, style)
        console.print(_printable(line, console.encoding), soft_wrap=True)

    say(f"{settings.model.heading}: {classes:,} classes, {channels}x{image_size}x{image_size} images", "bold")
    for note in notes:
        for line in textwrap.wrap(note, width, subsequent_indent="  ", break_on_hyphens=False):
            say(line)
    say("")
    for line in table(model, rows, width, formulas=args.formulas):
        say(line)
    say("")
    for line in [*totals(rows), "", *LEGEND]:
        say(line, "dim" if line in LEGEND else "")
    if row := next((row for row in rows if row.lost), None):
        why = f"? the receptive field is not known from {row.path} on: {row.lost} moves pixels in ways of its own"
        for line in textwrap.wrap(why, width, break_on_hyphens=False):
            say(line, "dim")
    if args.out:
        write_atomic(args.out, as_csv(rows), word="out=FILE.csv")
        say(f"wrote {printable(args.out)}")


def totals(rows: Sequence["LayerRow"]) -> list[str]:
    """The sums over all layers, exact."""
    parameters, trainable, macs, memory = (
        sum(getattr(row, key) for row in rows) for key in ("parameters", "trainable", "macs", "memory")
    )
    count = sum(row.parameters for row in rows if row.is_idle)
    entries = [
        ("parameters", parameters, f"{count:,} of them in training only (not run)" if count else ""),
        ("trainable", trainable, ""),
        ("multiply-adds", macs, "for one image"),
        ("parameter memory", 4 * parameters, f"bytes = {_size(4 * parameters)} as float32"),
        ("activation memory", memory, f"bytes = {_size(memory)} for one image"),
    ]
    width = max(len(f"{count:,}") for _, count, _ in entries)
    return [f"{name:<17}  {count:>{width},}  {words}".rstrip() for name, count, words in entries]


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def as_csv(rows: Sequence["LayerRow"]) -> str:
    """All that is known of each layer, with exact integers; empty where there is nothing to tell."""
    return spreadsheet.as_csv([COLUMNS, *map(_record, rows)])


def _record(row: "LayerRow") -> list[Any]:
    from cnntrain.inspect.summary.formulas import size_formulas

    window: list[Any] = [""] * 11
    if look := row.look:
        sides = look.window
        borders = [count for pair in sides.borders for count in pair]
        window = [*sides.kernel, *sides.stride, *borders, *sides.dilation, look.groups]
    shapes = ["" if shape is None else "x".join(map(str, shape)) for shape in (row.input, row.output)]
    formula = "; ".join(size_formulas(row.look)) if row.look else ""
    field = ["unknown" if row.lost else ""] * 2 if row.field is None else [_pixels(size) for size in row.field]
    jump = ["" if step is None else _pixels(step) for step in row.jump]
    counts = [row.parameters, row.parameter_sum, row.trainable, row.macs, row.mac_sum]
    return [row.path, row.kind, *window, *shapes, formula, *counts, *field, *jump, row.memory]


def _pixels(size: Any) -> Any:
    """A whole number where it is one, `image` where it has no end."""
    if size == float("inf"):
        return "image"
    return int(size) if size == int(size) else round(float(size), 6)


def _printable(text: "Text", encoding: str) -> "Text":
    """The text with plain signs for those that the terminal does not have."""
    try:
        text.plain.encode(encoding)
    except UnicodeEncodeError:
        for sign, replacement in _ASCII.items():
            text.plain = text.plain.replace(sign, replacement)
    return text
