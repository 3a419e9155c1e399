"""A schedule that is fitted to a limit of time, log rows by time, and where the time went."""

import csv
import itertools
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import test_loop
import torch
from test_loop import make_job, make_run

from cnntrain import cli
from cnntrain.config.schema import schedule
from cnntrain.config.schema.schedule import SCHEDULES
from cnntrain.runtime import device as machine
from cnntrain.runtime import stopwatch
from cnntrain.runtime.stopwatch import Stopwatch
from cnntrain.training import loop
from cnntrain.training.pace import Pace
from cnntrain.training.timing import RowTimes


class Killed(BaseException):
    """As sudden as a kill: no handler of ours knows it, so nothing is saved."""


class Machine:
    """A clock on which each step of the optimizer takes some seconds, and nothing else takes any."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: test_loop.TrainState, seconds: float = 1.0) -> None:
        self.now, self.rates = 0.0, []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        step = run.scaler.step

        def take(optimizer):
            step(optimizer)
            self.now += seconds
            self.rates.append(optimizer.param_groups[0]["lr"])

        run.scaler.step = take


@pytest.mark.parametrize("limit", [6, 40, 100])
def test_the_schedule_of_a_run_that_time_ends_comes_to_its_end(monkeypatch, limit):
    run = make_run()
    clock = Machine(monkeypatch, run)
    assert loop.train(run, make_job(epochs=5000, save_every=7, max_time=f"{limit}s")) == "max_time"
    assert len(clock.rates) == limit
    assert clock.rates == sorted(clock.rates, reverse=True)  # a cosine, which never goes back
    assert clock.rates[-1] < max(0.1, 1 / limit) * clock.rates[0]


def drops(factor: float, *places: float) -> Callable[[float], float]:
    return lambda part: factor ** sum(part >= place for place in places)


def halves(start: float, end: float, part: float) -> float:
    """Half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


# Of each kind, with lengths for 5,000 epochs: the factor of the rate when a part of the time is over.
SHAPES: dict[str, tuple[schedule.ScheduleSettings, Callable[[float], float]]] = {
    "constant": (schedule.ConstantSettings(), lambda part: 1.0),
    "cosine": (
        schedule.CosineSettings(warmup=1000),
        lambda part: 0.01 + 0.99 * part / 0.2 if part < 0.2 else halves(1, 0, (part - 0.2) / 0.8),
    ),
    "onecycle": (
        schedule.OneCycleSettings(),
        lambda part: halves(0.04, 1, part / 0.3) if part < 0.3 else halves(1, 1e-4, (part - 0.3) / 0.7),
    ),
    "step": (schedule.StepSettings(every=1500), drops(0.1, 0.3, 0.6, 0.9)),
    "multistep": (schedule.MultistepSettings(milestones=[2500, 4000]), drops(0.1, 0.5, 0.8)),
    "exponential": (schedule.ExponentialSettings(decay=0.999), lambda part: 0.999 ** (5000 * part)),
    "polynomial": (schedule.PolynomialSettings(power=2, end=0.1), lambda part: 0.1 + 0.9 * (1 - part) ** 2),
    "plateau": (schedule.PlateauSettings(patience=0, threshold=0.5), lambda part: math.nan),  # goes by losses alone
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_each_schedule_is_fitted_to_the_time_also_when_the_run_goes_on(monkeypatch, kind):
    settings, shape = SHAPES[kind]
    words = {"schedule": settings, "save_every": 100, "max_time": "40s"}

    def train(run, saved=None, *, seconds=1.0, now=0.0, **changes):
        with monkeypatch.context() as patch:
            clock = Machine(patch, run, seconds)
            clock.now = now
            loop.train(run, make_job(saved, **({"epochs": 5000} | words | changes)))
        return [rate / 0.1 for rate in clock.rates]

    saved = []
    whole = train(make_run(), saved)
    assert len(whole) == 40
    # From the third step on, when two have been measured, straight to the end.
    wanted = [shape(max(step - 2, 0) / 38) for step in range(40)]
    if kind == "plateau":
        wanted = train(make_run(), epochs=8, max_time=None)
        assert min(wanted) < 1
    assert whole == pytest.approx(wanted, abs=0.01)

    state = next(state for state in saved if state["progress"]["step"] == 15)
    for seconds, steps in ((1.0, 25), (2.0, 13)):
        again = make_run()
        again.restore(state)
        rates = train(again, seconds=seconds, now=1000.0)  # another clock
        assert len(rates) == steps
        if seconds == 1:
            assert rates == pytest.approx(wanted[15:], abs=0.01)
        elif kind != "plateau":  # half as fast, it comes to the end as well
            assert rates[-1] <= shape(0.85)


def test_where_the_steps_end_first_time_has_no_say(monkeypatch):
    rates = []
    for words in ({}, {"max_time": "2h"}):
        with monkeypatch.context() as patch:
            run = make_run()
            clock = Machine(patch, run)
            assert loop.train(run, make_job(epochs=3, save_every=4, **words)) == "epochs"
            rates.append(clock.rates)
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)


def test_what_a_kill_between_two_saves_has_lost_is_repeated_with_the_same_bits(monkeypatch):
    saved = []
    run = make_run()
    with monkeypatch.context() as patch:
        Machine(patch, run)
        loop.train(run, make_job(saved, epochs=5000, save_every=11, max_time="40s"))
    steps = [state["progress"]["step"] for state in saved]
    first, second = next(pair for pair in itertools.pairwise(saved) if pair[0]["progress"]["step"] == 11)
    assert second["progress"]["step"] == 15, steps  # the end of the third epoch
    again, found = make_run(), []
    again.restore(first)
    with monkeypatch.context() as patch:
        slow = Machine(patch, again, seconds=4.0)  # the machine of the second start is slower, and has another clock
        slow.now = 1000.0
        loop.train(again, make_job(found, epochs=5000, save_every=11, max_time="40s"))
    assert test_loop.same(found[0]["model"], second["model"])
    assert found[0]["progress"]["step"] == 15
    assert found[0]["pace"]["place"] == second["pace"]["place"]
    assert found[0]["pace"]["rate"] > second["pace"]["rate"]  # from here on the clock has its say again


def test_a_new_limit_puts_the_run_where_it_stands_in_the_new_time():
    pace = Pace()
    for step, seconds in ((1, 5.0), (2, 6.0), (4, 8.0)):
        pace.fit(step, 1000, seconds, 14.0)
    assert pace.at(10, 1000) == pytest.approx(1)
    pace.restart(10, 1000, 14.0, 28.0)
    assert pace.at(10, 1000) == pytest.approx(0.5)
    assert pace.at(24, 1000) == pytest.approx(1)


def test_after_a_restart_the_speed_is_measured_anew_and_the_end_met_in_time():
    pace, places = Pace(), []
    pace.restart(12, 1000, 20.0, 40.0)
    for step in range(12, 52):  # half a second each
        places.append(pace.at(step, 1000))
        if pace.is_due(step + 1):
            pace.fit(step + 1, 1000, 20 + (step - 11) * 0.5, 40.0)
    assert places[0] == 0.5
    assert places == sorted(places)
    assert places[4] == pytest.approx(0.5 + 0.5 * 2 / 38, abs=0.002)  # two steps have measured, 38 are left
    assert pace.at(52, 1000) == pytest.approx(1)


def test_a_limit_of_time_far_off_changes_no_rate_of_a_run_resumed_with_other_steps(tmp_path, monkeypatch):
    quick = ["model=lenet5", "data.limit=60", "data.batch_size=20", "trainer.epochs=4", "trainer.threads=1"]
    quick += ["trainer.tensorboard=false", "trainer.save_every=2", "trainer.max_time=1h", "trainer.log_every=1"]
    step, rates = loop.train_step, {}

    def dies(run, *rest):
        if run.progress.step == 8:
            raise Killed
        step(run, *rest)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(Killed):
        cli.main([*quick, f"hydra.run.dir={tmp_path / 'timed'}"])
    monkeypatch.setattr(loop, "train_step", step)
    shutil.copytree(tmp_path / "timed", tmp_path / "free")
    for name, more in (("timed", []), ("free", ["trainer.max_time=null"])):
        assert cli.main(["resume", str(tmp_path / name), "data.batch_size=10", *more]) == 0
        with Path(tmp_path, name, "metrics.csv").open() as file:
            rates[name] = [float(row["lr"]) for row in csv.DictReader(file) if int(row["step"]) > 8]
    assert len(rates["timed"]) > 8
    assert rates["timed"] == pytest.approx(rates["free"], rel=1e-6)


def test_rows_come_by_time_unless_their_steps_are_given(monkeypatch):
    now = iter(number * 0.002 for number in range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    rows = RowTimes()
    assert [step for step in range(1, 101) if rows.is_due(step, 7)] == list(range(7, 101, 7))
    found = [step for step in range(1, 6001) if rows.is_due(step, None)]
    assert found[0] == 20
    assert {step % 20 for step in found} == {0}
    gaps = {after - before for before, after in itertools.pairwise(found)}
    assert gaps == {125 * 20}  # a quarter of a second, as only every twentieth step looks at the clock
    rows = RowTimes()
    slow = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(slow)))
    assert [step for step in range(1, 101) if rows.is_due(step, None)] == [20, 40, 60, 80, 100]


def test_the_seconds_of_an_epoch_are_all_accounted_for():
    run, job = make_run(), make_job(epochs=2)
    loop.train(run, job)
    for row in job.report.epochs:
        parts = {key: value for key, value in row.items() if key.startswith("seconds_")}
        assert {key.removeprefix("seconds_") for key in parts} == set(stopwatch.PHASES)
        assert 0.8 * row["seconds"] <= sum(parts.values())
        assert min(parts[f"seconds_{phase}"] for phase in ("data", "augment", "network", "step", "evaluate")) > 0
    assert run.spent.total()["save"] > 0
    assert run.spent.total()["network"] == pytest.approx(sum(row["seconds_network"] for row in job.report.epochs))


class Event:
    """A mark in the queue of a device that is behind: it is reached at `ready`, on the device's clock."""

    now = 0.0

    def __init__(self, ready: float) -> None:
        self.ready = ready

    def query(self) -> bool:
        return Event.now >= self.ready

    def synchronize(self) -> None:
        Event.now = max(Event.now, self.ready)

    def elapsed_time(self, other: "Event") -> float:
        return (other.ready - self.ready) * 1e3


def test_on_a_device_that_is_behind_its_own_time_counts_and_no_mark_waits_for_it(monkeypatch):
    times = iter(float(number) for number in range(1, 1000))
    monkeypatch.setattr(machine, "timed_event", lambda device, spare=None: Event(next(times)))
    Event.now = 0.0
    watch = Stopwatch(torch.device("cuda"))
    for _ in range(50):
        for phase in ("data", "augment", "network", "step"):
            watch.mark(phase)
    assert Event.now == 0  # nobody has waited
    assert watch.take() == {"data": 50, "augment": 50, "network": 50, "step": 50}
    assert Event.now == 201
    Event.now = 150.0
    watch.start()
    next(times)
    watch.mark("save")
    assert watch.take() == {"save": 2}
