"""The images of a data set of the Hugging Face hub, as undecoded files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnntrain.data.decode import BadImage, read_file
from cnntrain.data.paths import Paths
from cnntrain.text import one_line


class HubImages:
    """The images of all splits; it may be sent to another process, which maps the same files into memory.

    Args:
        sets: of each split a datasets.Dataset of one column.
        column: its name; an image there is a record of its bytes, or of the path of a file.
    """

    def __init__(self, sets: Mapping[str, Any], column: str) -> None:
        self._sets, self._column = sets, column

    def read(self, split: str, row: int) -> bytes:
        """The content of an image; BadImage where there is none."""
        try:
            image = self._sets[split][row][self._column] or {}
        except Exception as error:  # of a cache that is damaged or gone, whatever Arrow raises
            raise BadImage(f"cannot be read ({one_line(error)})") from None
        if (content := image.get("bytes")) is not None:
            return bytes(content)
        if path := image.get("path"):
            return read_file(path)
        raise BadImage("there is no image in this row")

    def sizes(self, split: str) -> np.ndarray:
        """The bytes of each image, int64 (N,); 0 where there are none."""
        import pyarrow.compute

        table = self._sets[split].with_format("arrow")[:]
        contents, paths = (pyarrow.compute.struct_field(table.column(0), name) for name in ("bytes", "path"))
        lengths = pyarrow.compute.fill_null(pyarrow.compute.binary_length(contents), 0).to_numpy()
        sizes = np.array(lengths, dtype=np.int64)
        if contents.null_count:
            names = paths.to_pylist()
            for row in np.flatnonzero(sizes == 0).tolist():
                if names[row] and os.path.isfile(names[row]):
                    sizes[row] = os.path.getsize(names[row])
        return sizes


class HubPaths(Paths):
    """Images that are named by split and row, `train/17`.

    Args:
        root: the data set.
        images: all images of it.
        split, rows: which of them, int64 (N,).
    """

    cure = cure_of_many = "mend the data set"

    def __init__(self, root: Path, images: HubImages, split: str, rows: np.ndarray) -> None:
        names = [f"{split}/{row}".encode() for row in rows.tolist()]
        super().__init__(root, b"".join(names), np.cumsum([len(name) for name in names], dtype=np.int64))
        self._images = images

    def read(self, index: int) -> bytes:
        """See Paths."""
        split, _, row = self.relative(index).decode().partition("/")
        return self._images.read(split, int(row))
