"""Each rule speaks of made-up runs that it is for, and is silent on good ones."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_plain
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema.data import Sampling
from cnntrain.config.schema.settings import Settings
from cnntrain.page.findings import Facts, find
from cnntrain.page.history import History, Row
from cnntrain.page.rules import ClassCounts, Finding

TEN = [f"class {number}" for number in range(10)]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return compose_settings(["data=mnist", "trainer.epochs=20", "schedule=cosine"])


def cosine(part: float) -> float:
    return 0.1 * (1 - part)


def run(
    count: int = 20,
    train: Callable[[float], float] = lambda part: 1 - 0.02 * 0.1**part,
    val: Callable[[float], float] | None = lambda part: 0.96 + 0.025 * (1 - 0.01**part),
    loss: Callable[[float], float] = lambda part: 2.3 * 0.02**part,
    lr: Callable[[float], float] = cosine,
    wait: float = 0.02,
    seconds: float = 60.0,
) -> History:
    """Epochs of a run, by default of a good one, as functions of how much of it is over (above 0 to 1)."""
    epochs = tuple(
        Row(
            number,
            100 * number,
            loss=loss(number / count),
            score=train(number / count),
            val_loss=0.1,
            val_score=val(number / count) if val else None,
            lr=lr(number / count),
            seconds=seconds,
        )
        for number in range(1, count + 1)
    )
    steps = tuple(replace(row, data_wait=wait, val_score=None, score=None) for row in epochs)
    return History(epochs, steps)


MATRIX = [[97 if row == column else int(column == (row + 1) % 10) * 3 for column in range(10)] for row in range(10)]


def facts(
    settings: Settings, history: History | None = None, matrix: Sequence[Sequence[int]] = MATRIX, **changes: object
) -> Facts:
    """A good run on ten classes, but for the changes."""
    rows, columns = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix, strict=True)]
    hits = [row[place] for place, row in enumerate(matrix)]
    counts = [ClassCounts(*one) for one in zip(rows, columns, hits, strict=True)]
    usual = Facts(settings, history or run(), TEN, counts, "test", [500] * 10, 1000, "epochs", Path("runs/a"))
    return replace(usual, **changes)  # type: ignore[arg-type]


def titles(given: Facts) -> list[str]:
    return [one.title for one in find(given)]


def test_a_good_run_has_no_findings(settings):
    assert titles(facts(settings)) == []


def test_what_the_training_has_warned_of_stands_out(settings):
    leak = "data: 6 of 40 val images are in train too, byte for byte (a.png); cnntrain check lists them"
    skew = "data: 500 images of class 0, 9 of class 9, 56 : 1; loss.class_weights=balanced evens that out"
    first, second = find(facts(settings, warnings=(leak, skew, "`no` thing")))
    assert first.line == (
        "Warned: data: 6 of 40 val images are in train too, byte for byte (a.png). cnntrain check runs/a lists them."
    )
    assert second.line == "Warned: 'no' thing. train.log has what was said before and after it."
    assert titles(facts(settings, warnings=(skew,), train_images=())) == ["Warned"]  # else the rule of it speaks


@pytest.mark.parametrize("val", [None, lambda part: 0.98])
def test_a_run_that_nothing_is_known_of_has_no_findings(settings, val):
    assert titles(Facts(settings, run(val=val))) == []
    assert titles(Facts(settings)) == []


def test_over_fitting_needs_a_large_gap_that_chance_does_not_explain(settings):
    given = facts(settings, run(val=lambda part: 0.80))
    (found,) = find(given)
    assert found.title == "Over-fitting"
    assert "99.80%" in found.figure
    assert "80.00%" in found.figure
    assert "20 points" in found.figure
    assert titles(facts(settings, run(val=lambda part: 0.91))) == []  # 9 points
    assert titles(facts(settings, run(val=lambda part: 0.86), val_images=30)) == []  # 14 points, on 30 images


def test_over_fitting_asks_the_images_without_augmentation_where_they_were_scored(settings):
    def probed(share: float) -> History:
        history = run(train=lambda part: 0.5, val=lambda part: 0.75)
        return replace(history, epochs=tuple(replace(row, probe_score=share) for row in history.epochs))

    assert titles(facts(settings, probed(0.99))) == ["Over-fitting"]
    assert titles(facts(settings, probed(0.80))) == []


def test_under_fitting_is_of_a_network_that_does_not_know_its_training_images(settings):
    low = run(train=lambda part: 0.4, val=lambda part: 0.38)
    (found,) = find(facts(settings, low))
    assert found.title == "Under-fitting"
    assert "40.00%" in found.figure
    assert "trainer.epochs=40" in found.advice
    assert titles(facts(settings, run(train=lambda part: 0.4, val=lambda part: 0.9))) == []  # hard augmentation
    assert titles(facts(settings, low, ended="interrupted")) == []


def test_a_network_that_guesses_has_learned_nothing(settings):
    (found,) = find(facts(settings, run(train=lambda part: 0.11, val=lambda part: 0.10)))
    assert found.title == "Nothing learned"
    assert "10.00%" in found.figure
    two = facts(
        settings, run(train=lambda part: 0.6, val=lambda part: 0.6), classes=TEN[:2], matrix=(), train_images=()
    )
    many = facts(settings, run(train=lambda part: 0.01, val=lambda part: 0.01), classes=["x"] * 1000, matrix=())
    assert titles(many) == ["Under-fitting"]  # ten times what guessing finds
    assert titles(two) == ["Under-fitting"]  # a fifth of the way from 50 to 100 %


def test_a_run_too_short_to_learn_is_told_so_and_its_classes_are_no_news(settings):
    seven = [[9 if column < 7 else 0 for column in range(10)] for _ in range(10)]  # of ten, three are never predicted
    short = replace(settings, trainer=replace(settings.trainer, epochs=1))
    guess = run(1, train=lambda part: 0.139, val=lambda part: 0.1389)
    poor = run(1, train=lambda part: 0.3, val=lambda part: 0.29)
    for history, words in ((guess, "13.90%"), (poor, "30.00%")):
        (found,) = find(facts(short, history, matrix=seven))
        assert found.title == "Too short"
        assert f"After 1 epoch at best {words}" in found.figure
        assert "trainer.epochs=10" in found.advice
    assert titles(facts(short, run(1, train=lambda part: 0.6, val=lambda part: 0.6))) == []
    low = run(train=lambda part: 0.139, val=lambda part: 0.1389)
    assert titles(facts(settings, low, matrix=seven)) == ["Nothing learned"]
    fair = run(train=lambda part: 0.4, val=lambda part: 0.4)
    assert "too short" in find(facts(settings, fair, matrix=seven))[-1].advice


def test_still_improving_needs_a_rise_that_chance_and_cooling_do_not_explain(settings):
    def flat(part: float) -> float:
        return 0.1

    rising = run(train=lambda part: 0.6 + 0.3 * part, val=lambda part: 0.6 + 0.3 * part, lr=flat)
    (found,) = find(facts(settings, rising))
    assert found.title == "Still improving"
    assert "6.0 points in the last 4 epochs, to 87.75%" in found.figure
    assert "cnntrain resume runs/a trainer.epochs=40" in found.advice
    assert "trainer.max_steps=4000" in find(facts(settings, rising, ended="max_steps"))[0].advice
    assert titles(facts(settings, rising, val_images=80)) == []
    cooling = run(train=lambda part: 0.99, val=lambda part: 0.88 + 0.06 * (part > 0.8))
    assert titles(facts(settings, cooling)) == []  # the end of a schedule, with all training images known


def test_a_limit_that_ends_the_run_at_a_high_rate_is_told(settings):
    half = replace(settings, trainer=replace(settings.trainer, max_time="1h"))
    high = run(10, lr=lambda part: 0.1 * (1 - part / 2))
    (found,) = find(facts(half, high, ended="max_time"))
    assert found.title == "Ended before the schedule"
    assert "trainer.max_time=1h ended the run in epoch 10 of 20" in found.figure
    assert "53 % of its highest" in found.figure
    assert "cnntrain resume runs/a trainer.max_time=null" in found.advice
    assert "trainer.epochs=10" in found.advice
    assert titles(facts(half, run(), ended="max_time")) == []  # annealed
    assert titles(facts(settings, high, ended="interrupted")) == ["Ended before the schedule"]
    constant = compose_settings(["data=mnist", "schedule=constant", "trainer.epochs=20"])
    assert titles(facts(constant, high, ended="max_time")) == []


def test_an_unstable_loss_jumps_several_times(settings):
    def jumping(times: int) -> History:
        places = {8 / 20, 12 / 20, 16 / 20, 19 / 20}
        chosen = sorted(places)[:times]
        return run(loss=lambda part: 1.5 if part in chosen else 0.3)

    (found,) = find(facts(settings, jumping(4)))
    assert found.title == "Unstable loss"
    assert "4 times" in found.figure
    assert "from 0.3 to 1.5" in found.figure
    assert titles(facts(settings, jumping(2))) == []
    assert titles(facts(settings, run(loss=lambda part: 0.001 * (1 + 2 * (round(20 * part) % 4 == 0))))) == []  # tiny


def test_a_class_that_is_never_predicted_has_more_images_than_chance_misses(settings):
    def without(last: int, images: int) -> list[list[int]]:
        matrix = [[90 if row == column else 0 for column in range(10)] for row in range(10)]
        matrix[last] = [images] + [0] * 9
        return matrix

    (found,) = find(facts(settings, matrix=without(3, 50)))
    assert found.title == "A class is never predicted"
    assert "class 3 (50 images)" in found.figure
    assert titles(facts(settings, matrix=without(3, 6))) == []
    assert titles(facts(settings, matrix=without(3, 50), ended="")) == []  # a run that was killed
    rare = facts(settings, matrix=without(3, 50), train_images=[500, 500, 500, 100] + [500] * 6)
    assert "data.sampling=balanced" in find(rare)[0].advice


def test_skewed_classes_are_told_where_the_rare_ones_suffer(settings):
    counts = [1000] * 5 + [40] * 5
    poor = [[90 if row == column else 0 for column in range(10)] for row in range(10)]
    for row in range(5, 10):
        poor[row] = [60] + [30 if column == row else 0 for column in range(1, 10)]
    (found,) = find(facts(settings, train_images=counts, matrix=poor))
    assert found.title == "Skewed classes"
    assert "25 to 1" in found.figure
    assert "33.33%" in found.figure
    assert titles(facts(settings, train_images=counts)) == []  # all are known alike
    assert titles(facts(settings, train_images=[200] * 5 + [40] * 5, matrix=poor)) == []  # 5 to 1
    even = replace(settings, data=replace(settings.data, sampling=Sampling.balanced))
    assert titles(facts(even, train_images=counts, matrix=poor)) == []


def test_waiting_for_images_is_told_where_it_costs_a_minute(settings):
    (found,) = find(facts(settings, run(wait=0.4)))
    assert found.title == "Data-bound"
    assert "40 % of 20 minutes" in found.figure
    assert titles(facts(settings, run(wait=0.15))) == []
    assert titles(facts(settings, run(wait=0.4, seconds=2.0))) == []


def every_finding(settings: Settings) -> list[Finding]:
    """What all rules say, of plain and of augmented images, of files and of others."""
    flat, low = (lambda part: 0.1), (lambda part: 0.2 + 0.3 * part)
    found = []
    for words in ([], ["augment=mixup"], ["augment=none", "data=imagefolder", "data.root=.", "model=lenet5"]):
        own = compose_settings(["data=mnist", "trainer.epochs=20", "schedule=cosine", *words])
        found += find(facts(own, run(train=lambda part: 0.99, val=lambda part: 0.6, wait=0.5)))
        found += find(facts(own, run(train=low, val=low, lr=flat)))
        found += find(facts(own, run(train=flat, val=flat)))
        found += find(facts(own, run(lr=flat, loss=lambda part: 1.5 if round(20 * part) % 5 == 0 else 0.2)))
        limited = replace(own, trainer=replace(own.trainer, max_time="1h"))
        found += find(facts(limited, run(10, lr=flat), ended="max_time"))
        found += find(facts(own, run(10, lr=flat), ended="interrupted"))
        counts = [1000] * 9 + [40]
        found += find(facts(own, train_images=counts, matrix=[[50 if column == 8 else 0 for column in range(10)]] * 10))
    return found


def test_what_a_finding_says_to_type_is_understood(settings):
    """Each word of the config in an advice composes, or can be given to `resume`; all rules take part."""
    found = every_finding(settings)
    assert len({one.title for one in found}) == 9
    plain = to_plain(settings)
    for words in {words for one in found for words in re.findall("`(.*?)`", one.advice)}:
        match shlex.split(words):
            case ["cnntrain", "resume", "runs/a", *overrides]:
                restore_config(plain, overrides)
            case ["cnntrain", "models" | "find_lr"]:
                pass
            case overrides:
                compose_settings(["data=imagefolder", "data.root=.", "model.weights=x", *overrides])


def test_a_finding_has_its_figure_and_moves_no_cursor(settings):
    for one in every_finding(settings):
        assert re.search(r"\d", one.figure), one
        assert one.figure.endswith(".")
    strange = facts(settings, classes=["\x1b[31mred\n"] * 10, matrix=[[50] + [0] * 9] * 10)
    assert all(line.isprintable() for line in (one.line for one in find(strange)))
