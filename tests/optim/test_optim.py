"""The learning rate is a pure function of the step, equal to torch's own schedulers; decay spares norms and biases."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from cnntrain.config.schema.augment import ProgressiveSettings
from cnntrain.config.schema.optimizer import AdamSettings, AdamWSettings, RmspropSettings, SgdSettings
from cnntrain.config.schema.schedule import (
    ConstantSettings,
    CosineSettings,
    ExponentialSettings,
    MultistepSettings,
    OneCycleSettings,
    PlateauSettings,
    PolynomialSettings,
    StepSettings,
)
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.optim import optimizers, schedules
from cnntrain.optim.eager import eager
from cnntrain.optim.parameter_groups import Learner, parameter_groups

TOTAL, PER_EPOCH = 60, 6
SGD: dict[str, Any] = {"lr": 0.1, "lr_base_batch": None, "momentum": 0.9, "nesterov": True}


def factors(settings, total=TOTAL):
    plateau = schedules.Plateau()
    return [schedules.factor(settings, step, total, PER_EPOCH, plateau) for step in range(total)]


def torch_factors(make, every=1):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for step in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return found


@pytest.mark.parametrize(
    ("settings", "make", "every"),
    [
        (ConstantSettings(), lambda o: lr_scheduler.ConstantLR(o, 1.0), 1),
        (CosineSettings(), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL), 1),
        (PolynomialSettings(power=2.0), lambda o: lr_scheduler.PolynomialLR(o, TOTAL, power=2.0), 1),
        (ExponentialSettings(decay=0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9 ** (1 / PER_EPOCH)), 1),
        (StepSettings(every=3.0), lambda o: lr_scheduler.StepLR(o, 3), PER_EPOCH),
        (MultistepSettings(milestones=[2.0, 7.0]), lambda o: lr_scheduler.MultiStepLR(o, [2, 7]), PER_EPOCH),
        (
            OneCycleSettings(end=0.0001),
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, div_factor=25, final_div_factor=400),
            1,
        ),
        (
            OneCycleSettings(end=0.0001, linear=True),
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, TOTAL, div_factor=25, final_div_factor=400, anneal_strategy="linear"
            ),
            1,
        ),
    ],
)
def test_each_schedule_equals_torchs_scheduler(settings, make, every):
    assert factors(settings) == pytest.approx(torch_factors(make, every), abs=1e-6)


def test_warmup_rises_in_a_line_and_the_schedule_fits_the_rest():
    found = factors(CosineSettings(warmup=2.0, warmup_start=0.1))
    assert found[:3] == pytest.approx([0.1, 0.175, 0.25])
    assert found[12:] == pytest.approx([(1 + math.cos(math.pi * step / 48)) / 2 for step in range(48)])


def test_warmup_joins_what_the_schedule_begins_with():
    found = factors(OneCycleSettings(warmup=2.0, start=0.04))
    assert found[:12] == pytest.approx([0.01 + 0.03 * step / 12 for step in range(12)])
    assert found[12:] == factors(OneCycleSettings(start=0.04), TOTAL - 12)
    assert factors(OneCycleSettings(warmup=1.0, start=0.0))[:7] == [0.0] * 7
    rise: dict[str, Any] = {"warmup": 2.5, "warmup_start": 0.0}
    for settings in (StepSettings(every=1.0, **rise), MultistepSettings(milestones=[1.0, 2.0], **rise)):
        found = factors(settings)  # two drops stand within the warm-up
        assert found[14] < found[15] == pytest.approx(0.01)
        assert max(found) == found[15]


@pytest.mark.parametrize("settings", [CosineSettings, PolynomialSettings, ExponentialSettings, OneCycleSettings])
def test_no_factor_is_above_1_where_the_warmup_ends_within_a_step(settings):
    plateau = schedules.Plateau()
    found = [schedules.factor(settings(warmup=0.35), step / 8, 10, 4, plateau) for step in range(80)]
    assert max(found) <= 1.0


def test_a_curve_reaches_its_end_one_step_after_the_last_so_that_with_an_end_of_0_every_step_learns():
    for settings in (CosineSettings(end=0.1), PolynomialSettings(end=0.1, power=2.0)):
        assert schedules.factor(settings, TOTAL, TOTAL, PER_EPOCH, schedules.Plateau()) == pytest.approx(0.1)
        assert factors(settings)[-1] > 0.1
    assert factors(CosineSettings(), 2)[-1] == pytest.approx(0.5)
    assert factors(OneCycleSettings(end=0.1))[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_finite_factors(total):
    for settings in (OneCycleSettings(), CosineSettings(warmup=5.0), PolynomialSettings()):
        assert all(0 <= factor <= 1 for factor in factors(settings, total))


def test_plateau_drops_after_patience_and_never_below_its_end():
    settings = PlateauSettings(factor=0.1, patience=1, end=0.05)
    plateau = schedules.Plateau()
    seen = []
    for loss in [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]:
        plateau.update(settings, loss)
        seen.append(schedules.factor(settings, 0, TOTAL, PER_EPOCH, plateau))
    assert seen == pytest.approx([1, 1, 1, 0.1, 0.1, 0.05, 0.05])


def test_plateau_waits_as_long_from_the_first_epoch_on():
    """A loss that is not finite is no gain, and the first finite one is."""
    plateau, seen = schedules.Plateau(), []
    for loss in [math.nan, math.inf, 1.0, 2.0]:
        plateau.update(PlateauSettings(factor=0.1, patience=1), loss)
        seen.append((plateau.factor, plateau.best))
    assert seen == [(1, math.inf), (0.1, math.inf), (0.1, 1), (0.1, 1)]


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2), nn.LayerNorm(2))
    decay, plain = parameter_groups(model, SgdSettings(**SGD, weight_decay=0.1))
    assert {id(p) for p in decay["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert len(plain["params"]) == 6
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_norms_and_biases_have_decays_of_their_own_where_asked():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2), nn.LayerNorm(2))
    settings = SgdSettings(**SGD, weight_decay=0.1, norm_weight_decay=0.02, bias_weight_decay=0.003)
    groups = {group["weight_decay"]: {id(p) for p in group["params"]} for group in parameter_groups(model, settings)}
    assert groups == {
        0.1: {id(model[0].weight), id(model[3].weight)},
        0.02: {id(p) for layer in (model[1], model[4]) for p in layer.parameters()},
        0.003: {id(model[0].bias), id(model[3].bias)},
    }


def test_a_learner_learns_at_the_full_rate_and_decay_unless_it_says_otherwise():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False))
    fast = Learner("fast", [model[1].weight])
    slow = Learner("slow", [model[0].weight], lr_factor=0.5, wd_factor=4.0)
    settings = SgdSettings(**SGD, weight_decay=0.1)
    optimizer = optimizers.build_optimizer(settings, model, 0.1, torch.device("cpu"), [fast, slow])
    optimizers.set_lr(optimizer, 0.2)
    groups = optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.2, 0.1), (0.1, 0.4)]
    assert [id(group["params"][0]) for group in groups] == [id(model[1].weight), id(model[0].weight)]


def rates(schedule, *, lr=0.1, epochs=10, progressive=None, base=128):
    plan = EpochPlan(1280, batch_size=128, image_size=32, epochs=epochs, progressive=progressive)
    made = schedules.Rates(lr, SgdSettings(**SGD | {"lr_base_batch": base}), schedule, plan)
    return [made.at(step, plan.total, schedules.Plateau()) for step in range(plan.total)], plan


@pytest.mark.parametrize("schedule", [CosineSettings(warmup=1.5), OneCycleSettings(), StepSettings(every=3)])
def test_without_growing_images_the_rate_is_the_schedules_factor_bit_by_bit(schedule):
    found, plan = rates(schedule)
    wanted = [0.1 * schedules.factor(schedule, step, 100, 10, schedules.Plateau()) for step in range(100)]
    assert plan.total == 100
    assert found == wanted


def test_growing_images_keep_the_schedule_at_its_place_of_the_run_and_scale_the_rate_with_the_batch():
    growing = ProgressiveSettings(start=0.5, until=0.5, multiple=16)
    found, plan = rates(CosineSettings(), progressive=growing)
    assert plan.stage(0).batch_size == 4 * 128
    for step, rate in enumerate(found):
        share = schedules.factor(CosineSettings(), plan.position(step), 10, 1, schedules.Plateau())
        larger = plan.stage(int(plan.position(step) + 1e-9)).batch_size / 128
        assert rate == pytest.approx(0.1 * share * larger)
    as_given, _ = rates(ConstantSettings(), progressive=growing, base=None)
    assert set(as_given) == {0.1}


def test_a_weight_that_two_layers_share_is_stepped_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert [len(group["params"]) for group in parameter_groups(model, SgdSettings(**SGD))] == [1, 2]


@pytest.fixture
def unwritten_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("unwritten_memory_is_nan")
def test_a_first_step_that_the_scaler_skips_leaves_the_momentum_at_zero():
    model = nn.Linear(2, 1)
    optimizer = optimizers.build_optimizer(SgdSettings(**SGD), model, 0.1, torch.device("cpu"))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    before = model.weight.detach().clone()
    for gradient in (torch.inf, 2.0**16):
        model.weight.grad = torch.full_like(model.weight, gradient)
        model.bias.grad = torch.zeros_like(model.bias)
        scaler.scale(torch.zeros(()))
        scaler.step(optimizer)
        scaler.update(2.0**16)
    assert torch.allclose(model.weight, before - 0.1 * 1.9)  # one Nesterov step of gradient 1


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (SgdSettings(**SGD), torch.optim.SGD),
        (AdamSettings(lr=0.1, lr_base_batch=None, beta1=0.9, beta2=0.99, eps=1e-8), torch.optim.Adam),
        (AdamWSettings(lr=0.1, lr_base_batch=None, beta1=0.9, beta2=0.99, eps=1e-8), torch.optim.AdamW),
        (RmspropSettings(lr=0.1, lr_base_batch=None, alpha=0.9, momentum=0.9, eps=1e-8), torch.optim.RMSprop),
    ],
)
def test_each_optimizer_is_torchs_with_our_numbers(settings, kind):
    optimizer = optimizers.build_optimizer(settings, nn.Linear(2, 2), 0.05, torch.device("cpu"))
    assert isinstance(optimizer, kind)
    assert type(optimizer).__name__ == kind.__name__
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.05
    wanted = {"momentum": "momentum", "alpha": "alpha", "eps": "eps", "nesterov": "nesterov"}
    assert all(group[name] == getattr(settings, key) for key, name in wanted.items() if hasattr(settings, key))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_an_eager_optimizer_steps_as_torchs_own_and_their_states_fit_each_other(kind):
    options = {"lr": 0.1, "weight_decay": 0.01} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    models = [nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours, theirs = eager(kind)(models[0].parameters(), **options), kind(models[1].parameters(), **options)
    for number in range(4):
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            model(torch.ones(4, 3) * number).square().sum().backward()
            assert torch.is_grad_enabled()
            optimizer.step()
        if number == 1:
            first, second = ours.state_dict(), theirs.state_dict()
            ours.load_state_dict(second)
            theirs.load_state_dict(first)
    assert torch.equal(models[0].weight, models[1].weight)
    assert all(torch.is_grad_enabled() and not parameter.grad.requires_grad for parameter in models[0].parameters())


def test_the_rate_follows_the_batch_linearly_for_sgd_and_by_the_root_for_adam():
    sgd = SgdSettings(**SGD | {"lr_base_batch": 128})
    adam = AdamSettings(lr=0.1, lr_base_batch=64, beta1=0.9, beta2=0.99, eps=1e-8)
    assert schedules.scaled_rate(sgd, 256) == (pytest.approx(0.2), "0.2 (0.1 x 256/128)")
    assert schedules.scaled_rate(adam, 256)[0] == pytest.approx(0.2)
    assert schedules.scaled_rate(SgdSettings(**SGD), 4096)[0] == 0.1
