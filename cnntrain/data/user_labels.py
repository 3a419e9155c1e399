"""The labels of a data set of the user's: those that it keeps, or that its items tell, and the names of the classes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnntrain.data.decode import BadImage
from cnntrain.data.labels import LONGEST_LABEL, is_sets
from cnntrain.data.user_items import LABELS, Label, Look, Part, as_sets, attribute, misfit, numbers
from cnntrain.text import printable


def stored_labels(part: Part, look: Look) -> Tensor | None:
    """Labels, int64 (N,) or bool (N, K), that the data set keeps; None where it keeps none that its items confirm.

    Args:
        look: some of the items.
    """
    for key in LABELS:
        with suppress(Exception):  # anything may have such a name
            values = np.asarray(attribute(part.items, key))
            if part.has_sets:
                sets = as_sets(values)
                told = all(torch.equal(sets[index], torch.as_tensor(label)) for index, (_, label) in look.items())
                if told and sets.ndim == 2 and len(sets) == part.count:
                    return sets
            elif values.shape == (part.count,) and values.dtype.kind in "iub":
                labels = torch.from_numpy(values.astype(np.int64))
                if all(int(labels[index]) == label for index, (_, label) in look.items()):
                    return labels
    return None


def read_labels(part: Part, say: Callable[[str], object]) -> Tensor:
    """The labels of all items, each of which is read for it.

    Raises:
        ConfigError: an item fails, or has no label.
    """
    say(f"labels of {part.split}: read with all {part.count:,} items, as {part.name} has no `targets` that say them")
    try:
        labels = [part.label(index) for index in numbers(part.count, f"labels of {part.split}", say)]
    except BadImage as error:
        raise part.fault(str(error)) from error
    return stack_labels(part, labels)


def stack_labels(part: Part, labels: Sequence[Label]) -> Tensor:
    """Labels as one tensor, int64 (N,) or bool (N, K).

    Raises:
        ConfigError: sets of several lengths.
    """
    sets = [label for label in labels if isinstance(label, Tensor)]
    if not part.has_sets:
        return torch.tensor(labels)
    lengths = sorted({len(label) for label in sets})
    if len(lengths) > 1:
        what = f"gives labels of {lengths[0]} and of {lengths[1]} numbers in {part.split}"
        raise misfit(part.name, what, "give each image a 0 or 1 for each class")
    return torch.stack(sets)


def class_names(classes: Any, labels: Mapping[str, Tensor], name: str) -> list[str]:
    """The names of the classes: those of the data set, else its labels, counted from 0 without a gap of many.

    Args:
        labels: of each split, int64 (N,) or bool (N, K).
    """
    widths = sorted({values.shape[1] for values in labels.values() if is_sets(values)})
    if len(widths) > 1:
        what = f"gives labels of {widths[0]} and of {widths[1]} numbers"
        raise misfit(name, what, "give each image a 0 or 1 for each class")
    every = torch.tensor([widths[0] - 1]) if widths else torch.cat(list(labels.values()))
    largest = widths[0] if widths else len(every) - 1  # each class has an image, or nearly so
    if classes is None:
        names = [str(number) for number in range(min(int(every.max()), largest) + 1)]
    elif isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise misfit(name, f"has classes={classes!r}", "let classes be a list of names")
    else:
        names = [printable(str(one)) for one in classes]
    if len(set(names)) < len(names) or "" in names or max(map(len, names), default=0) > LONGEST_LABEL:
        what = "has classes without a name, of the same one, or of one that is too long"
        raise misfit(name, what, "give each class a short name of its own")
    if widths and len(names) != widths[0]:
        what = f"has {len(names):,} classes, and labels of {widths[0]:,} numbers"
        raise misfit(name, what, "give each image a 0 or 1 for each class")
    for split, values in labels.items() if not widths else ():
        if len(wrong := ((values < 0) | (values >= len(names))).nonzero()):
            index = int(wrong[0])
            what = f"gives label {int(values[index])} for item {index:,} of {split}, not one of 0..{len(names) - 1}"
            raise misfit(name, what, "count the classes from 0")
    return names
