"""The network behind the page: what it answers to one picture, and what it sees there."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnntrain.data.decode import decode_image
from cnntrain.data.labels import is_sets
from cnntrain.errors import CheckpointError, CnntrainError, DataError
from cnntrain.evaluation.prediction import Reading
from cnntrain.inspect.explain import feature_maps, features, filters, gradcam
from cnntrain.inspect.explain.subject import NotApplicable, Subject, at_rest, spread
from cnntrain.play import sprite
from cnntrain.play.change import Change
from cnntrain.plots.sheet import rgb
from cnntrain.runtime.reporter import Teller
from cnntrain.storage import checkpoint
from cnntrain.storage.manifest import MANIFEST
from cnntrain.storage.run_record import is_done
from cnntrain.text import printable
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job
from cnntrain.training.load_state import load_weights

BARS = 10  # classes of an answer
MAPS, FILTERS, COLUMNS = 32, 64, 8  # tiles of a mosaic
SAMPLES = 12  # images of the run that are shown beside each other
INK = 0.25  # of the way from ground to ink, from which on a pixel is part of a drawing
USUAL_FILL = 0.7  # as digits fill the frame of MNIST


@dataclass(frozen=True)
class Sample:
    """An image of the run: uint8 (C, S, S) on the CPU, and the names of its own classes."""

    image: Tensor
    labels: tuple[str, ...]


class Network:
    """A trained network, or the newest save of one that is being trained. It is for one thread at a time.

    Args:
        run: a run folder, the folder of a checkpoint or its state.pt.
        overrides: of the run's config.
        report: is told progress and warnings.
    """

    def __init__(self, run: Path, overrides: Sequence[str], report: Teller) -> None:
        self.note = self._lack = ""
        newest = run / "checkpoints" / "last"
        self._followed = newest if newest.is_dir() and not is_done(run) else None
        self._mark = _mark(newest)  # before the weights: those of a save in between are taken at the next look
        self._folder, self._state, self._job = self._load(self._followed or run, overrides, report)
        data = self._job.data
        self._names = [printable(name) for name in data.classes]
        self.samples = _samples(self._job, self._names)
        self.blank = torch.zeros(data.channels, data.eval_size, data.eval_size, dtype=torch.uint8)
        self.layers: list[feature_maps.Layer] = []
        self._filters: tuple[str, str] | None = None
        with at_rest(self._job.model, self._job.device):
            subject = self._subject(self.blank)
            with suppress(NotApplicable):
                self.layers = feature_maps.map_layers(self._job.model, subject.inputs)

    def _load(self, run: Path, overrides: Sequence[str], report: Teller) -> tuple[Path, dict[str, Any], Job]:
        """With the images of the run where they are to be had: without them one can still draw."""
        try:
            return load_job(run, overrides, report, command="play")
        except DataError as error:
            self.note = self._lack = f"without the images of the run: {error}"
            report.warn(self.note)
            return load_job(run, overrides, report, images=False, command="play")

    @property
    def classes(self) -> list[str]:
        """The names of its classes, fit to be shown."""
        return self._names

    @property
    def epochs(self) -> int:
        """How many the run was meant to train."""
        return self._job.settings.trainer.epochs

    # --- what is asked once, and after each save -----------------------------------------------------------------

    @property
    def stamp(self) -> str:
        """Which weights answer: other ones have another stamp."""
        return f"{self._state['progress']['step']}-{self._mark}"

    @property
    def weights(self) -> str:
        """Which weights answer, in words."""
        progress = self._state["progress"]
        if self._folder.name == "best":
            return f"best epoch {progress['best_epoch']:,} of {self.epochs:,}"
        word = {"last": "last save", "previous": "the save before the last"}.get(self._folder.name, "a save")
        epoch = progress["epoch"] + (progress["batch"] > 0)
        return f"{word}: epoch {epoch:,}, step {progress['step']:,}"

    def refresh(self) -> bool:
        """Take the weights of a newer save, where the run has written one; whether it has."""
        if self._followed is None or _mark(self._followed) == self._mark:
            return False
        mark = _mark(self._followed)
        if not mark:  # it is being replaced: the next look finds it whole
            return False
        self._mark = mark  # what cannot be read is not read again and again
        try:
            state = checkpoint.load(self._followed)
            if state["about"]["run_id"] != self._state["about"]["run_id"]:
                raise CheckpointError("another run has taken this folder; start `cnntrain play` again")
            load_weights(self._job.model, state["ema"]["model"] if state["ema"] else state["model"])
        except CnntrainError as error:
            self.note = f"the newest save is not shown: {error}" if _mark(self._followed) == mark else self.note
            return False
        self._state, self._filters, self.note = state, None, self._lack
        self._job = replace(self._job, thresholds=state["progress"].get("thresholds"))
        return True

    def about(self) -> dict[str, Any]:
        """What the page says of the network, and needs to know of its images."""
        data, settings = self._job.data, self._job.settings
        ground = _ground(data.mean)
        return {
            "title": printable(f"{settings.model.heading} on {settings.data.heading}"),
            "parameters": self._job.parameters,
            "classes": self._names,
            "channels": data.channels,
            "size": data.eval_size,
            "ground": ground,
            "fill": _fill(self.samples, ground) if data.channels == 1 else 1.0,
            "layers": [{"name": layer.name, "about": printable(layer.describe())} for layer in self.layers],
            "shown": feature_maps.first_map(self.layers).name if self.layers else "",
            "follows": self._followed is not None,
            "weights": self.weights,
            "note": self.note,
            "images": len(self.samples),
        }

    def first_filters(self) -> dict[str, str] | None:
        """The filters that meet the pixels, and what they are; None where there are none."""
        with at_rest(self._job.model, self._job.device):
            if self._filters is None:
                subject = self._subject(self.blank)
                try:
                    name, layer = filters.first_layer(subject)
                except NotApplicable:
                    return None
                weights = filters.weights_of(layer, tuple(subject.images.shape[1:]))
                tiles = [filters.filter_tile(one) for one in weights[:FILTERS]]
                about = f"{_some(len(tiles), len(weights))} filters of {name}, {_size(weights)} weights each"
                self._filters = sprite.mosaic(tiles, min(COLUMNS, len(tiles))), about
            return {"picture": self._filters[0], "about": self._filters[1]}

    def answers(self) -> list[dict[str, Any]]:
        """What the network says of the samples as they are."""
        if not self.samples:
            return []
        with at_rest(self._job.model, self._job.device), torch.no_grad():
            subject = self._subject(torch.stack([sample.image for sample in self.samples]))
            shares = subject.reading.probabilities(self._job.model(subject.inputs).float()).cpu()
        given = subject.reading.decide(shares)
        found = []
        for sample, own, said in zip(self.samples, shares, given, strict=True):
            sure = bool(own.isfinite().all())
            places = (said.nonzero().flatten().tolist() if is_sets(given) else [int(said)]) if sure else []
            names = [self._names[place] for place in places]
            found.append(
                {
                    "picture": sprite.picture(rgb(sample.image)),
                    "labels": list(sample.labels),
                    "given": names,
                    "share": float(own[places].min()) if places else None,
                    "right": sure and set(names) == set(sample.labels),
                }
            )
        return found

    # --- what is asked of one picture ----------------------------------------------------------------------------

    def view(self, content: bytes) -> Tensor:
        """An image file as the network's validation sees it: uint8 (C, S, S).

        Raises:
            BadImage: it is none.
        """
        data = self._job.data
        return data.view(data.eval_size)(decode_image(content, data.channels)).permute(2, 0, 1).contiguous()

    def look(self, image: Tensor, change: Change, layer: str = "", label: int | None = None) -> dict[str, Any]:
        """What the network answers to a changed image (C, S, S), and what it sees there.

        Args:
            layer: whose maps are shown.
            label: the class for which the evidence is shown; None: the most probable one.
        """
        changed = change.of(image)
        with at_rest(self._job.model, self._job.device):
            model, subject = self._job.model, self._subject(changed)
            with torch.no_grad():
                shares = subject.reading.probabilities(model(subject.inputs).float())
            given = subject.reading.decide(shares)[0]
            names = self._names
            best = shares[0].topk(min(BARS, len(names)))
            label = int(best.indices[0]) if label is None else label
            places = best.indices.tolist()
            if len(places) == len(names):  # all are shown: each keeps its place while one drags
                places.sort()
            maps = self._maps(subject, layer)
            heat = self._heat(subject, label)
            stamp = self.stamp
        sure = bool(torch.isfinite(best.values).all())
        return {
            "stamp": stamp,
            "finite": sure,
            "answers": [
                {"class": names[place], "share": share, "given": bool(given[place] if given.dim() else given == place)}
                for place, share in zip(places, shares[0, places].tolist(), strict=True)
            ]
            if sure
            else [],
            "seen": sprite.picture(rgb(changed)),
            "maps": maps,
            "heat": heat,
            "label": names[label],
        }

    def _maps(self, subject: Subject, name: str) -> dict[str, str] | None:
        layer = next((one for one in self.layers if one.name == name), None)
        if layer is None:
            return None
        maps = feature_maps.maps_of(subject.model, subject.inputs, [name])[name].float()
        chosen = maps[0, features.choose_channels(maps, MAPS)]
        signed, largest = bool((chosen < 0).any()), chosen.abs().amax((1, 2)).tolist()
        tiles = [features.map_tile(one, most, signed) for one, most in zip(chosen, largest, strict=True)]
        scale = "red: its pattern, blue: its opposite" if signed else "bright: its pattern"
        about = f"{_some(len(tiles), layer.channels)} maps of {layer.height} x {layer.width}; {scale}"
        return {"picture": sprite.mosaic(tiles, min(COLUMNS, len(tiles))), "about": about}

    def _heat(self, subject: Subject, label: int) -> str | None:
        """Grad-CAM of a class laid over the image; None where the network has none."""
        if not self.layers:
            return None
        ranks = torch.tensor([[label]], device=self._job.device)
        try:
            found = gradcam.grad_cam(
                subject.model, subject.inputs, feature_maps.last_map(self.layers).name, ranks, subject.reading
            )
        except NotApplicable:
            return None
        size = subject.images.shape[3]
        heat = gradcam.enlarge(found[0].heat.nan_to_num(), size)[0]
        return sprite.picture(gradcam.overlay(rgb(subject.images[0]), heat))

    def _subject(self, images: Tensor) -> Subject:
        """The network beside some images, uint8 (C, S, S) or (N, C, S, S)."""
        images = images.reshape(-1, *images.shape[-3:]).to(self._job.device)
        reading, names = Reading.of(self._job), list(self._job.data.classes)
        return Subject(self._job.model, self._job.normalize, names, images, [None] * len(images), [], "", reading)


def _samples(job: Job, names: Sequence[str]) -> list[Sample]:
    """Images of the split that validates, else of the test split, spread over the classes."""
    split = job.data.val or job.data.test
    if split is None:
        return []
    places = spread(split.labels, min(SAMPLES, len(split.labels)))
    labels = split.labels[places]
    images = split.pick(places).cpu()
    owns = (
        [own.nonzero().flatten().tolist() for own in labels] if is_sets(labels) else [[one] for one in labels.tolist()]
    )
    return [Sample(image, tuple(names[one] for one in own)) for image, own in zip(images, owns, strict=True)]


def _ground(mean: Sequence[float]) -> int:
    """The grey that a drawing begins with: of images that are mostly dark black, else white."""
    return 0 if sum(mean) / len(mean) < 0.5 else 255


def _fill(samples: Sequence[Sample], ground: int) -> float:
    """The part of the frame that the longer side of what is drawn takes, 0..1, as the images of the run have it."""
    sides = []
    for sample in samples:
        ink = (sample.image[0].float() - ground).abs() > INK * 255
        rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
        if len(rows):
            longer = max(int(found[-1] - found[0]) + 1 for found in (rows, columns))
            sides.append(longer / sample.image.shape[1])
    return sum(sides) / len(sides) if sides else USUAL_FILL


def _mark(folder: Path) -> str:
    """What changes whenever a checkpoint is replaced; empty where there is none."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return ""
    return f"{status.st_ino}-{status.st_mtime_ns}"


def _some(shown: int, count: int) -> str:
    return f"all {count:,}" if shown == count else f"{shown} of {count:,}"


def _size(weights: Tensor) -> str:
    return " x ".join(map(str, weights.shape[2:]))
