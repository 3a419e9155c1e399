"""The running sums agree with torchmetrics and survive a checkpoint."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from cnntrain.metrics import Window

CPU = torch.device("cpu")


def filled(parts):
    window = Window(CPU, top5=True)
    for logits, labels in parts:
        window.add(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)
    return window


def parts(classes=10):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator))
        for n in (7, 64, 1)
    ]


def test_scores_agree_with_torchmetrics_over_uneven_batches():
    logits, labels = (torch.cat(column) for column in zip(*parts(), strict=True))
    scores = filled(parts()).read()
    for key, k in (("top1", 1), ("top5", 5)):
        wanted = multiclass_accuracy(logits, labels, num_classes=10, top_k=k, average="micro")
        assert scores[key] == pytest.approx(wanted.item())
    assert scores["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)


def test_with_fewer_than_five_classes_every_label_is_in_the_top_five():
    assert filled(parts(classes=3)).read()["top5"] == 1.0


def test_a_restored_and_merged_window_reads_the_same():
    whole, first = filled(parts()), filled(parts()[:1])
    again, rest = Window(CPU, top5=True), filled(parts()[1:])
    again.restore(first.state())
    again.merge(rest)
    assert again.read() == pytest.approx(whole.read())
