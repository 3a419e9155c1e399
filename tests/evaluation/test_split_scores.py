"""The scores of a split: against scikit-learn and scipy, by hand, and in bounded memory."""

import gc
import json

import numpy as np
import pytest
import torch
from forged import Answers, job_of, random_answers
from scipy.optimize import minimize_scalar
from sklearn.metrics import balanced_accuracy_score, f1_score, top_k_accuracy_score
from torch import nn
from torch.nn import functional

from cnntrain.errors import NonFiniteError
from cnntrain.evaluation.bootstrap import bootstrap
from cnntrain.evaluation.classes import most_confused, of_matrix
from cnntrain.evaluation.image_scores import ImageScore, Worst
from cnntrain.evaluation.intervals import of_mean, wilson
from cnntrain.evaluation.split_scores import score_split

NAMES = [f"class {number}" for number in range(8)]
ANSWERS = random_answers(300, 8)


def scores_of(answers: Answers, classes=NAMES, **more):
    return score_split(job_of(classes, val=answers), "val", **more).scores


def test_scores_are_those_of_scikit_learn():
    result = score_split(job_of(NAMES, val=ANSWERS), "val")
    scores, labels, guesses = result.scores, ANSWERS.labels.numpy(), ANSWERS.logits.argmax(1).numpy()
    assert scores["intervals"]["top1"] == list(wilson(scores["top1"], 300))
    assert scores["images"] == result.matrix.sum() == 300
    assert scores["top1"] == (labels == guesses).mean()
    assert scores["top5"] == top_k_accuracy_score(labels, ANSWERS.logits.numpy(), k=5)
    assert scores["loss"] == pytest.approx(functional.cross_entropy(ANSWERS.logits, ANSWERS.labels).item(), rel=1e-6)
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, guesses, average="macro"))
    assert json.loads(json.dumps(scores)) == scores


def test_classes_without_images_weigh_nothing_as_in_scikit_learn():
    labels, guesses = [0, 0, 1, 1, 1], [0, 2, 1, 1, 2]  # of five classes, the third is only predicted
    matrix = np.zeros((5, 5), dtype=np.int64)
    np.add.at(matrix, (labels, guesses), 1)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        reference = balanced_accuracy_score(labels, guesses)
    assert of_matrix(matrix) == pytest.approx((reference, f1_score(labels, guesses, average="macro")))
    assert of_matrix(np.zeros((5, 5), dtype=np.int64)) == (0, 0)


def test_top_5_is_told_of_more_than_five_classes():
    assert "top5" not in scores_of(random_answers(20, 5), NAMES[:5])
    assert "top5" in scores_of(random_answers(20, 6), NAMES[:6])


def test_the_most_confused_pairs_come_first():
    matrix = np.array([[50, 2, 7], [0, 40, 0], [3, 2, 9]])
    pairs = [(pair["true"], pair["predicted"], pair["images"]) for pair in most_confused(matrix, "abc", 3)]
    assert pairs == [("a", "c", 7), ("c", "a", 3), ("a", "b", 2)]
    assert most_confused(np.eye(3, dtype=np.int64), "abc", 3) == []


# --- intervals -------------------------------------------------------------------------------------------------------


def test_the_interval_of_the_loss_is_two_standard_errors_either_way():
    losses = np.random.default_rng(0).exponential(size=50)
    error = losses.std(ddof=1) / np.sqrt(50)
    expected = [losses.mean() - 1.959964 * error, losses.mean() + 1.959964 * error]
    assert of_mean(losses.mean(), np.square(losses).mean(), 50) == pytest.approx(expected)
    assert of_mean(0.5, 0.25, 2) == (0.5, 0.5)
    assert "loss" not in scores_of(random_answers(1, 8))["intervals"]


def test_intervals_of_means_over_classes_come_from_images_drawn_anew():
    labels, guesses = ANSWERS.labels.numpy(), ANSWERS.logits.argmax(1).numpy()
    random, draws = np.random.default_rng(1), []
    for _ in range(80):
        rows = random.integers(300, size=300)
        draws.append(
            (
                balanced_accuracy_score(labels[rows], guesses[rows]),
                f1_score(labels[rows], guesses[rows], average="macro"),
            )
        )
    result = scores_of(ANSWERS)["intervals"]
    for key, values in zip(("balanced_accuracy", "macro_f1"), np.transpose(draws), strict=True):
        assert result[key] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=0.03)
    assert result == scores_of(ANSWERS)["intervals"]  # seeded
    assert bootstrap(np.diag([5, 5])) == bootstrap(np.fliplr(np.diag([5, 5]))) == {}


# --- calibration -----------------------------------------------------------------------------------------------------


def test_the_expected_calibration_error_is_that_of_fifteen_bins():
    probabilities, guesses = (value.numpy() for value in ANSWERS.logits.double().softmax(1).max(1))
    hits = guesses == ANSWERS.labels.numpy()
    error, rows = 0.0, scores_of(ANSWERS)["calibration"]["bins"]
    for number in range(15):
        inside = (probabilities > number / 15) & (probabilities <= (number + 1) / 15)
        assert rows[number]["images"] == inside.sum()
        if inside.any():
            assert rows[number]["accuracy"] == pytest.approx(hits[inside].mean())
            assert rows[number]["probability"] == pytest.approx(probabilities[inside].mean())
            error += inside.mean() * abs(hits[inside].mean() - probabilities[inside].mean())
        else:
            assert rows[number]["accuracy"] is rows[number]["probability"] is None
    assert scores_of(ANSWERS)["calibration"]["ece"] == pytest.approx(error)
    assert error > 0.05


@pytest.mark.parametrize("sharpness", [0.2, 0.7, 1.0, 3.0, 20.0])
def test_the_temperature_is_that_of_the_lowest_loss(sharpness):
    answers = random_answers(300, 8, sharpness=sharpness)

    def loss(temperature):
        return functional.cross_entropy(answers.logits.double() / temperature, answers.labels).item()

    best = minimize_scalar(loss, bounds=(0.02, 60), method="bounded", options={"xatol": 1e-9})
    temperature = scores_of(answers)["calibration"]["temperature"]
    assert temperature["used"] == 1
    assert temperature["fitted"] == pytest.approx(best.x, rel=1e-4)
    assert temperature["loss"] == pytest.approx(best.fun, rel=1e-4)


@pytest.mark.parametrize("sharpness", [0.7, 0.97, 1.0, 1.03, 3.0])
@pytest.mark.parametrize("images", [20, 60, 300])
def test_a_temperature_helps_where_that_of_one_half_lowers_the_loss_of_the_other(images, sharpness):
    answers = random_answers(images, 8, seed=images, sharpness=sharpness, batch_size=33)

    def loss(temperature, half):
        logits = answers.logits[half::2].double() / temperature
        return functional.cross_entropy(logits, answers.labels[half::2], reduction="sum").item()

    crossed = 0.0
    for half in (0, 1):
        best = minimize_scalar(loss, bounds=(0.02, 60), method="bounded", args=(half,), options={"xatol": 1e-9})
        crossed += loss(best.x, 1 - half)
    helps = crossed < loss(1, 0) + loss(1, 1)
    assert scores_of(answers)["calibration"]["temperature"]["helps"] is helps
    if sharpness == 3.0:
        assert helps


def test_no_temperature_helps_that_one_half_of_the_images_cannot_tell():
    answers = random_answers(40, 8)
    answers.labels[::2] = answers.logits[::2].argmax(1)  # all right: the loss falls to the end
    temperature = scores_of(answers)["calibration"]["temperature"]
    assert temperature["fitted"]
    assert temperature["helps"] is False


def test_what_the_network_is_without_its_temperature_is_told_beside_it():
    plain, used = (score_split(job_of(NAMES, temperature=value, test=ANSWERS), "test").scores for value in (1.0, 0.5))
    assert "without" not in plain["calibration"]
    assert used["loss"] > plain["loss"]
    assert used["calibration"]["without"] == {
        "loss": pytest.approx(plain["loss"]),
        "ece": pytest.approx(plain["calibration"]["ece"]),
    }


def test_large_numbers_of_classes_are_summed_in_parts(monkeypatch):
    whole = scores_of(ANSWERS)["calibration"]["temperature"]
    monkeypatch.setattr("cnntrain.evaluation.calibration.LARGEST", 100)
    assert scores_of(ANSWERS)["calibration"]["temperature"] == pytest.approx(whole, rel=1e-6)


def test_there_is_no_temperature_where_all_images_are_right_or_no_better_than_chance():
    labels = torch.arange(8)
    for logits in (5 * torch.eye(8), -5 * torch.eye(8)):
        result = score_split(job_of(NAMES, val=Answers(logits, labels)), "val")
        assert result.fit is None
        assert result.scores["calibration"]["temperature"] == {"used": 1, "fitted": None, "loss": None, "helps": False}


def test_a_temperature_of_the_validation_images_is_tried_on_the_test_images_and_none_is_fitted_to_these():
    job = job_of(NAMES, val=ANSWERS, test=random_answers(200, 8, seed=1))
    other = score_split(job, "val").fit
    assert other
    test = score_split(job, "test", other=other).scores["calibration"]
    used = score_split(job_of(NAMES, temperature=other.temperature, test=random_answers(200, 8, seed=1)), "test").scores
    assert test["temperature"]["fitted"] == other.temperature
    assert test["temperature"]["loss"] == pytest.approx(used["loss"])
    assert test["temperature"]["ece"] == pytest.approx(used["calibration"]["ece"])
    assert used["calibration"]["temperature"]["used"] == other.temperature
    assert used["calibration"]["temperature"]["fitted"] is None
    assert test["temperature"]["helps"] is other.helps is True
    assert used["calibration"]["ece"] < test["ece"]
    assert used["top1"] == score_split(job, "test").scores["top1"]


def test_the_temperature_of_a_checkpoint_counts_in_all_that_comes_from_probabilities():
    worst = Worst(3)
    scores = score_split(job_of(NAMES, temperature=3.0, val=ANSWERS), "val", collectors=[worst]).scores
    cooled = ANSWERS.logits / 3
    assert scores["loss"] == pytest.approx(functional.cross_entropy(cooled, ANSWERS.labels).item(), rel=1e-6)
    assert worst.least_certain[0].probability == pytest.approx(cooled.softmax(1).amax(1).min().item())
    assert scores["calibration"]["temperature"]["fitted"] == pytest.approx(
        scores_of(ANSWERS)["calibration"]["temperature"]["fitted"]
    )


def test_coverage_tells_what_a_threshold_keeps_and_how_much_of_it_is_right():
    probabilities, guesses = ANSWERS.logits.double().softmax(1).max(1)
    hits = guesses == ANSWERS.labels
    rows = scores_of(ANSWERS)["coverage"]
    assert rows[0] == {"threshold": 0, "coverage": 1, "accuracy": hits.double().mean().item()}
    for row in rows:
        kept = probabilities >= row["threshold"]
        assert row["coverage"] == pytest.approx(kept.double().mean().item())
        if kept.any():
            assert row["accuracy"] == pytest.approx(hits[kept].double().mean().item())
    thresholds = [row["threshold"] for row in rows]
    assert {0.5, 0.9, 0.95, 0.99, 0.999} <= set(thresholds)
    assert thresholds == sorted(thresholds)


# --- single images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [7, 300])
def test_the_worst_images_are_the_first_of_all_images_in_order(batch_size):
    answers, worst = random_answers(300, 8, batch_size=batch_size), Worst(10)
    score_split(job_of(NAMES, val=answers), "val", collectors=[worst])
    log_probabilities = answers.logits.log_softmax(1).double()
    probabilities, guesses = log_probabilities.exp().max(1)
    losses = -log_probabilities[torch.arange(300), answers.labels]
    errors = (guesses != answers.labels).nonzero().flatten()
    expected = [
        (worst.confident_errors, errors[probabilities[errors].argsort(descending=True, stable=True)]),
        (worst.largest_losses, losses.argsort(descending=True, stable=True)),
        (worst.least_certain, probabilities.argsort(stable=True)),
    ]
    for images, order in expected:
        assert [image.index for image in images] == order[:10].tolist()
    image = worst.largest_losses[0]
    assert image.file == f"photos/{image.index}.jpg"
    assert (image.label, image.prediction) == (int(answers.labels[image.index]), int(guesses[image.index]))
    assert image.is_error
    assert image.probability == pytest.approx(float(probabilities[image.index]))
    assert image.label_probability == pytest.approx(float(np.exp(-image.loss)))
    assert all(image.is_error for image in worst.confident_errors)


def test_of_equal_images_the_first_ones_are_kept():
    worst = Worst(3)
    answers = Answers(torch.tensor([[0.0, 1.0]]).expand(20, 2), torch.zeros(20, dtype=torch.int64))
    score_split(job_of(["a", "b"], val=answers), "val", collectors=[worst])
    for images in (worst.confident_errors, worst.largest_losses, worst.least_certain):
        assert [image.index for image in images] == [0, 1, 2]


def test_answers_that_are_no_numbers_are_told():
    logits = ANSWERS.logits.clone()
    logits[200, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="the loss on the validation images is nan"):
        scores_of(Answers(logits, ANSWERS.labels))


class Cycle(Answers):
    """The same images again and again, `rounds` times."""

    rounds = 40

    def batches(self):
        for _ in range(self.rounds):
            yield from super().batches()


def test_no_more_than_the_counts_and_one_batch_is_in_memory_however_many_images_there_are():
    held = []

    class Watch(nn.Module):
        calls = 0

        def forward(self, logits):
            self.calls += 1
            if self.calls in (5, 40 * 5):
                # Not what is made of tensors: graphs of other tests hold some without a size.
                found = [one for one in gc.get_objects() if type(one) in (torch.Tensor, np.ndarray, ImageScore)]
                held.append(sum(getattr(one, "nbytes", 100) for one in found))
            return logits

    everything = random_answers(350, 8)
    answers = Cycle(everything.logits, everything.labels)
    score_split(job_of(NAMES, model=Watch(), val=answers), "val", collectors=[Worst(5)])
    assert held[0] == held[1] > 0
