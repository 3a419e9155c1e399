"""Under fp16, a step that the loss scaler skips leaves no trace, and a run that takes no step any more is ended."""

import copy
import itertools
import math

import pytest
import torch
from launches import launches
from test_loop import CPU, SGD, make_job, make_run, same
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnntrain.config.schema.trainer import Precision
from cnntrain.errors import NonFiniteError
from cnntrain.optim import optimizers
from cnntrain.training import loop
from cnntrain.training.ema import Ema
from cnntrain.training.skipped_steps import SkippedSteps


def run_of_fp16(scale, **words):
    run = make_run(precision=Precision.fp16, **words)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    run.__post_init__()
    return run


def parts(run):
    """What a step changes: weights, statistics, their averages and the state of the optimizer."""
    state = copy.deepcopy(run.state())
    return {name: state[name] for name in ("model", "ema", "optimizer")}


def steps(run, job, count):
    """The state after each of so many steps, before them first."""
    run.start_epoch()
    batches = job.loader(0).batches()
    found = [parts(run)]
    for _ in range(count):
        batch = next(batches)
        loop.train_step(run, job, [batch], batch.total)
        found.append(parts(run))
    return found


def weights(state):
    return [value for name, value in state["model"].items() if "running" not in name and "tracked" not in name]


def test_a_skipped_step_leaves_weights_statistics_average_and_momentum_as_they_were():
    run = run_of_fp16(2.0**40)
    before, *after = steps(run, make_job(), 3)
    assert before["ema"]["updates"] == 0
    for state in after:  # scaled so, each gradient is infinite
        state["optimizer"]["param_groups"] = before["optimizer"]["param_groups"]  # the rate goes on
        assert same(state, before)
    assert run.scaler.get_scale() == 2.0**37
    assert run.progress.step == 3  # images are used up, and the schedule is fitted to them


def test_an_average_that_the_device_weighs_is_the_same():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    one, other = Ema(model, 0.6), Ema(model, 0.6)
    for _ in range(12):
        model(torch.randn(4, 3))
        with torch.no_grad():
            model[0].weight += torch.randn(2, 3)
        one.update()
        other.update(torch.zeros(()))
        for left, right in zip(*(ema.model.state_dict().values() for ema in (one, other)), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    assert one.state()["updates"] == other.state()["updates"] == 12


def test_the_average_counts_the_steps_that_were_taken():
    run = run_of_fp16(2.0**19)
    states = steps(run, make_job(), 5)
    taken = [not same(weights(old), weights(new)) for old, new in itertools.pairwise(states)]
    assert 0 < sum(taken) < 5
    assert [state["ema"]["updates"] for state in states[1:]] == [sum(taken[: n + 1]) for n in range(5)]
    first = taken.index(True) + 1  # the average begins with the weights of the first step
    for name, value in states[first]["model"].items():
        assert torch.allclose(states[first]["ema"]["model"][name].float(), value.float(), atol=1e-7)


def test_a_resume_between_skipped_steps_gives_the_same_bits():
    saved = []
    whole = run_of_fp16(2.0**21)
    loop.train(whole, make_job(saved))
    assert saved[-1]["ema"]["updates"] < saved[-1]["progress"]["step"]
    for state in saved[:-1:2]:
        resumed = run_of_fp16(1.0, seed=99)
        resumed.restore(copy.deepcopy(state))
        loop.train(resumed, make_job())
        assert same(resumed.state(), whole.state())


class NoReading(TorchDispatchMode):
    """Refuses what would make the host wait for the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_the_host_does_not_read_whether_a_step_is_skipped():
    run, job = run_of_fp16(2.0**16), make_job(log_every=99)
    run.start_epoch()
    batch = next(job.loader(0).batches())
    with NoReading():
        loop.train_step(run, job, [batch], batch.total)
    with pytest.raises(AssertionError), NoReading():
        run.state()


def test_what_skipped_steps_ask_for_is_a_score_of_launches_however_deep_the_network_is():
    deep = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(40)))
    run = make_run(precision=Precision.fp16)
    skips, ema = SkippedSteps(deep, run.scaler, run.optimizer), Ema(deep, 0.9)
    run.scaler.scale(run.model(torch.rand(2, 1, 8, 8)).sum()).backward()
    run.scaler.step(run.optimizer)
    ema.update(torch.zeros(()))

    def work():
        skips.keep()
        ema.update(skips.undo())

    assert launches(work).total() <= 24, launches(work)


class SideOverflows(nn.Module):
    """A network whose second classifier meets an infinite value in its second step, and in no other."""

    def __init__(self):
        super().__init__()
        self.main, self.norm, self.side = nn.Linear(64, 10), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.calls = 0

    def forward(self, images):
        values = images.flatten(1)
        if not self.training:
            return self.main(values)
        self.calls += 1
        return self.main(values), self.side(self.norm(values * (math.inf if self.calls == 2 else 1.0)))


def test_statistics_that_became_infinite_in_a_skipped_step_are_put_back():
    run, job = run_of_fp16(2.0**4), make_job(log_every=1)
    run.model = SideOverflows()
    run.optimizer = optimizers.build_optimizer(SGD, run.model, 0.01, CPU)
    run.ema = None
    run.__post_init__()
    states = steps(run, job, 3)
    assert same(states[2]["model"], states[1]["model"])
    assert not same(weights(states[3]), weights(states[2]))
    run.check_finite()


def test_a_run_whose_gradient_is_never_finite_ends_with_advice():
    run, job = run_of_fp16(2.0**-22), make_job(log_every=1, epochs=20)
    run.model[5].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteError, match=r"step 3: the gradient is NaN or infinite in each step.*precision=fp32"):
        loop.train(run, job)
