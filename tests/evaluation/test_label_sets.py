"""The scores of images with sets of labels: against scikit-learn, by hand, and what validation may choose."""

import json

import numpy as np
import pytest
import torch
from forged import Answers, job_of, random_sets
from scipy.optimize import minimize_scalar
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
)
from torch import Tensor
from torch.nn import functional

from cnntrain.errors import NonFiniteError
from cnntrain.evaluation import set_measures as measures
from cnntrain.evaluation.intervals import wilson
from cnntrain.evaluation.label_sets import evaluate_sets, score_sets
from cnntrain.training.multi_label import fit_thresholds

NAMES = [f"label {number}" for number in range(6)]
ANSWERS = random_sets(300, 6)
THRESHOLDS = [0.3, 0.4, 0.5, 0.6, 0.45, 0.2]


def scored(answers: Answers = ANSWERS, names: list[str] = NAMES, **more):
    return score_sets(job_of(names, thresholds=THRESHOLDS[: len(names)], val=answers), "val", **more)


def test_scores_are_those_of_scikit_learn():
    scores = scored().scores
    labels, probabilities = ANSWERS.labels.numpy(), ANSWERS.logits.double().sigmoid().numpy()
    given = probabilities >= THRESHOLDS
    assert scores["map"] == pytest.approx(average_precision_score(labels, probabilities, average="macro"), abs=1e-12)
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, given, average="macro"))
    assert scores["micro_f1"] == pytest.approx(f1_score(labels, given, average="micro"))
    assert scores["hamming"] == pytest.approx(hamming_loss(labels, given))
    assert scores["subset_accuracy"] == pytest.approx(accuracy_score(labels, given))
    assert scores["cardinality"] == pytest.approx(labels.sum(1).mean())
    assert scores["given_cardinality"] == pytest.approx(given.sum(1).mean())
    reference = precision_recall_fscore_support(labels, given)
    for place, name in enumerate(NAMES):
        row = scores["classes"][name]
        assert [row[key] for key in ("precision", "recall", "f1", "images")] == pytest.approx(
            [part[place] for part in reference]
        )
        assert row["average_precision"] == pytest.approx(
            average_precision_score(labels[:, place], probabilities[:, place])
        )
        assert row["threshold"] == THRESHOLDS[place]
        assert row["given"] == given[:, place].sum()
    loss = functional.binary_cross_entropy_with_logits(ANSWERS.logits, ANSWERS.labels.float(), reduction="sum")
    assert scores["loss"] == pytest.approx(float(loss) / 300, rel=1e-6)
    assert scores["intervals"]["subset_accuracy"] == list(wilson(scores["subset_accuracy"], 300))
    assert json.loads(json.dumps(scores)) == scores


def test_labels_without_images_have_no_average_precision_and_those_that_are_given_too_weigh_in_macro_f1():
    labels = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]).bool()
    logits = torch.tensor([[3.0, -3, -3, -3], [3.0, 3, -3, 3], [3.0, 3, -3, -3]])
    scores = scored(Answers(logits, labels), NAMES[:4]).scores
    assert [row["average_precision"] for row in scores["classes"].values()] == [pytest.approx(2 / 3), 1, None, None]
    assert scores["map"] == pytest.approx(5 / 6)
    assert scores["macro_f1"] == pytest.approx((0.8 + 1 + 0) / 3)  # the third label is nowhere
    assert scores["subset_accuracy"] == pytest.approx(1 / 3)
    assert scores["hamming"] == pytest.approx(2 / 12)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_single_image_is_scored_too_with_labels_or_without(label):
    scores = scored(Answers(ANSWERS.logits[:1], torch.full((1, 6), label).bool())).scores
    assert scores["images"] == 1
    assert scores["map"] == label
    assert set(scores["intervals"]) == {"subset_accuracy"}
    json.dumps(scores, allow_nan=False)


def test_pairs_of_a_missed_label_and_one_that_is_given_in_its_place_are_counted():
    labels = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]).bool()
    given = torch.tensor([[0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]]).bool()
    assert measures.count_confused(labels, given).tolist() == [[0, 2, 1], [0, 0, 1], [0, 0, 0]]
    pairs = [(row["true"], row["predicted"]) for row in scored().scores["confused"]]
    assert 0 < len(pairs) <= 20
    assert all(one != other for one, other in pairs)


def test_one_threshold_for_all_labels_gives_what_scikit_learn_says():
    labels, probabilities = ANSWERS.labels.numpy(), ANSWERS.logits.double().sigmoid().numpy()
    rows = scored().scores["by_threshold"]
    assert [row["threshold"] for row in rows] == [step / 100 for step in range(1, 100)]
    for row in (rows[0], rows[28], rows[49], rows[98]):
        given = probabilities >= row["threshold"]
        precision, recall, f1, _ = precision_recall_fscore_support(labels, given, average="micro")
        assert [row[key] for key in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])
        assert row["given"] == pytest.approx(given.sum(1).mean())


# --- intervals -------------------------------------------------------------------------------------------------------


def test_the_slopes_of_an_average_precision_are_those_of_its_sums_by_weight_with_ties_too():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 12, 60).astype(float), random.random(60) < 0.3
    found = measures.influence_on_precision(torch.tensor(scores), torch.tensor(labels))

    def precision(weights):
        return average_precision_score(labels, scores, sample_weight=weights)

    for place in range(60):
        more, less = np.ones(60), np.ones(60)
        more[place], less[place] = 1 + 1e-5, 1 - 1e-5
        assert float(found[place]) == pytest.approx((precision(more) - precision(less)) / 2e-5, abs=1e-7)


@pytest.mark.slow
def test_intervals_are_as_wide_as_images_drawn_anew_make_them():
    labels, probabilities = ANSWERS.labels.numpy(), ANSWERS.logits.double().sigmoid().numpy()
    given, random, draws = probabilities >= THRESHOLDS, np.random.default_rng(1), []
    for _ in range(150):
        rows = random.integers(300, size=300)
        draws.append(
            (
                average_precision_score(labels[rows], probabilities[rows], average="macro"),
                f1_score(labels[rows], given[rows], average="macro"),
                f1_score(labels[rows], given[rows], average="micro"),
                hamming_loss(labels[rows], given[rows]),
            )
        )
    result = scored().scores["intervals"]
    for key, values in zip(("map", "macro_f1", "micro_f1", "hamming"), np.transpose(draws), strict=True):
        assert result[key][1] - result[key][0] == pytest.approx(2 * 1.96 * values.std(), rel=0.2)
        assert result[key] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=0.025)


def test_where_every_decision_is_right_there_is_no_interval_to_tell():
    found = scored(Answers(20 * ANSWERS.labels.float() - 10, ANSWERS.labels))
    scores = found.scores
    assert found.is_right
    assert found.fit is None
    assert not scored().is_right
    assert scores["map"] == scores["macro_f1"] == scores["subset_accuracy"] == 1
    assert set(scores["intervals"]) == {"subset_accuracy", "loss"}


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_thresholds_are_those_of_the_checkpoint_or_of_the_validation_images_and_never_of_the_test_images():
    test = random_sets(200, 6, seed=1)
    evaluation = evaluate_sets(job_of(NAMES, val=ANSWERS, test=test))
    fitted = fit_thresholds(ANSWERS.logits.double().sigmoid(), ANSWERS.labels)
    for split, source in (("val", "val"), ("test", "val")):
        found = evaluation.found[split]
        assert found.thresholds == fitted
        assert found.scores["thresholds"] == source
    given = test.logits.double().sigmoid() >= torch.tensor(fitted)
    assert evaluation.found["test"].scores["micro_f1"] == pytest.approx(
        f1_score(test.labels, given.numpy(), average="micro")
    )
    alone = score_sets(job_of(NAMES, test=test), "test")
    assert (alone.thresholds, alone.scores["thresholds"]) == ([0.5] * 6, "0.5")
    for found in evaluate_sets(job_of(NAMES, thresholds=THRESHOLDS, val=ANSWERS, test=test)).found.values():
        assert (found.thresholds, found.scores["thresholds"]) == (THRESHOLDS, "checkpoint")


# --- calibration -----------------------------------------------------------------------------------------------------


def test_the_calibration_error_is_over_all_labels_of_all_images():
    probabilities, labels = ANSWERS.logits.double().sigmoid().flatten().numpy(), ANSWERS.labels.flatten().numpy()
    error, calibration = 0.0, scored().scores["calibration"]
    for number, row in enumerate(calibration["bins"]):
        inside = (probabilities > number / 15) & (probabilities <= (number + 1) / 15)
        assert row["images"] == inside.sum()
        assert row["accuracy"] == pytest.approx(labels[inside].mean())
        error += inside.mean() * abs(labels[inside].mean() - probabilities[inside].mean())
    assert calibration["ece"] == pytest.approx(error)


def loss_at(temperature: float, logits: Tensor, labels: Tensor) -> float:
    loss = functional.binary_cross_entropy_with_logits(logits.double() / temperature, labels.double(), reduction="sum")
    return float(loss) / len(labels)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
def test_the_temperature_is_that_of_the_lowest_binary_cross_entropy_and_is_tried_on_the_test_images(sharpness):
    answers, test = (random_sets(300, 6, seed=seed, sharpness=sharpness) for seed in (0, 1))
    best = minimize_scalar(
        loss_at,
        (0.02, 60),
        args=(answers.logits, answers.labels),
        bounds=(0.02, 60),
        method="bounded",
        options={"xatol": 1e-9},
    )
    evaluation = evaluate_sets(job_of(NAMES, val=answers, test=test))
    told = evaluation.scores["val"]["calibration"]["temperature"]
    assert told["fitted"] == pytest.approx(best.x, rel=1e-4)
    assert told["loss"] == pytest.approx(best.fun, rel=1e-4)
    assert told["helps"] or sharpness == 1.0
    tried = evaluation.scores["test"]["calibration"]["temperature"]
    assert tried["fitted"] == told["fitted"]
    assert tried["loss"] == pytest.approx(loss_at(told["fitted"], test.logits, test.labels))


def test_with_a_temperature_what_the_network_is_without_it_is_told_and_the_order_stays():
    plain = scored().scores
    used = score_sets(job_of(NAMES, temperature=3.0, thresholds=THRESHOLDS, val=ANSWERS), "val").scores
    assert used["loss"] == pytest.approx(loss_at(3.0, ANSWERS.logits, ANSWERS.labels))
    assert used["calibration"]["without"] == {
        "loss": pytest.approx(plain["loss"]),
        "ece": pytest.approx(plain["calibration"]["ece"]),
    }
    assert used["map"] == plain["map"]
    assert used["calibration"]["temperature"]["fitted"] == plain["calibration"]["temperature"]["fitted"]


# --- single images ---------------------------------------------------------------------------------------------------


def test_the_worst_images_are_those_whose_labels_are_missed_or_wrongly_given_and_those_of_the_largest_losses():
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()
    probabilities = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.3, 0.2], [0.6, 0.2, 0.9], [0.1, 0.7, 0.8]])
    job = job_of(["cat", "dog", "owl"], thresholds=[0.5] * 3, val=Answers(probabilities.logit(), labels, batch_size=3))
    worst = evaluate_sets(job).scores["val"]["worst"]
    assert [image["index"] for image in worst["missed"]] == [1]
    assert worst["missed"][0]["missed"] == {"cat": pytest.approx(0.1), "dog": pytest.approx(0.3)}
    assert list(worst["missed"][0]["missed"]) == ["cat", "dog"]
    assert [image["index"] for image in worst["wrongly_given"]] == [3, 2]
    assert worst["wrongly_given"][0]["extra"] == {"owl": pytest.approx(0.8), "dog": pytest.approx(0.7)}
    assert list(worst["wrongly_given"][0]["extra"]) == ["owl", "dog"]
    losses = functional.binary_cross_entropy_with_logits(probabilities.logit(), labels.float(), reduction="none").sum(1)
    largest = worst["largest_losses"]
    assert [image["index"] for image in largest] == losses.argsort(descending=True).tolist()
    assert [image["loss"] for image in largest] == pytest.approx(losses.sort(descending=True).values.tolist())
    assert (largest[-1]["labels"], largest[-1]["prediction"]) == (["cat"], ["cat"])


def test_answers_that_are_no_numbers_are_told():
    logits = ANSWERS.logits.clone()
    logits[200, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="the loss on the validation images is nan"):
        scored(Answers(logits, ANSWERS.labels))
