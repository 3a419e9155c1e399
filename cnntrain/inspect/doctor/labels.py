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
from cnntrain.data.labels import is_sets, renumber
from cnntrain.inspect.doctor.cross_validation import judge
from cnntrain.inspect.doctor.features import encode, find_encoder, loaders_of
from cnntrain.inspect.doctor.findings import LABEL, Entry, Finding
from cnntrain.inspect.doctor.look import Looks
from cnntrain.inspect.doctor.subject import Subject
from cnntrain.runtime.reporter import Reporter
from cnntrain.text import printable
from cnntrain.training.job import Job

SURE = 0.5  # the least probability of the class that is seen in place of the label
CERTAIN = 0.95  # from which on that is no lower than usual: a sharp judge would else pass over half of its doubts
RELIABLE = 0.9  # share of labels that a judge confirms, below which most labels that it doubts are right
ADVICE = "look at each: some may be right"
WEAK = "many may be right; model.pretrained=true sees better"
WEAK_NETWORK = "many may be right; a better network sees better"


@dataclass(frozen=True)
class Opinions:
    """What is said of labels: the probability of each, that of the most probable class, and which; each (N,).

    Where each class of an image has a probability of its own, the labels are whether it has it, (N * K,), the classes
    no and yes.
    """

    said: Tensor
    best: Tensor
    seen: Tensor

    @classmethod
    def of(cls, probabilities: Tensor, labels: Tensor) -> "Opinions":
        """Those that probabilities (N, K) of classes are; labels int64 (N,), or bool (N, K)."""
        if is_sets(labels):
            yes, has = probabilities.flatten(), labels.flatten()
            return cls(torch.where(has, yes, 1 - yes), torch.maximum(yes, 1 - yes), (yes > SURE).long())
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
        labels = labels if places is None else renumber(labels, places, len(classes))
        opinions = _ask(subject, rows, labels, job, report)
    else:
        model = settings.model
        encoder = find_encoder(subject, rows, settings, report)
        who, weak = f"heads on {encoder.name}", WEAK_NETWORK if model.pretrained or model.weights else WEAK
        features = encode(encoder, subject, rows, report)
        opinions = Opinions.of(judge(features, labels, len(classes), settings.seed), labels)
    given = labels.flatten().long()
    counted = given > 0 if is_sets(labels) else torch.ones_like(given, dtype=torch.bool)  # most classes are in no image
    agreement = (opinions.seen == given)[counted].double().mean().nan_to_num(1.0).item()
    is_reliable = agreement >= RELIABLE
    width = labels.shape[1] if is_sets(labels) else 1
    entries = []
    for place in doubted(opinions, labels, len(classes)).tolist():
        seen = int(opinions.seen[place])
        name = f"{'' if seen else 'no '}{classes[place % width]}" if is_sets(labels) else classes[seen]
        entries.append(Entry(int(rows[place // width]), note=f"{float(opinions.best[place]):.0%} {printable(name)}"))
    advice = ADVICE if is_reliable else weak
    found = [Finding(LABEL, "labels that look wrong", len(entries), advice, entries, is_reliable)] if entries else []
    return LabelCheck(who, agreement, found)


def doubted(opinions: Opinions, labels: Tensor, classes: int) -> Tensor:
    """The places of labels that are not believed, int64 (M,), those first that are believed least.

    Another class is sure: its probability is above one half, and no lower than the mean that it has where it is the
    label, or than 0.95. Of sets, the classes are yes and no, for each label anew.
    """
    said, best, seen, given = opinions.said, opinions.best, opinions.seen, labels.flatten().long()
    kinds, other = given, seen
    if is_sets(labels):
        label = torch.arange(labels.shape[1]).repeat(len(labels))
        kinds, other, classes = 2 * label + given, 2 * label + seen, 2 * labels.shape[1]
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, kinds, said.double())
    usual = sums / kinds.bincount(minlength=classes).clamp_min(1)
    found = ((seen != given) & (best >= usual[other].clamp_max(CERTAIN)) & (best > SURE)).nonzero().flatten()
    return found[said[found].argsort(stable=True)]


def _ask(subject: Subject, rows: NDArray[np.int64], labels: Tensor, job: Job, report: Reporter) -> Opinions:
    """What a trained network says of images."""
    loaders = loaders_of(subject, rows, job.data, job.settings.data, job.device)
    report.validating(sum(map(len, loaders)), phase="asking")
    scorer, parts, done = job.scorer(), [Opinions.of(torch.empty(0, len(job.data.classes)), labels[:0])], 0
    advance: Callable[[int], None] = report.advance
    for loader in loaders:
        for answer in scorer.answers(loader, advance=advance):
            logits = answer.logits / job.temperature
            probabilities = (logits.sigmoid() if job.data.multi_label else logits.softmax(1)).cpu()
            parts.append(Opinions.of(probabilities, labels[done : done + len(probabilities)]))
            done += len(probabilities)
    report.end_phase()
    return Opinions(*(torch.cat([getattr(part, name) for part in parts]) for name in ("said", "best", "seen")))
