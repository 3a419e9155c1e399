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

from cnntrain.config.schema.scores import MAIN
from cnntrain.evaluation.precision_recall import Curve
from cnntrain.report.event_file import EventFile
from cnntrain.runtime.stopwatch import PHASES
from cnntrain.text import printable

# The charts of each page of CUSTOM SCALARS, with the tags of their curves. The probe is training images unaugmented.
LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "Is it learning?": {
        "loss: training, probe, validation": ("train/loss", "probe/loss", "val/loss"),
        "top-1: training, probe, validation": ("train/top1", "probe/top1", "val/top1"),
        "learning rate": ("train/lr",),
        "norm of the gradient": ("train/grad_norm",),
    },
    "How fast?": {
        "training images per second": ("train/images_per_second",),
        "share of the time spent waiting for images": ("train/data_wait",),
        "seconds per epoch, validation included": ("epoch/seconds",),
        "where the seconds of an epoch go": tuple(f"time/{phase}" for phase in PHASES),
    },
}
# The chart that stands in the place of another one where the labels of an image are a set.
SET_CHARTS = {"top-1: training, probe, validation": ("mAP: probe, validation", ("probe/map", "val/map"))}


class TensorBoardLog:
    """Writes scalars, pictures, the graph and the hyperparameters of one run.

    Every method may fail, in many ways; who asks decides what that is worth. After an OSError no more is written.

    Args:
        resume_step: hide what was written for later steps, as it will be trained again; None: hide all of it.
        suffix: the end of the name of the event file.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None, suffix: str = "") -> None:
        self.folder = folder
        used = any(folder.glob("events.out.tfevents.*"))
        self._events = EventFile(folder, suffix)
        if resume_step is not None or used:
            self._events.hide_from(0 if resume_step is None else resume_step + 1)

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        """All values of a step in one event, which costs a seventh of an event for each; None is left out."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values_of_step = [
            Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None
        ]
        self._events.add(summary=Summary(value=values_of_step), step=step)

    def picture(self, tag: str, image: NDArray[np.uint8], step: int, *, colors: int | None = None) -> None:
        """An RGB picture (H, W, 3), as PNG.

        Args:
            colors: at most so many, up to 256, which makes a file of a third of the size; None: all.
        """
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        picture, content = Image.fromarray(image), io.BytesIO()
        if colors:
            picture = picture.quantize(colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        picture.save(content, "PNG")
        height, width, _ = image.shape
        encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content.getvalue())
        self._events.add(summary=Summary(value=[Summary.Value(tag=tag, image=encoded)]), step=step)

    def curve(self, tag: str, curve: Curve, step: int) -> None:
        """Precision against recall."""
        from torch.utils.tensorboard.summary import pr_curve_raw

        summary = pr_curve_raw(tag, *curve.counts, curve.precision, curve.recall, num_thresholds=len(curve.recall))
        self._events.add(summary=summary, step=step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """A text for the TEXT page."""
        from torch.utils.tensorboard.summary import text as as_summary

        self._events.add(summary=as_summary(tag, markdown), step=step)

    def graph(self, model: nn.Module, images: torch.Tensor) -> None:
        """Trace the model on images (N, C, S, S).

        Traced in evaluation mode, so that neither batch statistics nor random streams move.
        """
        from tensorboard.compat.proto.config_pb2 import RunMetadata
        from tensorboard.compat.proto.event_pb2 import TaggedRunMetadata
        from tensorboard.compat.proto.graph_pb2 import GraphDef
        from tensorboard.compat.proto.step_stats_pb2 import DeviceStepStats, StepStats
        from tensorboard.compat.proto.versions_pb2 import VersionDef
        from torch.utils.tensorboard._pytorch_graph import parse

        modes = [(module, module.training) for module in model.modules()]
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
                warnings.simplefilter("ignore")
                # Torch's own function of this name has the trace compared with the model, and loads modules for half a
                # second to do so.
                trace = torch.jit.trace(model.eval(), images, check_trace=False)
                traced = trace.graph
                torch._C._jit_pass_inline(traced)
                nodes = GraphDef(node=parse(traced, trace, images), versions=VersionDef(producer=22))
        finally:
            for module, training in modes:
                module.training = training
        # TensorBoard shows a graph with the device of its first step alone.
        statistics = RunMetadata(step_stats=StepStats(dev_stats=[DeviceStepStats(device="/device:CPU:0")]))
        self._events.add(graph_def=nodes.SerializeToString())
        self._events.add(
            tagged_run_metadata=TaggedRunMetadata(tag="step1", run_metadata=statistics.SerializeToString())
        )

    def layout(self, step: int, score: str = MAIN[0]) -> None:
        """The pages of CUSTOM SCALARS: the same in all runs that one score judges, as TensorBoard joins them."""
        from torch.utils.tensorboard.summary import custom_scalars

        replaced = {} if score == MAIN[0] else SET_CHARTS
        charts = {}
        for page, panels in LAYOUT.items():
            shown = dict(replaced.get(title, (title, tags)) for title, tags in panels.items())
            charts[page] = {title: ["Multiline", [f"^{tag}$" for tag in tags]] for title, tags in shown.items()}
        self._events.add(summary=custom_scalars(charts), step=step)

    def hparams(self, settings: dict[str, Any], scores: dict[str, float], step: int) -> None:
        """Settings (nested) and final scores for the HPARAMS page, in this run and not in a run below it.

        TensorBoard takes the columns from the first run that names any, and would neither join those of all runs nor
        put first what differs. So none does, as torch's own writer would: it then looks for them in the settings of
        all runs. It shows five scores, the first by their names: no other tag comes before `best/`.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

        start = SessionStartInfo()
        for key, setting in flatten(settings).items():
            kind = "string" if isinstance(setting, str) else "bool" if isinstance(setting, bool) else "number"
            setattr(start.hparams[key], f"{kind}_value", setting)
        parts = {
            metadata.SESSION_START_INFO_TAG: HParamsPluginData(session_start_info=start),
            metadata.SESSION_END_INFO_TAG: HParamsPluginData(
                session_end_info=SessionEndInfo(status=Status.Value("STATUS_SUCCESS"))
            ),
        }
        for tag, data in parts.items():
            described = metadata.create_summary_metadata(data)
            value = Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
            self._events.add(summary=Summary(value=[value]))
        self.scalars({f"best/{key}": value for key, value in scores.items()}, step)

    def close(self) -> None:
        self._events.close()


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """`{"model": {"name": "cnn"}}` as `{"model.name": "cnn"}`; lists and null as text."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else str(value or "none")
            flat[prefix + key] = value if isinstance(value, (bool, int, float)) else printable(text)
    return flat
