"""The running sums agree with torchmetrics and survive a checkpoint."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
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


def test_labels_written_as_probabilities_score_the_same():
    dense = [(logits, torch.eye(10)[labels]) for logits, labels in parts()]
    assert filled(dense).read() == pytest.approx(filled(parts()).read())


def test_a_prediction_earns_the_share_of_its_class_in_a_mixed_image():
    window = Window(CPU, top5=True)
    targets = torch.tensor([[0.7, 0.3, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0, 0], [0, 0, 0, 0, 0.6, 0.4]])
    # Class 0 is the first guess and class 5 the last, for every image.
    window.add(torch.tensor(0.0), torch.arange(6.0, 0, -1).repeat(3, 1), targets)
    scores = window.read()
    assert scores["top1"] == pytest.approx((0.7 + 0.3 + 0) / 3)
    assert scores["top5"] == pytest.approx((1 + 1 + 0.6) / 3)


def test_adding_waits_for_nothing():
    """Fake tensors have no values: whatever asks for one fails."""
    with FakeTensorMode():
        window = Window(CPU, top5=True)
        window.add(torch.empty(()), torch.empty(4, 10), torch.empty(4, dtype=torch.int64))
        window.add(torch.empty(()), torch.empty(4, 10), torch.empty(4, 10))


def test_a_restored_and_merged_window_reads_the_same():
    whole, first = filled(parts()), filled(parts()[:1])
    again, rest = Window(CPU, top5=True), filled(parts()[1:])
    again.restore(first.state())
    again.merge(rest)
    assert again.read() == pytest.approx(whole.read())
