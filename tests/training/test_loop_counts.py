"""What the loop counts and tells: steps, images, seconds, rows, saves, and which epoch is the best."""

import copy
import dataclasses
import math
import time

import pytest
import torch
from processes import data_of
from test_loop import Digits, Silent, make_job, make_run
from torch import nn

from cnntrain.config.schema.schedule import CosineSettings
from cnntrain.config.schema.trainer import GradExchange, Precision, TrainerSettings
from cnntrain.errors import CheckpointError, DataError, NonFiniteError
from cnntrain.runtime.world import World
from cnntrain.training import loop
from cnntrain.training.ema import Ema
from cnntrain.training.exchange import Exchange
from cnntrain.training.limits import limits_met
from cnntrain.training.load_state import load_weights
from cnntrain.training.state import Progress


class Clock:
    """Stands still but while a batch is trained on, 0.1 s, or scored, 0.3 s."""

    def __init__(self, monkeypatch):
        self.now = 5.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def slows(self, job):
        augment, normalize = job.augment, job.normalize

        def training(images, context):
            self.now += 0.1
            return augment(images, context)

        def scoring(images):
            self.now += 0.3
            return normalize(images)

        return dataclasses.replace(job, augment=training, normalize=scoring)


class Told(Silent):
    """A report that keeps all that it is told, in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, *args))


def test_seconds_and_throughput_are_those_of_training_or_of_the_whole_epoch(monkeypatch):
    """An epoch trains on 5 batches, 30 images, in 0.5 s and scores 3 in 0.9 s."""
    run, clock = make_run(), Clock(monkeypatch)
    job = clock.slows(make_job(log_every=2))
    loop.train(run, job)
    for row in job.report.epochs:
        assert row["seconds"] == pytest.approx(1.4)
        assert row["images_per_second"] == pytest.approx(60)
    # Steps 2, 4, 6, 8 and 10: the last of an epoch holds two images, and with the next one stands the validation.
    rates = [row["images_per_second"] for row in job.report.steps]
    assert rates == pytest.approx([14 / 0.2, 14 / 0.2, 7 / 0.1, 14 / 0.2, 9 / 0.2])
    progress = run.progress
    assert (progress.images, progress.seconds) == (60, pytest.approx(2.8))
    assert (progress.train_seconds, progress.epoch_train_seconds) == (pytest.approx(1.0), 0)
    assert run.images_per_second() == pytest.approx(60)


def test_seconds_that_are_no_part_of_the_training_slow_no_figure(monkeypatch):
    """Such are those in which a profiler writes its trace."""
    run, clock = make_run(), Clock(monkeypatch)

    def trace():
        clock.now += 100
        return 100

    job = dataclasses.replace(clock.slows(make_job(log_every=2)), after_step=trace)
    loop.train(run, job)
    assert [row["seconds"] for row in job.report.epochs] == pytest.approx([1.4, 1.4])
    assert [row["images_per_second"] for row in job.report.epochs] == pytest.approx([60, 60])
    rates = [row["images_per_second"] for row in job.report.steps]
    assert rates == pytest.approx([14 / 0.2, 14 / 0.2, 7 / 0.1, 14 / 0.2, 9 / 0.2])
    assert run.images_per_second() == pytest.approx(60)
    assert sum(run.spent.total().values()) == pytest.approx(2.8)


def test_an_epoch_that_a_limit_cuts_short_counts_for_the_throughput_of_the_run(monkeypatch):
    run, clock = make_run(), Clock(monkeypatch)
    assert run.images_per_second() == 0
    loop.train(run, clock.slows(make_job(max_steps=7)))
    assert (run.progress.images, run.progress.epoch_train_seconds) == (30, pytest.approx(0.2))
    assert run.images_per_second() == pytest.approx(44 / 0.7)
    loop.train(run, clock.slows(make_job()))
    assert (run.progress.images, run.progress.epoch_train_seconds) == (60, 0)


def test_a_clock_too_coarse_for_an_epoch_is_no_fault(monkeypatch):
    Clock(monkeypatch)
    job = make_job()
    loop.train(make_run(), job)
    assert all(math.isfinite(row["images_per_second"]) for row in job.report.epochs + job.report.steps)


@pytest.mark.parametrize(("every", "steps"), [(1, range(1, 11)), (3, (3, 6, 9, 10)), (4, (4, 8, 10)), (99, (10,))])
def test_rows_stand_at_their_steps_and_at_the_last_with_the_means_since_the_row_before(every, steps):
    single, rows = make_job(log_every=1), make_job(log_every=every)
    loop.train(make_run(), single)
    loop.train(make_run(), rows)
    assert [row["step"] for row in rows.report.steps] == list(steps)
    assert [row["epoch"] for row in rows.report.steps] == [1 + (step > 5) for step in steps]
    every_step = {row["step"]: row for row in single.report.steps}
    images = {step: 2 if step % 5 == 0 else 7 for step in range(1, 11)}
    first = 0
    for row in rows.report.steps:
        # The end of an epoch empties the window too: its numbers are told with the epoch.
        since = range(max(first, 5 * (row["epoch"] - 1)) + 1, row["step"] + 1)
        for key in ("loss", "top1"):
            total = sum(every_step[step][key] * images[step] for step in since)
            assert row[key] == pytest.approx(total / sum(images[step] for step in since))
        assert row["grad_norm"] == every_step[row["step"]]["grad_norm"] > 0
        assert row["lr"] == every_step[row["step"]]["lr"]
        first = row["step"]
    for epoch, row in enumerate(rows.report.epochs):
        part = range(5 * epoch + 1, 5 * epoch + 6)
        for key in ("loss", "top1"):
            assert row[f"train_{key}"] == pytest.approx(sum(every_step[step][key] * images[step] for step in part) / 30)
        assert (row["epoch"], row["step"], row["lr"]) == (epoch + 1, 5 * epoch + 5, every_step[5 * epoch + 5]["lr"])


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]), (3, [3, 5, 6, 9, 10])])
def test_last_is_saved_every_so_many_steps_and_after_each_epoch(every, steps):
    saved = []
    loop.train(make_run(), make_job(saved, save_every=every))
    assert [state["progress"]["step"] for state in saved] == steps


def test_last_is_saved_when_so_much_time_has_gone_by_since_the_save_before(monkeypatch):
    saved, now = [], [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    job = make_job(saved, save_every="5m")
    job.report.advance = lambda images: now.__setitem__(0, now[0] + 100.0)  # each step takes 100 seconds
    loop.train(make_run(), job)
    # The save after an epoch, here after the fifth step, counts too.
    assert [state["progress"]["step"] for state in saved] == [3, 5, 8, 10]


def test_the_report_is_told_of_each_epoch_and_image():
    run, job = make_run(), dataclasses.replace(make_job(), report=Told())
    loop.train(run, job)
    epoch = [("advance", 7)] * 4 + [("advance", 2), ("validating", 3)] + [("advance", 7)] * 2 + [("advance", 6)]
    assert job.report.calls == [("start_epoch", 1, 2, 5, 0), *epoch, ("start_epoch", 2, 2, 5, 0), *epoch]
    again, job = make_run(), make_job(max_steps=7)
    loop.train(again, job)
    job = dataclasses.replace(make_job(), report=Told())
    loop.train(again, job)
    assert job.report.calls[0] == ("start_epoch", 2, 2, 5, 2)


def test_the_best_epoch_has_the_highest_accuracy_and_the_lowest_loss_among_equals():
    progress = Progress(best_top1=0.5, best_loss=1.0)
    better = {(0.6, 9.0): True, (0.5, 0.9): True, (0.5, 1.0): False, (0.5, 1.1): False, (0.4, 0.1): False}
    assert {score: progress.is_best({"top1": score[0], "loss": score[1]}) for score in better} == better
    assert Progress().is_best({"top1": 0.0, "loss": 99.0})
    run, job = make_run(), make_job(epochs=6)
    loop.train(run, job)
    rows = job.report.epochs
    scores = [(row["val_top1"], -row["val_loss"]) for row in rows]
    assert [row["best"] for row in rows] == [score > max(scores[:i], default=(-1,)) for i, score in enumerate(scores)]
    best, progress = scores.index(max(scores)), run.progress
    assert progress.best_epoch == best + 1
    assert progress.waited == 5 - best
    assert (progress.best_top1, progress.best_loss) == (scores[best][0], -scores[best][1])
    assert progress.best_top5 == rows[best]["val_top5"]


def test_a_new_run_has_counted_nothing_and_is_worse_than_any():
    fresh = dataclasses.asdict(Progress())
    worst = {"best_top1": -1, "best_top5": -1, "best_map": -1, "best_loss": math.inf, "thresholds": []}
    assert fresh == dict.fromkeys(fresh, 0) | worst | {"validated_step": -1}


def test_a_run_whose_time_is_over_at_once_takes_a_step_all_the_same(monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    run = make_run()
    assert loop.train(run, make_job(max_time="1s")) == "max_time"
    assert (run.progress.step, run.progress.best_epoch) == (1, 1)


def test_a_run_of_which_no_epoch_is_better_waits_and_stops_early():
    run, job = make_run(), make_job(epochs=9, early_stop=3)
    run.progress.best_top1 = 2.0
    assert loop.train(run, job) == "early_stop"
    assert (run.progress.epoch, run.progress.waited, run.progress.best_epoch) == (3, 3, 0)
    assert loop.train(run, job) == "early_stop"
    assert run.progress.epoch == 3


@pytest.mark.parametrize(
    ("key", "counted", "limit", "given"),
    [
        ("epochs", "epoch", 4, 4),
        ("max_steps", "step", 6, 6),
        ("max_time", "seconds", 60.0, "1m"),
        ("early_stop", "waited", 3, 3),
    ],
)
def test_a_limit_is_met_where_it_stands_and_beyond(key, counted, limit, given):
    trainer = TrainerSettings(**{"epochs": 9, key: given})
    progress = [Progress(**{counted: limit + further}) for further in (-1, 0, 1)]
    assert [limits_met(trainer, each) for each in progress] == [[], [key], [key]]


def test_without_its_limit_no_count_ends_a_run():
    progress = Progress(epoch=1, step=10**9, seconds=1e9, waited=10**9)
    assert limits_met(TrainerSettings(epochs=2), progress) == []


def test_behind_the_last_step_one_batch_is_read_at_most():
    run, read = make_run(), []

    class Read(Digits):
        def batches(self, epoch=0, start=0):
            for batch in super().batches(epoch, start):
                read.append(batch)
                yield batch

    loop.train(run, dataclasses.replace(make_job(max_steps=2), data=data_of(train=Read(), val=Digits(20))))
    assert run.progress.step == 2
    assert 2 <= len(read) <= 3


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"epochs": 1}, "epochs"), ({"max_steps": 5}, "max_steps"), ({"early_stop": 2}, "early_stop")],
)
def test_a_run_beyond_its_end_ends_at_once(limits, reason):
    run = make_run()
    loop.train(run, make_job(epochs=2))
    run.progress.waited = 3
    before = copy.deepcopy(run.model.state_dict())
    assert loop.train(run, make_job(**({"epochs": 9} | limits))) == reason
    assert run.progress.step == 10
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_the_schedule_counts_its_own_steps_after_a_resume_that_changed_the_batch():
    fresh, later = make_run(), make_run()
    first, second = make_job(schedule=CosineSettings(), log_every=1), make_job(schedule=CosineSettings(), log_every=1)
    loop.train(fresh, first)
    later.progress.step = later.progress.step_offset = 4
    assert second.total_steps(later.progress) == 14
    loop.train(later, second)
    assert later.progress.step == 14
    assert [row["lr"] for row in second.report.steps] == [row["lr"] for row in first.report.steps]
    assert make_job(max_steps=6).total_steps(later.progress) == 6
    assert make_job(max_steps=99).total_steps(later.progress) == 14


def test_an_error_of_the_data_saves_what_was_trained_and_goes_on_as_an_error():
    saved, count = [], iter(range(99))
    run, job = make_run(), make_job(saved, save_every=99)
    augment = job.augment

    def failing(images, context):
        if next(count) == 3:
            raise DataError("data.root: a bad image")
        return augment(images, context)

    job = dataclasses.replace(job, augment=failing)
    with pytest.raises(DataError, match="a bad image"):
        loop.train(run, job)
    assert [(state["progress"]["step"], state["progress"]["batch"]) for state in saved] == [(3, 3)]


def test_a_loss_or_a_weight_that_is_not_finite_is_told_with_its_step_epoch_and_rate():
    run, job = make_run(), make_job()
    loop.train(run, job)
    run.optimizer.param_groups[0]["lr"] = 0.125
    advice = "try a lower optimizer.lr or trainer.clip_norm=1"
    with torch.no_grad():
        run.model[5].bias[3] = math.inf
    with pytest.raises(NonFiniteError, match=rf"^step 10: 5.bias is .* \(epoch 3, learning rate 0.125\); {advice}$"):
        run.check_finite()
    run.log_window.add(torch.tensor(math.nan), torch.zeros(1, 10), torch.tensor([0]))
    with pytest.raises(NonFiniteError, match=r"^step 10: the loss is nan \(epoch 3"):
        run.read_log_window()
    run.precision = Precision.bf16
    with pytest.raises(NonFiniteError, match=r"lower optimizer.lr, trainer.clip_norm=1 or trainer.precision=fp32$"):
        run.read_log_window()


def test_a_run_without_a_compiler_calls_the_network_itself():
    run = make_run()
    assert run.forward is run.model
    run.call("5")
    assert run.forward is run.model[5]
    assert run.eval_part is run.ema.model[5]
    assert make_run(ema=None).eval_model is not None


def test_the_averaged_network_wants_no_gradient():
    ema = Ema(nn.Linear(2, 2), 0.9)
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert ema.state()["updates"] == 0


@dataclasses.dataclass(frozen=True)
class Pair(World):
    """Two processes that do the same."""

    size: int = 2

    def sum_(self, tensors):
        for tensor in tensors:
            tensor.detach().mul_(2)

    def gather(self, value):
        return [{"rank": 0, "of": value}, {"rank": 1, "of": value}]


def test_processes_take_the_mean_of_their_statistics():
    run = make_run()
    run.world = Pair()
    run.exchange = exchange_of(run)
    run.model.train()
    run.model(torch.rand(4, 1, 8, 8))
    before = copy.deepcopy(dict(run.model.named_buffers()))
    run.exchange.average_norms()
    assert all(torch.equal(value, before[name]) for name, value in run.model.named_buffers())
    state = run.state()
    assert state["rng"]["rank"] == 0
    assert [other["rank"] for other in state["rng_others"]] == [1]


def exchange_of(run):
    """That of the run's processes, which wraps nothing: torch knows no group here."""
    exchange = Exchange(run.world, GradExchange.fp32)
    exchange._module = run.model
    return exchange


def test_processes_that_a_resume_adds_draw_numbers_of_their_own():
    state, drawn = make_run().state(), []
    for world in (World(), Pair(0, 3), Pair(1, 3), Pair(2, 3)):
        run = make_run(seed=9)
        run.world = world
        run.restore(copy.deepcopy(state))
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_frozen_statistics_are_not_exchanged():
    run, seen = make_run(), []

    class Counted(Pair):
        def sum_(self, tensors):
            seen.extend(tensors)

    run.world = Counted()
    run.exchange = exchange_of(run)
    run.model.train()
    run.model[1].eval()
    run.exchange.average_norms()
    assert seen == []


def test_weights_that_do_not_fit_are_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    weights = {name: value + 1 for name, value in model.state_dict().items()}
    load_weights(model, weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    wrong = dict(weights)
    wrong["1.bias"] = torch.zeros(4)
    with pytest.raises(CheckpointError, match=r"\(1\.bias is \(4,\) in the checkpoint and \(3,\) in the model\); keep"):
        load_weights(model, wrong)
    del wrong["0.bias"]
    wrong["2.bias"] = torch.zeros(1)
    told = r"\(0\.bias is missing; 1\.bias is \(4,\) .*; 2\.bias is not in the model\); keep the run's model settings$"
    with pytest.raises(CheckpointError, match=told):
        load_weights(model, wrong)
    wrong["3.bias"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"2\.bias is not in the model and 1 more\)"):
        load_weights(model, wrong)


def test_a_state_is_refused_where_the_run_wants_more_than_it_holds():
    state = make_run(ema=None).state()
    with pytest.raises(CheckpointError, match=r"^trainer\.ema: the checkpoint holds no averaged weights"):
        make_run().restore(state)
    for optimizer in ({"param_groups": [], "state": {}}, {"state": {}}):
        with pytest.raises(CheckpointError, match=r"^optimizer: the saved state does not fit \(.*\); keep the optim"):
            make_run(ema=None).restore(state | {"optimizer": optimizer})


@pytest.mark.parametrize(
    "wrong",
    [
        {"python": [9, [0] * 625, None]},
        {"python": [3, [2**70] * 625, None]},
        {"python": [3, [0.5] * 625, None]},
        {"torch": torch.zeros(5, dtype=torch.uint8)},
        {"torch": torch.zeros(5)},
    ],
)
def test_a_random_state_that_nothing_can_take_is_refused(wrong):
    state = make_run().state()
    with pytest.raises(CheckpointError, match=r"^rng: no random state that torch and Python know; "):
        make_run().restore(state | {"rng": state["rng"] | wrong})


def test_a_resume_takes_the_decay_of_the_settings_and_the_rest_of_the_state():
    state = make_run().state()
    run = make_run()
    for group in run.optimizer.param_groups:
        group["weight_decay"] = 0.25
        group["momentum"] = 0.5
    run.restore(state)
    assert all((group["weight_decay"], group["momentum"]) == (0.25, 0.5) for group in run.optimizer.param_groups)
