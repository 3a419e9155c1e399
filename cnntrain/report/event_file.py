"""An event file of TensorBoard, written at once and by the thread that tells.

TensorBoard's own writer works in a thread of its own, which prints a traceback where the disk is full or the folder is
gone, and opens the file anew for each event.
"""

import contextlib
import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

_numbers = itertools.count()  # files of one second are read in the order of their names


class EventFile:
    """A new file in a folder; whatever `add` has written outlives the process.

    Args:
        suffix: the end of its name.
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        parts = f"{time.time():.0f}", socket.gethostname(), str(os.getpid()), f"{next(_numbers):04}"
        self.path = folder / f"events.out.tfevents.{'.'.join(parts)}{suffix}"
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        self.add(file_version="brain.Event:2")

    def add(self, **content: Any) -> None:
        """Write an event.

        Args:
            content: fields of TensorBoard's Event, such as `step` and `summary`.

        Raises:
            OSError: it names the file, which ends with the event before.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **content).SerializeToString())
        size = os.fstat(self._handle).st_size
        try:
            rest = record.getvalue()
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, size)
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self.path)) from None

    def hide_from(self, step: int) -> None:
        """Make TensorBoard forget what earlier files of the folder hold of this step and later ones."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self.add(step=step, session_log=SessionLog(status=SessionLog.START))

    def close(self) -> None:
        """No more events; more than once is fine."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
