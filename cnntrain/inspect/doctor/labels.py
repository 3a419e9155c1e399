"""Labels that look wrong, by the rule of confident learning (arXiv 1911.00068).

Who has an opinion of them is a trained network, or heads of which none has seen the image that it judges.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.config.schema.settings import Settings
from cnntrain.data.common import positions
from cnntrain.inspect.doctor.cross_validation import judge
from cnntrain.inspect.doctor.features import encode, find_encoder, loaders_of
from cnntrain.inspect.doctor.findings import LABEL, Entry, Finding
from cnntrain.inspect.doctor.look import Looks
from cnntrain.inspect.doctor.subject import Subject
from cnntrain.runtime.reporter import Reporter
from cnntrain.text import printable
from cnntrain.training.job import Job

SURE = 0.5  # the least probability of the class that is seen in place of the label
RELIABLE = 0.9  # share of labels that a judge confirms, below which most labels that it doubts are right
ADVICE = "look at them, the first of files.csv first"
WEAK = "some may be right; model.pretrained=true sees better"
WEAK_NETWORK = "some may be right; a better network sees better"


@dataclass(frozen=True)
class Opinions:
    """What is said of images: the probability of each label, that of the most probable class, and which; each (N,)."""

    said: Tensor
    best: Tensor
    seen: Tensor

    @classmethod
    def of(cls, probabilities: Tensor, labels: Tensor) -> "Opinions":
        """Those that probabilities (N, K) of classes are."""
        return cls(probabilities.gather(1, labels.unsqueeze(1)).squeeze(1), *probabilities.max(1))


@dataclass(frozen=True)
class LabelCheck:
    """What came of a look at labels.

    Attributes:
        judge: who had an opinion of them.
        agreement: the share of labels that it confirms.
        findings: one of the labels that look wrong; empty where there are none.
    """

    judge: str
    agreement: float
    findings: list[Finding]


def check_labels(
    subject: Subject, looks: Looks, settings: Settings, job: Job | None, report: Reporter
) -> LabelCheck | None:
    """Look at the labels of the images that can be decoded; None where there is none.

    Args:
        settings: of the run; the network in them lends its features where it has weights to start from.
        job: a trained network that is asked in place of heads; its data need hold no images.

    Raises:
        DataError: a class that the network does not know.
        ConfigError: features for all of the images do not fit into memory, or the network has none.
    """
    good: NDArray[np.bool_] = np.ones(len(looks.rows), np.bool_)
    good[[*looks.faults]] = False
    rows = looks.rows[good]
    if not len(rows):
        return None
    labels = torch.from_numpy(subject.labels[rows])
    classes, who, weak = subject.classes, "the network", WEAK_NETWORK
    if job:
        classes = job.data.classes
        places = positions(subject.classes, classes)
        labels = labels if places is None else places[labels]
        opinions = _ask(subject, rows, labels, job, report)
    else:
        model = settings.model
        encoder = find_encoder(subject, rows, settings, report)
        who, weak = f"heads on {encoder.name}", WEAK_NETWORK if model.pretrained or model.weights else WEAK
        features = encode(encoder, subject, rows, report)
        opinions = Opinions.of(judge(features, labels, len(classes), settings.seed), labels)
    agreement = (opinions.seen == labels).double().mean().item()
    is_reliable = agreement >= RELIABLE
    entries = [
        Entry(
            int(rows[place]), note=f"{float(opinions.best[place]):.0%} {printable(classes[int(opinions.seen[place])])}"
        )
        for place in doubted(opinions, labels, len(classes)).tolist()
    ]
    advice = ADVICE if is_reliable else weak
    found = [Finding(LABEL, "labels that look wrong", len(entries), advice, entries, is_reliable)] if entries else []
    return LabelCheck(who, agreement, found)


def doubted(opinions: Opinions, labels: Tensor, classes: int) -> Tensor:
    """The places of labels that are not believed, int64 (M,), those first that are believed least.

    Another class is sure: its probability is above one half, and no lower than the mean that it has where it is the
    label.
    """
    said, best, seen = opinions.said, opinions.best, opinions.seen
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, said.double())
    usual = sums / labels.bincount(minlength=classes).clamp_min(1)
    doubted = ((seen != labels) & (best >= usual[seen]) & (best > SURE)).nonzero().flatten()
    return doubted[said[doubted].argsort(stable=True)]


def _ask(subject: Subject, rows: NDArray[np.int64], labels: Tensor, job: Job, report: Reporter) -> Opinions:
    """What a trained network says of images."""
    loaders = loaders_of(subject, rows, job.data, job.settings.data, job.device)
    report.validating(sum(map(len, loaders)), phase="asking")
    scorer, parts, done = job.scorer(), [Opinions.of(torch.empty(0, 1), labels[:0])], 0
    advance: Callable[[int], None] = report.advance
    for loader in loaders:
        for answer in scorer.answers(loader, advance=advance):
            probabilities = (answer.logits / job.temperature).softmax(1).cpu()
            parts.append(Opinions.of(probabilities, labels[done : done + len(probabilities)]))
            done += len(probabilities)
    report.end_phase()
    return Opinions(*(torch.cat([getattr(part, name) for part in parts]) for name in ("said", "best", "seen")))
