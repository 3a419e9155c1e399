"""The running sums and counts agree with scikit-learn and survive a checkpoint."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score
from sklearn.tree import DecisionTreeClassifier
from torch._subclasses.fake_tensor import FakeTensorMode

from cnntrain.runtime.world import World
from cnntrain.training.metrics import ConfusionCounts, RunningScores, has_top5

CPU = torch.device("cpu")


def filled(parts):
    window = RunningScores(CPU, top5=True)
    for logits, labels in parts:
        window.add(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), logits, labels)
    return window


def parts(classes=10):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator))
        for n in (7, 64, 1)
    ]


def test_scores_agree_with_scikit_learn_over_uneven_batches():
    logits, labels = (torch.cat(column) for column in zip(*parts(), strict=True))
    scores = filled(parts()).read()
    for key, k in (("top1", 1), ("top5", 5)):
        assert scores[key] == pytest.approx(top_k_accuracy_score(labels, logits, k=k, labels=range(10)))
    assert scores["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)


def test_measures_by_class_are_those_of_scikit_learn_though_some_are_never_seen_or_never_guessed():
    """Of digits, by a tree that has not learned well; nobody is a 3, and nobody is taken for a 5."""
    images, labels = load_digits(return_X_y=True)
    images, labels = images[labels != 3], labels[labels != 3]
    chances = DecisionTreeClassifier(max_depth=4, random_state=0).fit(images, labels).predict_proba(images)
    chances = np.insert(chances, 3, 0.01, axis=1)
    chances[:, 5] = -1
    counts, truth, names = ConfusionCounts(10, CPU), torch.tensor(labels), [f"the {digit}" for digit in range(10)]
    for part in torch.arange(len(labels)).split(100):
        counts.add(torch.tensor(chances)[part], truth[part])
    measures = precision_recall_fscore_support(labels, chances.argmax(1), labels=range(10), zero_division=0.0)
    found = counts.by_class(names)
    assert list(found) == names
    for key, wanted in zip(("precision", "recall", "f1", "images"), measures, strict=True):
        assert [row[key] for row in found.values()] == pytest.approx(wanted.tolist(), abs=1e-6)
    assert found["the 3"] == {"precision": 0, "recall": 0, "f1": 0, "images": 0}
    assert found["the 5"]["recall"] == 0 < found["the 5"]["images"]


def test_top5_tells_nothing_of_five_classes_as_every_label_is_among_them():
    assert [classes for classes in range(2, 9) if has_top5(classes)] == [6, 7, 8]
    assert filled(parts(classes=5)).read()["top5"] == 1.0
    assert filled(parts(classes=6)).read()["top5"] < 1.0


def test_labels_written_as_probabilities_score_the_same():
    dense = [(logits, torch.eye(10)[labels]) for logits, labels in parts()]
    assert filled(dense).read() == pytest.approx(filled(parts()).read())


def test_a_prediction_earns_the_share_of_its_class_in_a_mixed_image():
    window = RunningScores(CPU, top5=True)
    targets = torch.tensor([[0.7, 0.3, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0, 0], [0, 0, 0, 0, 0.6, 0.4]])
    # Class 0 is the first guess and class 5 the last, for every image.
    window.add(torch.tensor(0.0), torch.arange(6.0, 0, -1).repeat(3, 1), targets)
    scores = window.read()
    assert scores["top1"] == pytest.approx((0.7 + 0.3 + 0) / 3)
    assert scores["top5"] == pytest.approx((1 + 1 + 0.6) / 3)


def test_adding_waits_for_nothing():
    """Fake tensors have no values: whatever asks for one fails."""
    with FakeTensorMode():
        window = RunningScores(CPU, top5=True)
        window.add(torch.empty(()), torch.empty(4, 10), torch.empty(4, dtype=torch.int64))
        window.add(torch.empty(()), torch.empty(4, 10), torch.empty(4, 10))


def test_a_restored_and_merged_window_reads_the_same():
    whole, first = filled(parts()), filled(parts()[:1])
    again, rest = RunningScores(CPU, top5=True), filled(parts()[1:])
    again.restore(first.state())
    again.merge(rest)
    assert again.read() == pytest.approx(whole.read())


@given(
    count=st.integers(1, 40),
    classes=st.integers(1, 8),
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), max_size=8),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_parting_among_micro_batches_and_windows_sums_up_to_the_same(count, classes, cuts, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    whole, *windows = (RunningScores(CPU, top5=has_top5(classes)) for _ in range(4))
    whole.add(losses.sum(), logits, labels)
    edges = sorted({(0, 0), (count, 0), *((min(cut, count), window) for cut, window in cuts)})
    for (first, window), (last, _) in itertools.pairwise(edges):
        part = slice(first, last)
        windows[window].add(losses[part].sum(), logits[part], labels[part])
    for other in windows[1:]:
        windows[0].merge(other)
    (loss, *hits), images = windows[0].totals()
    (wanted, *known), counted = whole.totals()
    assert (hits, images) == (known, counted)
    assert loss == pytest.approx(wanted)


def test_top5_is_counted_where_asked_for_and_an_empty_window_reads_0():
    assert RunningScores(CPU).read() == {"loss": 0, "top1": 0}
    assert RunningScores(CPU, top5=True).read() == {"loss": 0, "top1": 0, "top5": 0}
    window = filled(parts())
    window.reset()
    assert window.read() == {"loss": 0, "top1": 0, "top5": 0}
    assert window.totals() == ([0, 0, 0], 0)


def test_a_window_keeps_no_graph():
    window = RunningScores(CPU)
    logits = torch.zeros(2, 3, requires_grad=True)
    window.add(logits.sum(), logits, torch.tensor([0, 1]))
    assert not window.sums.requires_grad


def test_the_sums_count_every_image_however_many_there_are():
    """From 2 ** 24 on, float32 knows no odd number."""
    window = RunningScores(CPU)
    for loss in (2.0**24, 1.0):
        window.add(torch.tensor(loss), torch.zeros(1, 2), torch.tensor([0]))
    assert window.totals() == ([2**24 + 1, 2, 2], 2)


@dataclasses.dataclass(frozen=True)
class Pair(World):
    """Two processes that have counted the same."""

    size: int = 2

    def sum_(self, tensors):
        for tensor in tensors:
            tensor *= 2


def test_what_is_read_counts_all_processes_and_the_first_alone_takes_it_up_again():
    window = RunningScores(CPU, world=Pair())
    window.add(torch.tensor(3.0), torch.eye(3), torch.tensor([0, 1, 1]))
    assert window.totals() == ([6, 4, 4], 6)
    assert window.read() == pytest.approx({"loss": 1, "top1": 2 / 3})
    saved = window.state()
    for rank, wanted in ((0, [12, 8, 8]), (1, [0, 0, 0])):
        again = RunningScores(CPU, world=Pair(rank=rank))
        again.add(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 1]))
        again.restore(saved)
        assert again.totals()[0] == wanted
