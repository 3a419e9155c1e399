"""Stopping anywhere and going on gives the bits of a run that was never stopped; limits end a run where they should."""

import copy
import math
import time
import types
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from processes import data_of
from sklearn.datasets import load_digits
from torch import nn

from cnntrain.augment.build import Augment
from cnntrain.augment.mix import Mix
from cnntrain.config.schema.augment import AugmentSettings, MixMode, MixSettings, ProgressiveSettings
from cnntrain.config.schema.optimizer import AdamWSettings, SgdSettings
from cnntrain.config.schema.pieces import CutmixSettings, MixupSettings
from cnntrain.config.schema.schedule import CosineSettings, PlateauSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import Precision, TrainerSettings
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.data.loaders import Batch
from cnntrain.errors import Interrupted, NonFiniteError
from cnntrain.models.drop import drop_layers
from cnntrain.optim import optimizers, schedules
from cnntrain.runtime.precision import grad_scaler
from cnntrain.runtime.seeds import generator, rng_state
from cnntrain.runtime.world import ALONE
from cnntrain.training import loop, timing
from cnntrain.training.ema import Ema
from cnntrain.training.job import TrainJob
from cnntrain.training.losses import Loss
from cnntrain.training.state import Progress, TrainState

CPU = torch.device("cpu")
SGD = SgdSettings(lr=0.1, weight_decay=1e-3, lr_base_batch=None, momentum=0.9, nesterov=True)
ADAMW = AdamWSettings(lr=1e-3, weight_decay=1e-2, lr_base_batch=None, beta1=0.9, beta2=0.99, eps=1e-8)


class Digits:
    """30 digits in micro-batches of 7: the last one holds 2."""

    batch_size = 7

    def __init__(self, images=30):
        digits = load_digits()
        self.images = images
        self.pixels = torch.tensor(digits.images[:images, None] * 15, dtype=torch.uint8)
        self.labels = torch.tensor(digits.target[:images])

    def __len__(self):
        return math.ceil(self.images / self.batch_size)

    def at(self, batch_size, image_size):
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def batches(self, epoch=0, start=0):
        order = torch.randperm(self.images, generator=generator(CPU, 1, epoch))
        for batch in order.split(self.batch_size)[start:]:
            yield Batch(self.pixels[batch], self.labels[batch], batch, len(batch))


class Silent:
    """A report that keeps the rows."""

    def __init__(self):
        self.steps, self.epochs = [], []
        self.step, self.epoch = self.steps.append, self.epochs.append

    def __getattr__(self, name):
        return lambda *args: None


def augment(images, context):
    shift = torch.rand(len(images), 1, 1, 1, generator=context.generator)
    return images.float() / 255 + shift * 0.1


def make_run(seed=0, ema=0.9, optimizer=None, precision=Precision.fp32):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 10)
    )
    settings = optimizer or SGD
    return TrainState(
        model=model,
        optimizer=optimizers.build_optimizer(settings, model, settings.lr, CPU),
        scaler=grad_scaler(precision, CPU),
        device=CPU,
        precision=precision,
        seed=3,
        ema=Ema(model, ema) if ema else None,
    )


def make_job(
    saved=None, schedule=None, stop=None, images=30, mix=None, progressive=None, batch_size=7, lr=0.1, **settings
):
    trainer = TrainerSettings(**({"epochs": 2, "log_every": 2, "save_every": 1} | settings))
    schedule = schedule or CosineSettings()
    plan = EpochPlan(
        images,
        batch_size=batch_size,
        image_size=8,
        epochs=trainer.epochs,
        accumulate=trainer.accumulate,
        progressive=progressive,
    )
    return TrainJob(
        settings=Settings(seed=3, schedule=schedule, trainer=trainer),
        data=data_of(train=Digits(images), val=Digits(20)),
        model=None,  # that of the run
        device=CPU,
        precision=Precision.fp32,
        channels_last=False,
        notes=[],
        warnings=[],
        plan=plan,
        rates=schedules.Rates(lr, SGD, schedule, plan),
        augment=cast(Augment, augment),
        mix=mix,
        loss=Loss(label_smoothing=0.1),
        normalize=lambda images: images.float() / 255,
        tuning=None,
        drops=[],
        recalibrate=None,
        world=ALONE,
        save=lambda state, best: saved.append(copy.deepcopy(state)) if saved is not None else None,
        report=Silent(),
        stop=stop or types.SimpleNamespace(requested=False, signum=None),
    )


def same(left, right, skip=("seconds", "train_seconds", "epoch_started", "spent")):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left if key not in skip)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def mix_of(**settings):
    return Mix(AugmentSettings(mixup=MixupSettings(), cutmix=CutmixSettings(), mix=MixSettings(**settings)), 10)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"trainer": {"accumulate": 2}},
    "micro-batches": {"trainer": {"accumulate": 2, "micro_batch": 3}},
    "clip": {"trainer": {"clip_norm": 0.5}},
    "no ema": {"run": {"ema": None}},
    "bf16": {"run": {"precision": Precision.bf16}},
    "plateau": {"schedule": PlateauSettings(patience=0)},
    "drop schedule": {"drops": True},
    "mixup and cutmix": {"job": {"mix": mix_of(mode=MixMode.element)}},
    "mixing ends early": {"job": {"mix": mix_of(off_epoch=1)}},
    "growing images": {"job": {"progressive": ProgressiveSettings(start=0.5, until=1.0)}},
    "adamw": {
        "job": {"lr": 0.01},
        "run": {"optimizer": AdamWSettings(lr=0.01, lr_base_batch=None, beta1=0.9, beta2=0.99, eps=1e-8)},
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_resume_at_any_step_gives_the_same_bits(name):
    """After each step of a plain training, and after every third of the others, each of which begins at another."""
    variant = VARIANTS[name]

    def job(run, saved):
        drops = drop_layers(run.model) if variant.get("drops") else []
        made = make_job(saved, variant.get("schedule"), **variant.get("job", {}), **variant.get("trainer", {}))
        return replace(made, drops=drops)

    saved = []
    whole = make_run(**variant.get("run", {}))
    loop.train(whole, job(whole, saved))
    steps = saved[:-1] if name == "plain" else saved[list(VARIANTS).index(name) % 3 : -1 : 3]
    for state in steps:
        resumed = make_run(seed=99, **variant.get("run", {}))
        resumed.restore(copy.deepcopy(state))
        loop.train(resumed, job(resumed, None))
        assert same(resumed.state(), whole.state()), f"differs when resumed at step {state['progress']['step']}"


@pytest.mark.parametrize(
    "lost", ["model", "optimizer", "rng", "ema", "progress", "plateau"], ids=lambda name: f"without {name}"
)
def test_every_part_of_the_state_is_needed(lost):
    """The control of the test above: it must fail when any part is not restored."""
    saved = []
    whole, schedule = make_run(), PlateauSettings(patience=0, threshold=0.5)
    loop.train(whole, make_job(saved, schedule=schedule, epochs=4))
    state = copy.deepcopy(saved[-3])
    fresh = make_run(seed=99)
    if lost == "rng":
        torch.manual_seed(5)
        fresh_rng = rng_state(CPU)
    state[lost] = fresh_rng if lost == "rng" else fresh.state()[lost]
    resumed = make_run(seed=99)
    resumed.restore(state)
    loop.train(resumed, make_job(schedule=schedule, epochs=4))
    assert not same(resumed.state(), whole.state())


def test_gradients_of_micro_batches_equal_those_of_one_batch():
    """Five micro-batches, the last of 2 images, against one batch of 30, in a net without batch statistics."""

    def trained(accumulate, batch_size):
        run = make_run(ema=None)
        run.model[1], run.model[4] = nn.Identity(), nn.Identity()
        job = make_job(epochs=1, accumulate=accumulate, batch_size=batch_size)
        job = replace(job, augment=lambda images, context: images.float() / 255)
        loop.train(run, job)
        assert run.progress.step == 1
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    assert torch.allclose(trained(5, 7), trained(1, 30), atol=1e-6)


def test_drop_rates_rise_from_nothing_over_the_run():
    run = make_run()
    rates, job = [], replace(make_job(log_every=1), drops=drop_layers(run.model))
    job.report.step = lambda row: rates.append(run.model[4].p)
    loop.train(run, job)
    assert rates == pytest.approx([0.2 * step / 10 for step in range(10)])


class TwoHeads(nn.Module):
    """Logits, and in training mode those of an auxiliary classifier too."""

    def __init__(self):
        super().__init__()
        self.main, self.side = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, images):
        values = images.flatten(1)
        return (self.main(values), self.side(values)) if self.training else self.main(values)


def test_auxiliary_losses_join_the_objective_by_their_weight():
    def trained(weight):
        run, job = make_run(ema=None), make_job(max_steps=1)
        job.settings.model.aux_weight = weight
        torch.manual_seed(0)
        run.model = run.forward = TwoHeads()
        settings = SgdSettings(lr=0.1, weight_decay=0.0, lr_base_batch=None, momentum=0.0, nesterov=False)
        run.optimizer = optimizers.build_optimizer(settings, run.model, 0.1, CPU)
        before = copy.deepcopy(run.model)
        loop.train(run, job)
        return [(after - old).detach() for after, old in zip(run.model.parameters(), before.parameters(), strict=True)]

    none, whole, half = trained(0.0), trained(1.0), trained(0.5)
    assert all(torch.equal(a, b) for a, b in zip(none[:2], half[:2], strict=True))  # the main head sees its own loss
    assert not any(change.any() for change in none[2:])
    for a, b in zip(half[2:], whole[2:], strict=True):
        assert b.any()
        assert torch.allclose(2 * a, b, atol=1e-6)


def test_the_network_learns():
    run, job = make_run(), make_job(epochs=30)
    loop.train(run, job)
    assert run.progress.best_top1 >= 0.9
    assert job.report.epochs[0]["val_loss"] > job.report.epochs[-1]["val_loss"]


def test_a_non_finite_loss_ends_the_run_and_is_never_saved():
    saved = []
    run, job = make_run(), make_job(saved, epochs=10, save_every=2, lr=1e30)
    with pytest.raises(NonFiniteError, match=r"step \d+: .*; try a lower optimizer.lr"):
        loop.train(run, job)
    assert all(torch.isfinite(value).all() for state in saved for value in state["model"].values())


def state_of(key, parameter):
    return lambda run: run.optimizer.state[parameter(run.model)][key]


@pytest.mark.parametrize(
    ("optimizer", "part", "name"),
    [
        (SGD, lambda run: run.model[1].running_var, "1.running_var"),
        (SGD, lambda run: run.ema.model[0].weight, "the average of 0.weight"),
        (SGD, state_of("momentum_buffer", lambda model: model[5].bias), "momentum_buffer of 5.bias"),
        (ADAMW, state_of("exp_avg_sq", lambda model: model[0].weight), "exp_avg_sq of 0.weight"),
    ],
)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_nothing_that_is_not_finite_reaches_a_checkpoint(optimizer, part, name, value):
    saved = []
    run, job = make_run(optimizer=optimizer), make_job(saved, epochs=1, save_every=2)
    loop.train(run, job)
    kept = len(saved)
    part(run).view(-1)[-1:] = value
    run.progress.epoch, run.progress.validated_step = 0, 0
    job.plan.epochs = 3
    with pytest.raises(NonFiniteError, match=f"{name} is NaN or infinite in places"):
        run.check_finite()
    with pytest.raises(NonFiniteError):
        loop.finish_epoch(run, job, timing.Clock(0.0, None))
    assert len(saved) == kept


def test_huge_values_are_no_fault_though_their_norm_is_infinite():
    run = make_run()
    run.model[1].running_var[0] = 3e38
    run.check_finite()


def test_a_mask_of_infinite_values_is_no_fault_and_stays_as_it_is_in_the_average():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))
    run = make_run()
    run = replace(run, model=model, optimizer=optimizers.build_optimizer(SGD, model, 0.1, CPU), ema=Ema(model, 0.9))
    saved = []
    loop.train(run, make_job(saved))
    assert torch.equal(run.ema.model.mask, model.mask)
    model.mask[0, 0] = math.nan
    run.restore(saved[-1])
    assert not model.mask[0, 0]


def test_a_loss_that_is_no_number_is_never_better():
    progress = Progress(best_top1=0.5, best_loss=math.nan)
    assert not progress.is_best({"top1": 0.5, "loss": math.nan})
    assert progress.is_best({"top1": 0.5, "loss": 9.0})
    assert not Progress(best_top1=0.5, best_loss=9.0).is_best({"top1": 0.5, "loss": math.nan})
    assert not Progress(best_top1=0.5, best_loss=math.inf).is_best({"top1": 0.5, "loss": math.inf})


def test_a_signal_saves_at_the_next_step():
    saved = []
    stop = types.SimpleNamespace(requested=False, signum=15)
    run, job = make_run(), make_job(saved, stop=stop, save_every=100)
    job.report.step = lambda row: setattr(stop, "requested", True)
    with pytest.raises(Interrupted) as caught:
        loop.train(run, job)
    assert caught.value.exit_code == 143
    assert [state["progress"]["step"] for state in saved] == [2]


def test_max_steps_ends_inside_an_epoch_and_can_be_extended():
    run = make_run()
    assert loop.train(run, make_job(max_steps=7)) == "max_steps"
    assert (run.progress.step, run.progress.epoch, run.progress.batch) == (7, 1, 2)
    assert loop.train(run, make_job()) == "epochs"
    assert (run.progress.step, run.progress.epoch) == (10, 2)


def test_max_time_ends_the_run_after_a_step():
    run = make_run()
    assert loop.train(run, make_job(max_time="0.0001s")) == "max_time"
    assert run.progress.step == 1
    assert run.progress.best_epoch == 1


def test_max_time_counts_the_seconds_of_all_resumes():
    run = make_run()
    run.progress.seconds, run.progress.validated_step = 60.0, 0
    assert loop.train(run, make_job(max_time="1m")) == "max_time"
    assert run.progress.step == 0
    run.progress.validated_step = -1  # killed between a step and the validation after it
    assert loop.train(run, make_job(max_time="1m")) == "max_time"
    assert run.progress.step == 1


def test_early_stop_counts_epochs_without_gain():
    run, job = make_run(), make_job(epochs=50, early_stop=2)
    run.lr = 1e-12
    assert loop.train(run, job) == "early_stop"
    assert run.progress.waited == 2


def test_scores_equal_a_plain_loop():
    run, job = make_run(), make_job()
    scores = job.scorer(run.model).score(job.data.val)
    with torch.no_grad():
        logits = run.model(job.data.val.pixels.float() / 255)
    loss = nn.functional.cross_entropy(logits, job.data.val.labels).item()
    ranks = logits.argsort(1, descending=True).eq(job.data.val.labels[:, None]).float().argmax(1)
    assert scores["loss"] == pytest.approx(loss, rel=1e-6)
    assert scores["top1"] == pytest.approx((ranks < 1).float().mean().item())
    assert scores["top5"] == pytest.approx((ranks < 5).float().mean().item())


def test_a_probe_is_scored_as_validation_is_and_told_beside_it():
    run, job = make_run(ema=None), make_job()
    rows = []
    job = replace(job, data=replace(job.data, probe=job.data.val))
    job.report.epoch = rows.append
    loop.train(run, job)
    assert [(row["probe_top1"], row["probe_loss"]) for row in rows] == [(r["val_top1"], r["val_loss"]) for r in rows]


def test_throughput_counts_the_whole_epoch_however_often_it_was_saved(monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    rates = []
    for save_every in (1, 1000):
        job = make_job([], epochs=1, save_every=save_every, log_every=1000)
        loop.train(make_run(), job)
        rates.append(job.report.epochs[0]["images_per_second"])
    assert rates[0] == pytest.approx(rates[1], rel=0.5)


def test_the_average_forgets_the_first_weights_soon():
    model = nn.Linear(1, 1)
    ema = Ema(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(1.0)
        for _ in range(100):
            ema.update()
    assert ema.model.weight.item() == pytest.approx(1.0, abs=1e-3)
