"""Scoring a split: what is counted, what is told on the way, and how it is stopped."""

import math
import types
import weakref

import pytest
import torch
from sklearn.metrics import confusion_matrix
from test_loop import CPU, Digits
from torch import nn
from torch.nn import functional

from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import Batch
from cnntrain.errors import Interrupted, NonFiniteError
from cnntrain.training.metrics import ConfusionCounts
from cnntrain.training.scoring import Scorer, need_finite
from cnntrain.training.tta import Views


class Part(Digits):
    """20 digits in micro-batches of 7, and an empty one, as a process may get; it notes when it is closed."""

    closed = False

    def batches(self, epoch=0, start=0):
        try:
            yield from super().batches(epoch, start)
            yield Batch(self.pixels[:0], self.labels[:0], torch.arange(0), 1)
        finally:
            self.closed = True


class Wary(nn.Module):
    """A linear network that takes no empty batch; dropout shows in which mode it is."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    def forward(self, images):
        assert len(images)
        return self.layers(images)


def normalize(images):
    return images.float() / 255


def scored(loader=None, model=None, views=None, **more):
    scorer = Scorer(model or Wary(), normalize, CPU, Precision.fp32, views=views, top5=True)
    return scorer.score(loader or Part(20), **more)


def counting(counts):
    return lambda answer: counts.add(answer.logits, answer.labels)


def plain(logits, labels):
    ranks = logits.argsort(1, descending=True).eq(labels[:, None]).int().argmax(1)
    top1, top5 = ((ranks < k).float().mean().item() for k in (1, 5))
    return pytest.approx({"loss": functional.cross_entropy(logits, labels).item(), "top1": top1, "top5": top5})


def test_scores_are_those_of_all_images_at_once_in_evaluation_mode():
    model, loader = Wary().train(), Part(20)
    scores = scored(loader, model)
    with torch.no_grad():
        logits = model.eval()(normalize(loader.pixels))
    assert scores == plain(logits, loader.labels)
    assert 0 < scores["top1"] < scores["top5"] < 1
    assert loader.closed


def test_each_batch_is_told_and_its_confusions_are_counted():
    loader, model, told, counts = Part(20), Wary(), [], ConfusionCounts(10, CPU)
    scored(loader, model, advance=told.append, watch=counting(counts))
    assert told == [7, 7, 6, 0]
    with torch.no_grad():
        guesses = model(normalize(loader.pixels)).argmax(1)
    assert counts.matrix.tolist() == confusion_matrix(loader.labels, guesses, labels=range(10)).tolist()


def test_neither_images_nor_answers_of_earlier_batches_stay_in_memory():
    alive, most = [], 0

    class Watched(Wary):
        def forward(self, images):
            nonlocal most
            answers = super().forward(images)
            most = max(most, sum(kept() is not None for kept in alive))
            alive.extend((weakref.ref(images), weakref.ref(answers)))
            return answers

    loader = Part(300)
    scored(loader, Watched(), views=Views(["hflip"], 8), watch=counting(ConfusionCounts(10, CPU)))
    assert len(alive) > 160
    assert most <= 6  # of the batch in hand


def test_of_several_views_the_first_is_scored_apart():
    loader, counts = Part(20), ConfusionCounts(10, CPU)
    scores = scored(loader, views=Views(["hflip"], 8), watch=counting(counts))
    assert {name for name in scores if not name.startswith("plain_")} == {"loss", "top1", "top5"}
    assert {name.removeprefix("plain_"): scores[name] for name in scores if "_" in name} == pytest.approx(scored())
    model = Wary().eval()
    with torch.no_grad():
        both = sum(model(normalize(images)).softmax(1) for images in (loader.pixels, loader.pixels.flip(3)))
    assert counts.matrix.tolist() == confusion_matrix(loader.labels, both.argmax(1), labels=range(10)).tolist()
    assert scores["loss"] == pytest.approx(functional.nll_loss((both / 2).log(), loader.labels).item(), rel=1e-5)


@pytest.mark.parametrize(("requested", "batches"), [(False, 4), (True, 1)])
def test_a_signal_ends_it_after_the_batch_in_hand(requested, batches):
    told, loader = [], Part(20)
    stop = types.SimpleNamespace(requested=requested, signum=15)
    if requested:
        with pytest.raises(Interrupted) as caught:
            scored(loader, stop=stop, advance=told.append)
        assert caught.value.exit_code == 143
    else:
        scored(loader, stop=stop, advance=told.append)
    assert len(told) == batches
    assert loader.closed


@pytest.mark.parametrize(("precision", "advice"), [(Precision.fp16, "precision=fp32"), (Precision.fp32, "lower optim")])
def test_answers_that_are_no_numbers_are_told_with_a_way_out_that_is_not_taken_yet(precision, advice):
    need_finite(0.5, "the loss", precision)
    for value in (math.nan, math.inf):
        with pytest.raises(NonFiniteError, match=f"^the loss is {value}, though .*{advice}"):
            need_finite(value, "the loss", precision)
