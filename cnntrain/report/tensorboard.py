"""The TensorBoard side of a run: an event file in the run folder itself, so that a run is named by its folder."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

FLUSH_SECONDS = 5  # what a killed run can lose


class TensorBoardLog:
    """Writes scalars, pictures, the graph and the hyperparameters of one run.

    Args:
        resume_step: hide what was written for later steps, as it will be trained again; None: hide all of it.
        suffix: the end of the name of the event file.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None, suffix: str = "") -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds to import

        used = any(folder.glob("events.out.tfevents.*"))
        purge_step = resume_step + 1 if resume_step is not None else (0 if used else None)
        self._writer = SummaryWriter(
            str(folder), purge_step=purge_step, flush_secs=FLUSH_SECONDS, filename_suffix=suffix
        )

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        """All values of a step in one event, which costs a seventh of an event for each; None is left out."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        known = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None]
        self._event_file.add_summary(Summary(value=known), step)

    def picture(self, tag: str, image: NDArray[np.uint8], step: int) -> None:
        """An RGB picture (H, W, 3)."""
        self._writer.add_image(tag, image, step, dataformats="HWC")

    def text(self, tag: str, markdown: str, step: int) -> None:
        """A text for the TEXT page."""
        self._writer.add_text(tag, markdown, step)

    def graph(self, model: nn.Module, images: torch.Tensor) -> str:
        """Trace the model on images (N, C, S, S); answers why that failed, or "".

        Traced in evaluation mode, so that neither batch statistics nor random streams move.
        """
        modes = [(module, module.training) for module in model.modules()]
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
                warnings.simplefilter("ignore")
                self._writer.add_graph(model.eval(), images)
        except Exception as error:  # the tracer fails in many ways, and a picture is not worth a run
            return (str(error).strip().splitlines() or [type(error).__name__])[0]
        finally:
            for module, training in modes:
                module.training = training
        return ""

    def hparams(self, settings: dict[str, Any], scores: dict[str, float], step: int) -> None:
        """Settings (nested) and final scores for the HPARAMS page, in this run and not in a run below it."""
        from torch.utils.tensorboard.summary import hparams

        finals = {f"final/{key}": value for key, value in scores.items()}
        for summary in hparams(flatten(settings), finals):
            self._event_file.add_summary(summary)
        self.scalars(dict(finals), step)
        self.flush()

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    @property
    def _event_file(self) -> Any:
        return self._writer.file_writer


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """`{"model": {"name": "cnn"}}` as `{"model.name": "cnn"}`; lists and null as text."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str)) else str(value or "none")
    return flat
