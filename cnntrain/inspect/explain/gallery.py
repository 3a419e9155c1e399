"""The folder of the pictures, and its page in TensorBoard."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cnntrain.errors import ConfigError
from cnntrain.storage.atomic import file_system_error, write_atomic
from cnntrain.text import printable

STEP = "cnntrain step"  # the entry of a PNG file that says which checkpoint it shows
EVENTS, OURS = "events.out.tfevents.*", ".explain"  # event files, and the end of the names of our own
WORD = "out=DIR"  # which chooses another folder


class Gallery:
    """Writes pictures as PNG files; a picture of the same name is replaced.

    TensorBoard's copies lie in an event file of this folder, not in that of the run: TensorBoard would no longer read
    what a run in progress writes once a newer file lies beside it.

    Args:
        folder: made if it is not there.
        step: of the checkpoint that is explained.

    Raises:
        ConfigError: it holds event files of something else, such as a run.
        FileSystemError: it cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_system_error(folder, error, what="the folder cannot be made", word=WORD) from error
        if any(not file.name.endswith(OURS) for file in folder.glob(EVENTS)):
            raise ConfigError(f"out: {printable(folder)} holds TensorBoard files of something else; write {WORD}")

    def add(self, name: str, picture: Image.Image) -> Path:
        """Write a picture; whatever letters the name has, the file's are letters, digits, dots, dashes and _."""
        path = self.folder / (re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100] + ".png")
        entry, content = PngInfo(), io.BytesIO()
        entry.add_text(STEP, str(self.step))
        picture.save(content, "PNG", pnginfo=entry)
        write_atomic(path, content.getvalue(), word=WORD)
        return path

    def show(self) -> None:
        """Give TensorBoard all pictures of the folder, those of earlier calls too, each at its step."""
        from cnntrain.report.tensorboard import TensorBoardLog

        for old in self.folder.glob(EVENTS + OURS):
            old.unlink()
        log = TensorBoardLog(self.folder, suffix=OURS)
        for path in sorted(self.folder.glob("*.png")):
            with contextlib.suppress(OSError, SyntaxError), Image.open(path) as picture:  # another's may be broken
                step = str(picture.info.get(STEP, ""))
                if step.isdecimal():  # else none of ours
                    log.picture(f"explain/{path.stem}", np.asarray(picture), int(step))
        log.close()
