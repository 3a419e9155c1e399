"""Labels that look wrong to a trained network, by the rule of confident learning (arXiv 1911.00068)."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.config.schema.data import OnBadImage
from cnntrain.data.build import convert_channels, resize_batch
from cnntrain.data.common import positions
from cnntrain.data.loaders import Loader, MemoryLoader
from cnntrain.data.unlabelled import FileDecoder, stream
from cnntrain.inspect.doctor.findings import LABEL, Entry, Finding
from cnntrain.inspect.doctor.look import Looks
from cnntrain.inspect.doctor.subject import Part, Subject
from cnntrain.text import percent, printable
from cnntrain.training.job import Job

SURE = 0.5  # the least probability of the class that the network sees in place of the label
ADVICE = "look at them: the network is sure of another"


def find_wrong_labels(
    subject: Subject, looks: Looks, job: Job, *, start: Callable[[int], object], advance: Callable[[int], None]
) -> list[Finding]:
    """The images whose label the network does not believe, those first that it believes least; empty: none.

    It is sure of another class: the probability of that is above one half, and no lower than the mean that it gives to
    that class where it is the label.

    Args:
        subject, looks: the images; those that cannot be decoded are passed over.
        job: the network; its data need hold no images.
        start: takes how often `advance` will be called.
        advance: takes the number of images of each micro-batch.

    Raises:
        DataError: a class that the network does not know.
    """
    classes = job.data.classes
    places = positions(subject.classes, classes)
    good: NDArray[np.bool_] = np.ones(len(looks.rows), np.bool_)
    good[[*looks.faults]] = False
    rows = looks.rows[good]
    labels = torch.from_numpy(subject.labels[rows])
    labels = labels if places is None else places[labels]
    loaders = [
        _loader(part, rows[subject.splits[rows] == number] - subject.start(number), job)
        for number, part in enumerate(subject.parts)
        if (subject.splits[rows] == number).any()
    ]
    start(sum(map(len, loaders)))
    said, best, seen = _ask(loaders, labels, job, advance)
    sums = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, labels, said.double())
    usual = sums / labels.bincount(minlength=len(classes)).clamp_min(1)
    wrong = ((seen != labels) & (best >= usual[seen]) & (best > SURE)).nonzero().flatten()
    wrong = wrong[said[wrong].argsort(stable=True)]
    entries = [
        Entry(int(rows[place]), note=f"{percent(float(best[place]))} {printable(classes[int(seen[place])])}")
        for place in wrong.tolist()
    ]
    return [Finding(LABEL, "labels that look wrong", len(entries), ADVICE, entries)] if entries else []


def _loader(part: Part, rows: NDArray[np.int64], job: Job) -> Loader:
    """Some images of a part as validation sees them, in their order."""
    data, settings, chosen = job.data, job.settings.data, torch.from_numpy(rows)
    if part.paths:
        decoder = FileDecoder(part.paths.take(chosen), data.view(data.eval_size), data.channels, OnBadImage.skip)
        return stream(decoder, data.batch_size, settings, job.device)
    assert part.pixels is not None
    pixels = resize_batch(convert_channels(part.pixels[chosen], data.channels), data.eval_size, data.interpolation)
    options = {"batch_size": data.batch_size, "device": job.device, "seed": 0}
    return MemoryLoader(pixels, part.labels[chosen], train=False, resident=job.device.type == "cpu", **options)


def _ask(
    loaders: list[Loader], labels: Tensor, job: Job, advance: Callable[[int], None]
) -> tuple[Tensor, Tensor, Tensor]:
    """The probability of each label, that of the most probable class, and which that is; each (N,)."""
    scorer, parts, done = job.scorer(), [], 0
    for loader in loaders:
        for answer in scorer.answers(loader, advance=advance):
            probabilities = (answer.logits / job.temperature).softmax(1).cpu()
            own = labels[done : done + len(probabilities)]
            done += len(probabilities)
            parts.append((probabilities.gather(1, own.unsqueeze(1)).squeeze(1), *probabilities.max(1)))
    said, best, seen = (torch.cat(values) for values in zip(*parts, strict=True))
    return said, best, seen
