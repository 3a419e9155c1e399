"""`cnntrain explain RUN_DIR_OR_CHECKPOINT`: pictures of what a trained network sees, and where it fails to."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from PIL import Image
from torch import Tensor, nn

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.run_commands import ExplainArgs
from cnntrain.data.loaders import Loader
from cnntrain.errors import ConfigError
from cnntrain.evaluation.prediction import Reading
from cnntrain.evaluation.split_scores import SPLIT_WORDS
from cnntrain.inspect.explain import excite, feature_maps, features, filters, gradcam, shift
from cnntrain.inspect.explain.gallery import WORD, Gallery
from cnntrain.inspect.explain.subject import (
    NotApplicable,
    Subject,
    at_rest,
    known_labels,
    read_files,
    spread,
)
from cnntrain.plots.sheet import Rgb
from cnntrain.report.augmentation import label_names
from cnntrain.report.run_report import Report
from cnntrain.storage.atomic import need_own_folder, write_atomic
from cnntrain.text import align_columns, counted, few, hint, nearest, printable, short_path
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job

MOST_SHIFTED = {True: 10_000, False: 2_000}  # images, small ones and large ones: each is run seventeen times


def run(args: ExplainArgs, config: RunConfig | None = None) -> dict[str, Any]:
    """Draw what `what` names, by default all that the network has what it takes for.

    Args:
        config: that of the run folder, where it is known.

    Returns:
        "checkpoint", "split", "pictures" (paths), "left_out" (part -> reason) and "shift" (a dict for each length).
    """
    report = Report(None, tensorboard=False)
    try:
        folder, state, job = load_job(args.run, args.words, report, config, command="explain")
        home = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
        step = state["progress"]["step"]
        with at_rest(job.model, job.device):
            explanation = _Explanation(args, job, step, report)
            gallery = Gallery(args.out or need_own_folder(home / "explain", word=WORD), step)
            results = explanation.run(gallery) | {"checkpoint": str(folder)}
        if job.settings.trainer.tensorboard:
            gallery.show()
            report.say(f"tensorboard --logdir {shlex.quote(short_path(gallery.folder))}", copied=True)
    finally:
        report.close()
    return results


class _Explanation:
    """One call: the network, its images, and what was made of them so far."""

    def __init__(self, args: ExplainArgs, job: Job, step: int, report: Report) -> None:
        self.args, self.job, self.report = args, job, report
        self.named = [_place(name, job.data.classes) for name in args.classes]
        split, self.loader = list(job.data.scored_splits.items())[-1]
        self.split = SPLIT_WORDS[split]
        self.subject = _subject(args, job, self.loader, step)
        self.results: dict[str, Any] = {"split": self.split, "pictures": []}
        self._find_layers()

    def run(self, gallery: Gallery) -> dict[str, Any]:
        """Draw one part after the other; a part that the network is not made for costs a line."""
        self.gallery = gallery
        left_out: dict[str, str] = {}
        parts: dict[str, Callable[[], None]] = {
            "filters": self._filters,
            "features": self._features,
            "excite": self._excite,
            "gradcam": self._gradcam,
            "shift": self._shift,
        }
        for name in self.args.what:
            try:
                parts[name]()
            except NotApplicable as fault:
                left_out[name] = str(fault)
        for reason in dict.fromkeys(left_out.values()):
            names = ", ".join(name for name in left_out if left_out[name] == reason)
            self.report.say(f"{names}: left out, {reason}")
        return self.results | {"left_out": left_out}

    def _find_layers(self) -> None:
        """The layers and channels that are shown, and their maps of the images; none where there are no maps."""
        self.layers: list[feature_maps.Layer] = []
        self.no_maps = ""
        if not {"features", "excite", "gradcam"} & set(self.args.what):
            return
        subject = self.subject
        try:
            self.all_layers = feature_maps.map_layers(subject.model, subject.inputs)
        except NotApplicable as reason:
            self.no_maps = str(reason)
            return
        self.layers = feature_maps.choose_layers(self.args.layers, self.all_layers, subject.model)
        self.maps = feature_maps.maps_of(subject.model, subject.inputs, [layer.name for layer in self.layers])
        count = self.args.filters or features.MOST
        self.channels = {name: features.choose_channels(maps, count) for name, maps in self.maps.items()}

    def _need_maps(self) -> None:
        if self.no_maps:
            raise NotApplicable(self.no_maps)

    def _keep(self, name: str, picture: Any) -> None:
        path = self.gallery.add(name, picture)
        self.results["pictures"].append(str(path))
        self.report.say(short_path(path), copied=True)

    def _filters(self) -> None:
        self._keep("filters", filters.picture(self.subject, self.args.filters))

    def _features(self) -> None:
        self._need_maps()
        for layer in self.layers:
            picture = features.picture(self.subject, layer, self.maps[layer.name], self.channels[layer.name])
            self._keep(f"features-{layer.name}", picture)

    def _excite(self) -> None:
        self._need_maps()
        loader, normalize = self.loader, self.job.normalize
        self.report.validating(len(loader), phase="excite")

        def inputs() -> Iterator[Tensor]:
            with closing(loader.batches()) as batches:
                for batch in batches:
                    yield normalize(batch.images)
                    self.report.advance(len(batch.labels))

        subject = self.subject
        peaks_of_layer = excite.most_exciting(subject.model, inputs(), self.channels, excite.BEST)
        fields = excite.receptive_fields(subject.model, subject.inputs, self.channels)
        for layer in self.layers:
            peaks = peaks_of_layer[layer.name]
            indices = peaks.images.flatten().cpu()
            picture = excite.picture(
                subject,
                layer,
                self.channels[layer.name],
                peaks,
                images=loader.pick(indices),
                labels=loader.labels[indices],
                split=f"{loader.images:,} {self.split}",
                field=fields[layer.name],
                filters=self._first_filters(layer),
            )
            self._keep(f"excite-{layer.name}", picture)

    def _first_filters(self, layer: feature_maps.Layer) -> list[Rgb]:
        """Pictures of the filters that gave a layer's maps, where these are those of the first convolution."""
        _, module = filters.first_layer(self.subject)
        is_first = layer.convolutions == 1 and isinstance(module, nn.Conv2d) and module.out_channels == layer.channels
        return filters.filter_tiles(module, self.channels[layer.name]) if is_first else []

    def _gradcam(self) -> None:
        self._need_maps()
        self._keep("gradcam", gradcam.picture(self.subject, feature_maps.last_map(self.all_layers), self.named))

    def _shift(self) -> None:
        loader, size = self.loader, self.job.data.image_size
        is_small = size < shift.SMALL_IMAGE
        groups = spread(loader.labels, min(loader.images, MOST_SHIFTED[is_small])).split(loader.batch_size)
        count = sum(map(len, groups))
        self.report.validating(len(groups), phase="shift")

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for indices in groups:
                yield loader.pick(indices), loader.labels[indices].to(self.job.device)
                self.report.advance(len(indices))

        pixels = shift.SHORT if is_small else shift.LONG
        subject = self.subject
        rows = shift.measure(subject.model, batches(), self.job.normalize, pixels, reading=subject.reading)
        chart = shift.draw(rows, count, self.split, subject.about)
        self._keep("shift", Image.fromarray(chart.pixels()))
        write_atomic(self.gallery.folder / "shift.svg", chart.content("svg"), word=WORD)
        write_atomic(self.gallery.folder / "shift.csv", shift.csv(rows), word=WORD)
        for line in align_columns(shift.table(rows)):
            self.report.say(line)
        self.results["shift"] = [vars(row) for row in rows]


def _place(name: str, classes: Sequence[str]) -> int:
    """That of a class among those of the network; ConfigError where it is none of them."""
    if name not in classes:
        near = hint(nearest(name, classes), f"there are {few(map(printable, classes))}")
        raise ConfigError(f"classes: the network knows no class {printable(name)!r}{near}")
    return classes.index(name)


def _subject(args: ExplainArgs, job: Job, loader: Loader, step: int) -> Subject:
    """The network with the images that were asked for."""
    data = job.data
    classes = [f"class {name}" if name.isdecimal() else name for name in data.classes]  # a bare 7 could mean anything
    labels: Sequence[int | frozenset[int] | None]
    if isinstance(args.images, int):
        indices = spread(loader.labels, min(args.images, loader.images))
        images = loader.pick(indices)
        labels = known_labels(loader.labels[indices])
        names = label_names(loader.labels[indices], classes)
    else:
        images = read_files(args.images, data.channels, data.view(data.image_size)).to(job.device)
        labels, names = [None] * len(images), [file.name for file in args.images]
    settings = job.settings
    about = f"{settings.model.heading} trained on {settings.data.heading} for {counted(step, 'step')}"
    return Subject(job.model, job.normalize, classes, images, labels, names, about, Reading.of(job))
