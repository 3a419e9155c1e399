"""What a network looks like while it trains: first filters, activations and answers to a few images, epoch by epoch.

As the pages of ConvNetJS show it, for TensorBoard's page IMAGES.
"""

import math
import time
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.evaluation.prediction import Reading
from cnntrain.inspect.explain import feature_maps, filters
from cnntrain.inspect.explain.features import map_tile
from cnntrain.inspect.explain.subject import NotApplicable, Subject, at_rest, known_labels, spread
from cnntrain.plots.answer import answer_tile
from cnntrain.plots.drawing import wrap
from cnntrain.plots.sheet import GAP, LONGEST_LABEL, SMALL, Rgb, Row, Sheet, Tile, rgb
from cnntrain.report.augmentation import class_name, label_names
from cnntrain.report.run_report import Report
from cnntrain.report.tensorboard import TensorBoardLog
from cnntrain.training.job import TrainJob
from cnntrain.training.multi_label import USUAL_THRESHOLD

SHARE = 0.02  # of the time trained so far that the pictures may cost
IMAGES, CLASSES, MAPS, FILTERS = 6, 3, 16, 32  # most that are shown: images, of each its classes, of a layer its maps
SIDE, COLORS = 128, 256  # pixels of a tile; colours of a picture
MOST = 50  # pictures of a run that shares its epochs out among them


class LiveView:
    """Draws the network after an epoch: after the first and the last one always, between them as time and room allow.

    The training goes on as if nobody had looked: modes and random streams are put back.
    """

    def __init__(self, job: TrainJob, report: Report) -> None:
        self._job, self._report = job, report
        self._spent, self._cost = 0.0, 0.0  # seconds: of the pictures between, and of the last ones drawn
        self._every = math.ceil(job.trainer.epochs / MOST)
        self._subject: Subject | None = None
        self._layers: list[feature_maps.Layer] = []

    def __call__(self, model: nn.Module, epoch: int, seconds: float, is_last: bool) -> None:
        """Look at the network after an epoch.

        Args:
            model: maps float32 (N, C, S, S) to logits (N, K); the same one each time.
            epoch: counted from 1.
            seconds: trained so far.
        """
        is_first = self._cost == 0
        has_time = self._spent + self._cost <= SHARE * seconds and epoch % self._every == 0
        if not (is_first or is_last or has_time):
            return
        start = time.perf_counter()
        self._report.draw("live view of the network", lambda log, step: self._draw(log, step, model, epoch))
        self._cost = time.perf_counter() - start
        self._spent += 0 if is_first else self._cost

    def _draw(self, log: TensorBoardLog, step: int, model: nn.Module, epoch: int) -> None:
        with at_rest(model, self._job.device):
            subject = self._subject or self._prepare(model)
            log.picture("live/network", np.asarray(self._sheet(subject, epoch).draw()), step, colors=COLORS)
            try:
                picture = filters.picture(subject, FILTERS)
            except NotApplicable:
                return
            log.picture("live/filters", np.asarray(picture), step, colors=COLORS)

    def _prepare(self, model: nn.Module) -> Subject:
        """Choose images, of the validation split where there is one, and layers."""
        data = self._job.data
        loader = data.val or data.probe or data.train
        indices = spread(loader.labels, min(IMAGES, len(loader.labels)))
        classes, labels = [class_name(name) for name in data.classes], loader.labels[indices]
        names, about = label_names(labels, classes), self._job.settings.heading
        reading = Reading.of(self._job)
        images, own = loader.pick(indices), known_labels(labels)
        subject = Subject(model, self._job.normalize, classes, images, own, names, about, reading)
        with suppress(NotApplicable):
            self._layers = feature_maps.stages(feature_maps.map_layers(model, subject.inputs))
        self._subject = subject
        return subject

    def _sheet(self, subject: Subject, epoch: int) -> Sheet:
        """A row for each image: the image, its most probable classes, and the maps of some layers."""
        maps = feature_maps.maps_of(subject.model, subject.inputs, [layer.name for layer in self._layers])
        with torch.no_grad():
            probabilities = subject.reading.probabilities(subject.model(subject.inputs).float())
        best = probabilities.topk(min(CLASSES, len(subject.classes)))
        columns = [_mosaics(maps[layer.name][:, :MAPS].float()) for layer in self._layers]
        given = USUAL_THRESHOLD if self._job.data.multi_label else None
        rows = []
        for index, image in enumerate(subject.images):
            found = zip(best.indices[index].tolist(), best.values[index].tolist(), strict=True)
            own, name = subject.labels[index], [subject.names[index]]
            if isinstance(own, frozenset):
                name = wrap(subject.names[index], LONGEST_LABEL - GAP, SMALL)
            true = own if isinstance(own, frozenset) else {own}
            answers = [(subject.classes[label], share, label in true) for label, share in found]
            tiles = [rgb(image), answer_tile(answers, SIDE, given), *(column[index] for column in columns)]
            rows.append(Row(name, [Tile(tile) for tile in tiles]))
        heads = [(layer.name, f"{layer.channels:,} of {layer.height}x{layer.width}") for layer in self._layers]
        note = "Bars: the most probable classes, blue where right."
        if given is not None:
            note = (
                "Bars: the most probable classes, blue where the image has them, red where the network alone says so."
            )
        if self._layers:
            note += (
                f" Then up to {MAPS} maps of each layer, on one scale: bright, or red, where a filter has found its "
                "pattern; blue: its opposite."
            )
        title = f"Answers and activations after epoch {epoch}"
        return Sheet(title, [note], subject.about, rows, SIDE, [("image",), ("answer",), *heads])


def _mosaics(maps: Tensor) -> list[Rgb]:
    """The maps (N, channels, H, W) of each image side by side, all of them on one scale."""
    count, height, width = maps.shape[1:]
    columns = math.ceil(math.sqrt(count))
    lines = math.ceil(count / columns)
    room = 0, 1, 0, 1, 0, lines * columns - count  # white to the right of each map and below it, and in empty places

    def lay_out(values: Tensor) -> Tensor:
        cells = functional.pad(values, room).unflatten(1, (lines, columns))
        return cells.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :-1, :-1]

    largest, signed = float(maps.abs().max()), bool((maps < 0).any())
    is_map = lay_out(torch.ones(1, count, height, width, dtype=torch.bool))[0].unsqueeze(2).numpy()
    return [np.where(is_map, map_tile(one, largest, signed), np.uint8(255)) for one in lay_out(maps.cpu())]
