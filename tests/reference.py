"""Training runs written plainly, after the papers and with torch alone: what the loop must equal.

Nothing of cnntrain is imported here. Settings come as a flat dict of what would be typed, {"optimizer.lr": 0.1}.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Keys = dict[str, Any]
Batch = tuple[Tensor, Tensor]
CLASSES = 10


class Net(nn.Module):
    """Two layers with batch norms, a classifier and, where asked for, an auxiliary one: (N, 1, 8, 8) to (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 2), nn.BatchNorm2d(6)
        self.aux1, self.fc = nn.Linear(36, CLASSES), nn.Linear(24, CLASSES)
        self.answers_twice = False

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        low = self.bn1(self.conv1(images)).relu()
        logits = self.fc(self.bn2(self.conv2(low)).relu().flatten(1))
        return (logits, self.aux1(low.flatten(1))) if self.answers_twice and self.training else logits


@dataclass
class Group:
    """Layers that learn together: by the beginnings of their names, with factors of rate and decay."""

    layers: tuple[str, ...]
    lr_factor: float = 1.0
    wd_factor: float = 1.0
    opens: int = 0  # the first epoch, from 0, in which it learns

    def holds(self, name: str) -> bool:
        return name.startswith(self.layers)


@dataclass
class Steps:
    """What happened: an entry per step, and per epoch."""

    weights: list[dict[str, Tensor]] = field(default_factory=list)
    averages: list[dict[str, Tensor]] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)  # of each group, the head first
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # of the gradient, before it is clipped
    val_losses: list[float] = field(default_factory=list)


def train(
    net: nn.Module,
    keys: Keys,
    batches: Callable[[int], list[Batch]],
    val: Batch,
    class_weights: Tensor,
    groups: list[Group],
) -> Steps:
    """Train `net` in place on the micro-batches of each epoch: inputs (N, C, H, W), labels (N,) or shares (N, K)."""
    done, state = Steps(), {name: {"steps": 0} for name, _ in net.named_parameters()}
    average, plateau, step = copy.deepcopy(net), Plateau(), 0
    per_epoch = math.ceil(len(batches(0)) / keys["trainer.accumulate"])
    steps = min(keys["trainer.epochs"] * per_epoch, keys["trainer.max_steps"] or math.inf)
    for epoch in range(keys["trainer.epochs"]):
        set_modes(net, groups, epoch)
        micro_batches = batches(epoch)
        while micro_batches and step < steps:
            rate = full_rate(keys) * factor(keys, step, steps, per_epoch, plateau)
            group, micro_batches = cut(micro_batches, keys["trainer.accumulate"])
            loss, gradients = gradient(net, keys, group, class_weights)
            norm = math.sqrt(sum(float(one.square().sum()) for one in gradients.values()))
            shrink = min(1.0, (keys["trainer.clip_norm"] or math.inf) / norm)
            for name, parameter in net.named_parameters():
                if name in gradients:
                    home = next(one for one in groups if one.holds(name))
                    decay = decay_of(keys, name, parameter) * home.wd_factor
                    update(keys, parameter.data, gradients[name] * shrink, state[name], rate * home.lr_factor, decay)
            average_in(average, net, keys["trainer.ema"], step)
            step += 1
            done.weights.append(copy.deepcopy(net.state_dict()))
            done.averages.append(copy.deepcopy(average.state_dict()))
            done.rates.append([rate * one.lr_factor for one in reversed(groups)])
            done.losses.append(loss)
            done.norms.append(norm)
        done.val_losses.append(score(average if keys["trainer.ema"] else net, val))
        if keys["schedule"] == "plateau":
            plateau.look(keys, done.val_losses[-1])
        if step == steps:
            break
    return done


def cut(micro_batches: list[Batch], count: int) -> tuple[list[Batch], list[Batch]]:
    return micro_batches[:count], micro_batches[count:]


def set_modes(net: nn.Module, groups: list[Group], epoch: int) -> None:
    """Layers that do not learn yet take no gradient, and their batch norms use and keep their running statistics."""
    net.train()
    for home in groups:
        for name, parameter in net.named_parameters():
            if home.holds(name):
                parameter.requires_grad_(epoch >= home.opens)
        for name, module in net.named_modules():
            if name and home.holds(name):
                module.train(epoch >= home.opens)


def gradient(net: nn.Module, keys: Keys, group: list[Batch], weights: Tensor) -> tuple[float, dict[str, Tensor]]:
    """The mean loss over the images of a step, that of the classifier alone, and the gradient of the whole mean."""
    images = sum(len(targets) for _, targets in group)
    net.zero_grad()
    total = 0.0
    for inputs, targets in group:
        answers = net(inputs)
        logits, *auxiliary = answers if isinstance(answers, tuple) else (answers,)
        own = loss_of(logits, targets, keys["loss.label_smoothing"], weights)
        more = [loss_of(answer, targets, keys["loss.label_smoothing"], weights) for answer in auxiliary]
        ((own + keys["model.aux_weight"] * sum(more)) / images).backward()
        total += own.item()
    found = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    return total / images, found


def loss_of(logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor) -> Tensor:
    """Cross-entropy over the images: a part of each target goes to all classes alike, each class has its weight."""
    if targets.ndim == 1:
        targets = functional.one_hot(targets, CLASSES)
    shares = targets * (1 - smoothing) + smoothing / CLASSES
    return -(weights * shares * logits.log_softmax(1)).sum()


def counted_weights(keys: Keys, labels: Tensor) -> Tensor:
    """The weights of the classes, their mean over the training images being 1."""
    counts = labels.bincount(minlength=CLASSES).double()
    match keys["loss.class_weights"]:
        case None:
            return torch.ones(CLASSES)
        case "balanced":
            weights = len(labels) / (CLASSES * counts)
        case "effective":
            weights = (1 - keys["loss.beta"]) / (1 - keys["loss.beta"] ** counts)
        case given:
            weights = torch.tensor(given, dtype=torch.float64)
    return (weights / weights[labels].mean()).float()


@torch.no_grad()
def score(net: nn.Module, val: Batch) -> float:
    """The plain mean loss in evaluation mode."""
    inputs, labels = val
    training = [(module, module.training) for module in net.modules()]
    loss = functional.cross_entropy(net.eval()(inputs), labels).item()
    for module, mode in training:
        module.training = mode
    return loss


# --- what a step does with a gradient --------------------------------------------------------------------------------


def decay_of(keys: Keys, name: str, parameter: Tensor) -> float:
    if name.startswith("bn"):
        return keys["optimizer.norm_weight_decay"]
    return keys["optimizer.weight_decay" if parameter.ndim > 1 else "optimizer.bias_weight_decay"]


def update(keys: Keys, weight: Tensor, gradient: Tensor, state: dict[str, Any], rate: float, decay: float) -> None:
    """A step of the optimizer for one tensor, in place."""
    state["steps"] += 1
    name, steps = keys["optimizer"], state["steps"]

    def kept(key: str) -> Tensor:
        return state.setdefault(key, torch.zeros_like(weight))

    if name == "adamw":
        weight -= rate * decay * weight  # apart from the gradient
    else:
        gradient = gradient + decay * weight
    if name == "sgd":
        speed, momentum = kept("speed"), keys["optimizer.momentum"]
        speed.mul_(momentum).add_(gradient)
        weight -= rate * (gradient + momentum * speed if keys["optimizer.nesterov"] else speed)
    elif name in ("adam", "adamw"):
        first, second = keys["optimizer.beta1"], keys["optimizer.beta2"]
        mean, square = kept("mean"), kept("square")
        mean.mul_(first).add_((1 - first) * gradient)
        square.mul_(second).add_((1 - second) * gradient**2)
        mean, square = mean / (1 - first**steps), square / (1 - second**steps)
        weight -= rate * mean / (square.sqrt() + keys["optimizer.eps"])
    else:
        alpha, speed, square = keys["optimizer.alpha"], kept("speed"), kept("square")
        square.mul_(alpha).add_((1 - alpha) * gradient**2)
        speed.mul_(keys["optimizer.momentum"]).add_(gradient / (square.sqrt() + keys["optimizer.eps"]))
        weight -= rate * speed


@torch.no_grad()
def average_in(average: nn.Module, net: nn.Module, decay: float | None, steps: int) -> None:
    """The moving average after `steps` earlier steps; the first of all is the network itself, counters are copied."""
    kept = min(decay or 0, (1 + steps) / (10 + steps)) if steps else 0
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        mean.copy_(kept * mean + (1 - kept) * value if value.is_floating_point() else value)


# --- the learning rate -----------------------------------------------------------------------------------------------


def full_rate(keys: Keys) -> float:
    """In proportion to the images of a step, or to their square root for the Adams."""
    if keys["optimizer.lr_base_batch"] is None:
        return keys["optimizer.lr"]
    ratio = keys["data.batch_size"] * keys["trainer.accumulate"] / keys["optimizer.lr_base_batch"]
    return keys["optimizer.lr"] * (math.sqrt(ratio) if keys["optimizer"].startswith("adam") else ratio)


@dataclass
class Plateau:
    factor: float = 1.0
    best: float = math.inf
    without_gain: int = 0

    def look(self, keys: Keys, loss: float) -> None:
        if loss < (1 - keys["schedule.threshold"]) * self.best:
            self.best, self.without_gain = loss, 0
            return
        self.without_gain += 1
        if self.without_gain > keys["schedule.patience"]:
            self.without_gain = 0
            self.factor = max(self.factor * keys["schedule.factor"], keys["schedule.end"])


def factor(keys: Keys, step: int, steps: int, per_epoch: int, plateau: Plateau) -> float:
    """What the rate is multiplied with at a step, from 0: a straight rise to what the schedule begins with, then it."""
    warmup = keys["schedule.warmup"] * per_epoch
    if step >= warmup:
        return proper(keys, step, steps, per_epoch, plateau, math.ceil(warmup))
    top = proper(keys, math.ceil(warmup), steps, per_epoch, plateau, math.ceil(warmup))
    return interpolated(min(keys["schedule.warmup_start"], top), top, step / warmup)


def proper(keys: Keys, step: int, steps: int, per_epoch: int, plateau: Plateau, first: int) -> float:
    """Drops count epochs from that of step 0; curves run from the first step after the warm-up to the end."""
    epoch = step / per_epoch
    step, steps = step - first, steps - first
    match keys["schedule"]:
        case "constant":
            return 1.0
        case "cosine":
            return curved(1.0, keys["schedule.end"], step / steps)
        case "polynomial":
            return interpolated(keys["schedule.end"], 1.0, (1 - step / steps) ** keys["schedule.power"])
        case "exponential":
            return keys["schedule.decay"] ** (step / per_epoch)
        case "step":
            return keys["schedule.factor"] ** math.floor(epoch / keys["schedule.every"])
        case "multistep":
            return keys["schedule.factor"] ** len([one for one in keys["schedule.milestones"] if one <= epoch])
        case "plateau":
            return plateau.factor
    along = interpolated if keys["schedule.linear"] else curved
    peak, last = keys["schedule.peak"] * steps - 1, steps - 1
    if step <= peak:
        return along(keys["schedule.start"], 1.0, step / peak)
    return along(1.0, keys["schedule.end"], (step - peak) / (last - peak))


def interpolated(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


def curved(start: float, end: float, part: float) -> float:
    """Half a cosine."""
    return interpolated(start, end, (1 - math.cos(math.pi * part)) / 2)
