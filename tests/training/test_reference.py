"""Whole runs of the loop, built as the command builds them, equal runs that are written plainly with torch alone."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import reference
import torch
from reference import Group
from safetensors.torch import save_file

from cnntrain.config.compose import compose_settings
from cnntrain.training import build as setup
from cnntrain.training import loop

# 30 images in micro-batches of 7, the last of 2, and in steps of two micro-batches, the last of one.
KEYS = {
    "model": "lenet5",
    "model.aux_weight": 0.0,
    "data": "digits",
    "data.limit": 30,
    "data.val": 40,
    "data.image_size": 8,
    "data.batch_size": 7,
    "augment": "none",
    "optimizer": "sgd",
    "optimizer.lr": 0.05,
    "optimizer.lr_base_batch": 10,
    "optimizer.weight_decay": 0.02,
    "optimizer.norm_weight_decay": 0.01,
    "optimizer.bias_weight_decay": 0.005,
    "schedule": "constant",
    "schedule.warmup": 0.0,
    "schedule.warmup_start": 0.2,
    "loss.label_smoothing": 0.0,
    "loss.class_weights": None,
    "trainer.epochs": 3,
    "trainer.max_steps": None,
    "trainer.accumulate": 2,
    "trainer.clip_norm": None,
    "trainer.ema": None,
    "trainer.probe": 0,
    "trainer.device": "cpu",  # the reference is one of fp32 on the CPU
    "trainer.threads": 1,
    "trainer.log_every": 1,
    "trainer.save_every": 1,
}
SGD = {"optimizer.momentum": 0.8, "optimizer.nesterov": False}
ADAM = {"optimizer.lr": 0.004, "optimizer.beta1": 0.7, "optimizer.beta2": 0.9, "optimizer.eps": 0.01}
RMSPROP = {"optimizer.lr": 0.004, "optimizer.alpha": 0.8, "optimizer.momentum": 0.6, "optimizer.eps": 0.01}
LISTED = [0.5, 1, 2, 3, 1.5, 1, 0.7, 1, 1, 4]
PIECES = {"finetune.groups": ["conv1|bn1", "conv2|bn2"]}
WHOLE = [Group(("",))]

CASES: dict[str, dict[str, Any]] = {
    "nesterov": {"optimizer.nesterov": True},
    "momentum": {},
    "no momentum": {"optimizer.momentum": 0.0, "optimizer.nesterov": True},
    "the rate as given": {"optimizer.lr_base_batch": None},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
    "rmsprop": {"optimizer": "rmsprop"},
    "cosine": {"schedule": "cosine", "schedule.end": 0.3},
    "polynomial": {"schedule": "polynomial", "schedule.power": 2.5, "schedule.end": 0.2},
    "exponential": {"schedule": "exponential", "schedule.decay": 0.6},
    "step": {"schedule": "step", "schedule.every": 0.9, "schedule.factor": 0.5},
    "multistep": {"schedule": "multistep", "schedule.milestones": [1.0, 2.3], "schedule.factor": 0.4},
    "onecycle": {
        "schedule": "onecycle",
        "schedule.peak": 0.4,
        "schedule.start": 0.1,
        "schedule.end": 0.02,
        "schedule.linear": False,
    },
    "plateau": {
        "schedule": "plateau",
        "schedule.factor": 0.3,
        "schedule.patience": 1,
        "schedule.threshold": 0.1,
        "schedule.end": 0.2,
        "trainer.epochs": 14,
    },
    "clipping": {"trainer.clip_norm": 0.5},
    "auxiliary classifier": {"model": "inception_v1", "model.aux_weight": 0.3},
    "mixing": {"augment": "mixup"},
    "mixing and smoothing": {"augment": "[mixup,cutmix]", "augment.mix.mode": "pair", "loss.label_smoothing": 0.2},
    "smoothing": {"loss.label_smoothing": 0.1},
    "balanced": {"loss.class_weights": "balanced"},
    "effective": {"loss.class_weights": "effective", "loss.beta": 0.7, "loss.label_smoothing": 0.1},
    "listed weights": {"loss.class_weights": LISTED},
    "average in its warm-up": {"trainer.ema": 0.999},
    "average": {"trainer.ema": 0.4},
    "cut short": {"schedule": "cosine", "schedule.end": 0.1, "trainer.max_steps": 7},
    "all": {
        "model": "inception_v1",
        "model.aux_weight": 0.4,
        "augment": "mixup",
        "schedule": "cosine",
        "schedule.end": 0.1,
        "schedule.warmup": 1.5,
        "loss.label_smoothing": 0.1,
        "loss.class_weights": "balanced",
        "trainer.clip_norm": 1.0,
        "trainer.ema": 0.5,
    },
}
WARM = ("constant", "polynomial", "exponential", "step", "multistep", "onecycle")
CASES |= {f"{name} after a warm-up": CASES.get(name, {}) | {"schedule.warmup": 0.7} for name in WARM}
CASES["straight onecycle"] = CASES["onecycle"] | {"schedule.linear": True}

# Beside the keys, what they say of each group.
TUNED = {
    "one rate": (PIECES | {"finetune": "B"}, WHOLE),
    "factors of rate and decay": (
        PIECES
        | {
            "finetune": "C",
            "finetune.lr_decay": None,
            "finetune.lr_factors": [0.1, 0.3, 0.8],
            "finetune.wd_factors": [3.0, 2.0, 0.5],
        },
        [Group(("conv1", "bn1"), 0.1, 3.0), Group(("conv2", "bn2"), 0.3, 2.0), Group(("fc", "aux1"), 0.8, 0.5)],
    ),
    "decays from the head down": (
        PIECES | {"finetune": "C", "finetune.lr_decay": 0.6, "finetune.wd_decay": 0.3, "optimizer": "adamw"},
        [Group(("conv1", "bn1"), 0.36, 0.09), Group(("conv2", "bn2"), 0.6, 0.3), Group(("fc", "aux1"))],
    ),
    "groups that open one after the other": (
        PIECES | {"finetune": "C", "finetune.lr_decay": 0.5, "finetune.unfreeze": [2, 4], "optimizer": "adam"},
        [Group(("conv1", "bn1"), 0.25, 1, 3), Group(("conv2", "bn2"), 0.5, 1, 1), Group(("fc", "aux1"))],
    ),
    "a frozen group": (
        PIECES
        | {
            "finetune": "C",
            "finetune.lr_decay": None,
            "finetune.lr_factors": [0, 0.5, 1.0],
            "schedule": "cosine",
            "schedule.end": 0.1,
        },
        [Group(("conv1", "bn1"), 0, 1, 99), Group(("conv2", "bn2"), 0.5), Group(("fc", "aux1"))],
    ),
}


class Told:
    """A report that keeps the rows."""

    def __init__(self):
        self.steps, self.epochs = [], []
        self.step, self.epoch = self.steps.append, self.epochs.append

    def __getattr__(self, name):
        return lambda *args: None


def words(keys):
    """As typed, choices of a group before its keys."""
    typed = {key: value if isinstance(value, str) else json.dumps(value) for key, value in keys.items()}
    return [f"{key}={typed[key]}" for key in sorted(typed, key=lambda key: "." in key)]


def completed(keys):
    """All keys of a case: what its optimizer has too, away from its defaults."""
    chosen = KEYS | keys
    own = {"sgd": SGD, "adam": ADAM, "adamw": ADAM, "rmsprop": RMSPROP}[chosen["optimizer"]]
    return KEYS | own | keys


def batches_of(job):
    """The micro-batches of an epoch as the network gets them."""

    def batches(epoch):
        made = []
        for number, batch in enumerate(job.data.train.batches(epoch)):
            context = job.context(epoch, number, batch.indices)
            inputs, targets = job.augment(batch.images, context), batch.labels
            made.append(job.mix(inputs, targets, context) if job.mix else (inputs, targets))
        return made

    return batches


def check(keys, groups, monkeypatch):
    """Train with the loop and with the reference, and compare them step by step; answers what the reference did."""
    keys = completed(keys)
    monkeypatch.setattr(setup, "build_model", lambda *args, **kwargs: (reference.Net(), []))
    told = Told()
    job = setup.build_train_job(compose_settings(words(keys)), told, splits=("train", "val"))
    job.model.answers_twice = keys["model.aux_weight"] > 0
    net, run = copy.deepcopy(job.model), setup.build_state(job)
    weights, averages = {}, {}

    def save(state, best):
        weights[run.progress.step] = copy.deepcopy(state["model"])
        averages[run.progress.step] = copy.deepcopy(state["ema"]["model"]) if state["ema"] else None

    loop.train(run, replace(job, save=save))

    images, labels, *_ = map(torch.cat, list(zip(*job.data.val.batches(), strict=True))[:2])
    class_weights = reference.counted_weights(keys, job.data.train.labels)
    done = reference.train(net, keys, batches_of(job), (job.normalize(images), labels), class_weights, groups)

    assert list(weights) == list(range(1, len(done.weights) + 1))
    for step, (own, average) in enumerate(zip(done.weights, done.averages, strict=True), start=1):
        close(weights[step], own, f"weights after step {step}")
        if keys["trainer.ema"]:
            close(averages[step], average, f"averages after step {step}")
    for key, values in (("loss", done.losses), ("grad_norm", done.norms)):
        assert [row[key] for row in told.steps] == pytest.approx(values, rel=1e-5, abs=1e-6)
    assert [row["lr"] for row in told.steps] == pytest.approx([rates[0] for rates in done.rates], rel=1e-6)
    assert [row["val_loss"] for row in told.epochs] == pytest.approx(done.val_losses, rel=1e-5, abs=1e-6)
    last = dict.fromkeys(group["lr"] for group in run.optimizer.param_groups)
    assert list(last) == pytest.approx([rate for rate in done.rates[-1] if rate], rel=1e-6)
    return done


def close(found, wanted, what):
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        distance = ((value - wanted[name]).abs() / wanted[name].abs().clamp(1)).max().item()
        assert distance <= 1e-6, f"{what}: {name} differs by {distance:.3g}"


@pytest.mark.parametrize("keys", CASES.values(), ids=CASES.keys())
def test_a_run_equals_one_written_plainly(keys, monkeypatch):
    check(keys, WHOLE, monkeypatch)


@pytest.mark.parametrize(("keys", "groups"), TUNED.values(), ids=TUNED.keys())
def test_fine_tuning_equals_a_run_written_plainly(keys, groups, tmp_path, monkeypatch):
    weights = tmp_path / "weights.safetensors"
    save_file(reference.Net().state_dict(), weights)
    schedule = {"schedule": "constant", "trainer.epochs": 5}
    check(schedule | keys | {"model.pretrained": False, "model.weights": str(weights)}, groups, monkeypatch)


def test_the_plateau_of_these_runs_drops_and_meets_its_end(monkeypatch):
    """The control: a schedule that never moves would equal any other."""
    rates = [rates[0] for rates in check(CASES["plateau"], WHOLE, monkeypatch).rates]
    assert sorted({round(rate / rates[0], 6) for rate in rates}) == [0.2, 0.3, 1.0]
