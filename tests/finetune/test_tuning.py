"""What learns in which epoch, that nothing else moves, and that a fault of either kind stops the run."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional
from tuned import CLASSES, groups_of, images, make_net, make_tuning

from cnntrain.config.schema.finetune import FinetuneSettings, Mode, NormPolicy
from cnntrain.config.schema.optimizer import SgdSettings
from cnntrain.errors import CheckpointError, ConfigError, FrozenError
from cnntrain.finetune.layer_groups import LayerGroup
from cnntrain.finetune.tuning import LEAST_STEPS, Tuning
from cnntrain.optim.optimizers import build_optimizer

CPU = torch.device("cpu")
SGD = SgdSettings(lr=0.1, lr_base_batch=None, momentum=0.9, weight_decay=0.01)


def optimizer_of(tuning):
    return build_optimizer(SGD, tuning.model, 0.1, CPU, tuning.learners())


def train(tuning, epochs, optimizer=None, steps=LEAST_STEPS):
    """Train as the loop does; random numbers depend on the epoch alone."""
    optimizer = optimizer or optimizer_of(tuning)
    said = []
    for epoch in epochs:
        torch.manual_seed(epoch)
        tuning.model.train()
        said += tuning.enter(epoch)
        for step in range(steps):
            logits = tuning.model(images(100 * epoch + step))
            functional.cross_entropy(logits, torch.arange(8) % CLASSES).backward()
            tuning.watch()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tuning.check()
    return said


def copied(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def moved(net, before):
    """Names of all tensors whose bits are others than before."""
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


def belongs(name, *parts):
    return name.startswith(tuple(f"{part}." for part in parts))


# --- what learns when ------------------------------------------------------------------------------------------------


def opened(tuning, epochs=8):
    """The groups that learn, epoch by epoch, as a word of one letter per group."""
    return ["".join("LF"[not learns] for learns in tuning.learns_in(epoch)) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mode": Mode.A}, ["FFFL"] * 8),
        ({"mode": Mode.B}, ["LLLL"] * 8),
        ({"mode": Mode.C, "lr_decay": 0.5}, ["LLLL"] * 8),
        ({"mode": Mode.C, "head_epochs": 3}, ["FFFL"] * 3 + ["LLLL"] * 5),
        ({"mode": Mode.B, "unfreeze": [3, 6]}, ["FFFL"] * 2 + ["FFLL"] * 3 + ["FLLL"] * 3),
        ({"mode": Mode.C, "unfreeze": [2, 3, 8]}, ["FFFL", "FFLL"] + ["FLLL"] * 5 + ["LLLL"]),
        ({"mode": Mode.C, "lr_factors": [0, 0.1, 0.5, 1]}, ["FLLL"] * 8),  # a rate of 0 does not learn
        ({"mode": Mode.B, "freeze": ["conv1|bn1"]}, ["FLLL"] * 8),
    ],
)
def test_the_groups_that_learn_follow_from_the_epoch(settings, expected):
    assert opened(make_tuning(make_net(), **settings)) == expected


def test_rates_and_decays_fall_from_the_head_down_or_follow_the_list():
    tuning = make_tuning(make_net(), mode=Mode.C, lr_decay=0.5, wd_factors=[4, 3, 2, 1])
    assert tuning.lr_factors == [0.125, 0.25, 0.5, 1]
    assert [(one.name, one.lr_factor, one.wd_factor) for one in tuning.learners()] == [
        ("head", 1, 1),
        ("blocks.1", 0.5, 2),
        ("blocks.0", 0.25, 3),
        ("stem", 0.125, 4),
    ]
    groups = optimizer_of(tuning).param_groups
    assert groups[0]["lr_factor"] == 1  # the rate of the head is the one that is logged


@pytest.mark.parametrize("mode", [Mode.A, Mode.B, Mode.C])
def test_without_a_factor_all_groups_learn_at_one_rate_and_decay(mode):
    tuning = make_tuning(make_net(), mode=mode)
    assert tuning.lr_factors == tuning.wd_factors == [1.0] * 4


@pytest.mark.parametrize("settings", [{"mode": Mode.A}, {"mode": Mode.C, "unfreeze": [3]}, {"mode": Mode.B}])
def test_the_optimizer_holds_what_ever_learns_and_nothing_else(settings):
    net = make_net()
    tuning = make_tuning(net, freeze=["classifier.1.bias"], **settings)
    held = {id(parameter) for group in optimizer_of(tuning).param_groups for parameter in group["params"]}
    ever = set()
    for epoch in range(8):
        tuning.enter(epoch)
        ever |= {id(parameter) for parameter in net.parameters() if parameter.requires_grad}
    assert held == ever
    assert tuning.parameters == sum(p.numel() for p in net.parameters() if id(p) in ever)


def test_a_change_is_said_with_its_epoch_and_what_never_learns_is_said_once():
    said = train(make_tuning(make_net(), mode=Mode.B, unfreeze=[2, 4]), range(5), steps=1)
    assert said == [
        "never learn: stem; finetune.unfreeze=[2, 4] opens 2 below the head",
        "epoch 2: blocks.1 learns from now on",
        "epoch 4: blocks.0 learns from now on",
    ]
    assert train(make_tuning(make_net(), mode=Mode.C, head_epochs=1), range(2), steps=1) == [
        "epoch 2: stem, blocks.0, blocks.1 learn from now on"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mode": Mode.C, "lr_factors": [0.1, 1]},
            r"2 numbers for 4 groups \(stem, blocks.0, blocks.1, head\); give one per group, or set finetune.groups=2",
        ),
        ({"mode": Mode.C, "wd_factors": [1]}, "finetune.wd_factors: 1 number for 4 groups"),
        ({"mode": Mode.C, "lr_factors": [1, 1, 1, 0]}, "finetune.lr_factors: 0 for the head"),
        ({"mode": Mode.B, "unfreeze": [2, 3, 4, 5]}, "finetune.unfreeze: 4 epochs, and 3 groups below the head"),
        ({"mode": Mode.B, "freeze": ["layer9"]}, "finetune.freeze: 'layer9' matches no parameter"),
        ({"mode": Mode.B, "freeze": ["classifier"]}, r"finetune.freeze: \['classifier'\] freezes the whole head"),
        ({"mode": Mode.A, "freeze": ["*"]}, "finetune.freeze"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_tuning(make_net(), **settings)


def pieces(count):
    """So many groups of one parameter each below a head that holds all else."""
    net = make_net()
    parameters = [name for name, _ in net.named_parameters()]
    below = [LayerGroup(f"part{index}", (name,), ()) for index, name in enumerate(parameters[:count])]
    return net, [*below, LayerGroup("head", tuple(parameters[count:]), ())]


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, r"4 epochs, and 1 group below the head to open \(part0\); leave"),
        (3, r"4 epochs, and 3 groups below the head to open \(part0, part1, part2\); leave"),
    ],
)
def test_more_epochs_than_groups_are_told_with_the_groups(count, told):
    net, groups = pieces(count)
    with pytest.raises(ConfigError, match=rf"^finetune.unfreeze: {told}"):
        Tuning(net, groups, FinetuneSettings(mode=Mode.B, unfreeze=[2, 3, 4, 5]))


@pytest.mark.parametrize(
    ("count", "given", "told"),
    [
        (3, [1], r"1 number for 4 groups \(part0, part1, part2, head\); give one per group$"),
        (3, [1, 1], r"2 numbers for 4 groups \(.*\); give one per group, or set finetune.groups=2$"),
        (3, [1, 1, 1], r"3 numbers for 4 groups \(.*\); give one per group, or set finetune.groups=3$"),
        (3, [1] * 5, r"5 numbers for 4 groups \(.*\); give one per group$"),
        (4, [1], r"1 number for 5 groups \(part0, part1, ..., head\); give one per group$"),
    ],
)
def test_factors_that_do_not_fit_are_told_with_the_groups_or_the_ends_of_many(count, given, told):
    net, groups = pieces(count)
    with pytest.raises(ConfigError, match=rf"^finetune.lr_factors: {told}"):
        Tuning(net, groups, FinetuneSettings(mode=Mode.C, lr_factors=given))


# --- what does not move ----------------------------------------------------------------------------------------------


def test_batch_norm_statistics_do_not_move_under_freezing():
    net = make_net()
    before = copied(net)
    train(make_tuning(net, mode=Mode.A), range(2))
    assert moved(net, before) == {"classifier.1.weight", "classifier.1.bias"}


def test_batch_norm_statistics_do_move_where_only_requires_grad_is_off():
    net = make_net().train()
    before = copied(net)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(belongs(name, "classifier"))
    functional.cross_entropy(net(images(0)), torch.arange(8) % CLASSES).backward()
    assert "bn1.running_mean" in moved(net, before)
    assert "blocks.1.bn.running_var" in moved(net, before)


def test_a_frozen_encoder_answers_the_same_each_time_while_the_head_trains():
    """Dropout layers, functional dropout that looks at the mode of the network, and batch norms are all still."""
    net = make_net()
    tuning = make_tuning(net, mode=Mode.A)
    net.train()
    tuning.enter(0)
    assert torch.equal(net.features(images(1)), net.features(images(1)))
    assert torch.equal(net(images(1)), net(images(1)))  # the dropout before the head is the encoder's
    assert {path for path, module in net.named_modules() if module.training} == {"classifier.1"}


def test_no_gradient_is_kept_for_what_is_frozen():
    net = make_net().train()
    net(images(0)).sum().backward()
    make_tuning(net, mode=Mode.A).enter(0)
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {
        "classifier.1.weight",
        "classifier.1.bias",
    }
    features = net.features(images(0))
    assert not features.requires_grad


def test_gradual_unfreezing_moves_what_is_open_and_no_more():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.C, lr_decay=0.5, unfreeze=[2, 3])
    optimizer = optimizer_of(tuning)
    open_parts = [
        ["classifier.1"],
        ["classifier.1", "blocks.1"],
        ["classifier.1", "blocks"],
        ["classifier.1", "blocks"],
    ]
    for epoch, parts in enumerate(open_parts):
        before = copied(net)
        train(tuning, [epoch], optimizer)
        assert moved(net, before) == {name for name in before if belongs(name, *parts)}


def test_norm_frozen_trains_the_weights_of_batch_norms_and_keeps_their_statistics():
    net = make_net()
    before = copied(net)
    tuning = make_tuning(net, mode=Mode.B, norm=NormPolicy.frozen)
    train(tuning, range(2))
    changed = moved(net, before)
    assert {"bn1.weight", "bn1.bias", "blocks.0.bn.weight"} <= changed
    assert not [name for name in changed if "running" in name or "batches" in name]
    assert net.blocks[0].bn.drop.training  # only statistics are frozen, dropout drops
    assert tuning.norms() == []


def test_a_pattern_of_freeze_takes_single_parameters_and_the_statistics_of_their_batch_norm():
    net = make_net()
    before = copied(net)
    tuning = make_tuning(net, mode=Mode.B, freeze=["blocks.0.bn.*|conv1"])
    train(tuning, range(2))
    still = {name for name in before if belongs(name, "blocks.0.bn", "conv1")}
    assert moved(net, before) == before.keys() - still
    assert tuning.norms() == ["bn1", "blocks.1.bn"]


def test_a_batch_norm_of_the_head_learns_its_statistics_under_norm_frozen():
    net = make_net()
    net.classifier[1] = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES))
    tuning = make_tuning(net, mode=Mode.A)
    train(tuning, range(1))
    assert tuning.norms() == ["classifier.1.1"]
    assert net.classifier[1].training
    assert not net.classifier.training


# --- faults stop the run ---------------------------------------------------------------------------------------------


def test_a_moved_frozen_weight_stops_the_run():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.A)
    train(tuning, range(2))
    with torch.no_grad():
        net.blocks[0].conv.weight[0, 0, 0, 0] += 1e-7
    said = "blocks.0.conv.weight: this frozen tensor of layer group blocks.0 changed by the end of epoch 3: see what"
    with pytest.raises(FrozenError, match=said) as raised:
        train(tuning, [2])
    assert raised.value.exit_code == 5


CHANGES = {
    "signs of all": lambda weight: weight.neg_(),
    "two filters in each other's place": lambda weight: weight.copy_(weight.flip(0)),
    "the sign of a zero": lambda weight: weight.view(-1)[:1].neg_(),
    "one bit": lambda weight: weight.view(torch.int32).view(-1)[-1:].bitwise_xor_(1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_each_change_of_a_frozen_weight_is_seen(change):
    net = make_net()
    weight = net.blocks[0].conv.weight.detach()
    weight.view(-1)[0] = 0.0
    weight.view(-1)[1] = torch.nan  # which is itself, bit by bit
    tuning = make_tuning(net, mode=Mode.A)
    tuning.enter(0)
    tuning.check()
    change(weight)
    with pytest.raises(FrozenError, match=r"blocks\.0\.conv\.weight"):
        tuning.check()


def test_statistics_moved_by_a_stray_train_call_stop_the_run():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.A)
    tuning.enter(0)
    net.train()(images(0))
    said = r"bn1.running_mean: this frozen tensor of layer group stem \(and 8 more\).* calls train\(\)"
    with pytest.raises(FrozenError, match=said):
        tuning.check()


def test_a_parameter_named_in_freeze_that_moves_stops_the_run():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.B, freeze=["blocks.1.conv.weight"])
    tuning.enter(0)
    net.blocks[1].conv.weight.data.mul_(0.999)
    with pytest.raises(FrozenError, match=r"blocks.1.conv.weight: this frozen tensor named in finetune.freeze changed"):
        tuning.check()


class Detached(nn.Module):
    """Passes nothing back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


class Zeroed(nn.Module):
    """Passes back zeros."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0 + x.detach()


@pytest.mark.parametrize("cut", [Detached(), Zeroed()])
def test_a_group_without_gradient_stops_the_run(cut):
    net = make_net()
    net.blocks[0].bn.act = cut
    net.blocks[0].forward = lambda x: net.blocks[0].bn(net.blocks[0].conv(x))  # without the way around
    tuning = make_tuning(net, mode=Mode.B)
    with pytest.raises(ConfigError, match=f"no gradient reached stem, blocks.0 in {LEAST_STEPS} steps up to epoch 1"):
        train(tuning, range(1))


def test_a_head_of_zeros_is_no_fault_though_it_hands_no_gradient_down_at_first():
    for steps in (1, LEAST_STEPS):
        net = make_net()
        nn.init.zeros_(net.classifier[1].weight)
        train(make_tuning(net, mode=Mode.B), range(3), steps=steps)


def test_an_infinite_gradient_is_received():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.B)
    tuning.enter(0)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    net.conv1.weight.grad = torch.full_like(net.conv1.weight, float("inf"))
    for _ in range(LEAST_STEPS):
        tuning.watch()
    tuning.check()


def test_gradients_are_judged_anew_when_a_group_opens():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.B, unfreeze=[2])
    train(tuning, [0])
    net.blocks[1].register_forward_hook(lambda module, inputs, output: output.detach())
    with pytest.raises(ConfigError, match=r"no gradient reached blocks.1 in 5 steps up to epoch 2"):
        train(tuning, [1])


# --- resume ----------------------------------------------------------------------------------------------------------


def saved(tuning, optimizer):
    """A checkpoint; the state of the tuning holds plain values alone."""
    state = json.loads(json.dumps(tuning.state()))
    return {"model": copied(tuning.model), "optimizer": optimizer.state_dict(), "tuning": state}


def resumed(state, **settings):
    tuning = make_tuning(make_net(seed=1), **settings)
    optimizer = optimizer_of(tuning)
    tuning.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return tuning, optimizer


def test_a_resume_after_unfreezing_does_not_freeze_again():
    settings = {"mode": Mode.C, "lr_decay": 0.5, "unfreeze": [2, 4]}
    whole = make_tuning(make_net(), **settings)
    train(whole, range(6))

    first = make_tuning(make_net(), **settings)
    optimizer = optimizer_of(first)
    train(first, range(3), optimizer)
    state = saved(first, optimizer)
    second, optimizer = resumed(state, **settings)
    second.restore(state["tuning"])
    said = train(second, range(3, 6), optimizer)

    assert second.model.blocks[1].conv.weight.requires_grad
    assert not moved(second.model, copied(whole.model))
    assert second.state() == whole.state()
    assert said == ["never learn: stem; finetune.unfreeze=[2, 4] opens 2 below the head"]


def test_a_resume_with_frozen_weights_of_other_bits_is_refused():
    tuning = make_tuning(make_net(), mode=Mode.A)
    optimizer = optimizer_of(tuning)
    train(tuning, range(1), optimizer)
    state = saved(tuning, optimizer)
    state["model"]["bn1.running_var"][2] *= 1.0001
    again, _ = resumed(state, mode=Mode.A)
    with pytest.raises(FrozenError, match=r"bn1.running_var: this frozen tensor of layer group stem has other bits"):
        again.restore(state["tuning"])


def test_a_resume_under_settings_that_freeze_otherwise_is_refused_unless_they_were_changed():
    tuning = make_tuning(make_net(), mode=Mode.B, unfreeze=[2, 3, 4])
    optimizer = optimizer_of(tuning)
    train(tuning, range(1), optimizer)
    state = saved(tuning, optimizer)
    again, _ = resumed(state, mode=Mode.B)
    with pytest.raises(CheckpointError, match=r"head learned in epoch 1 by the checkpoint, stem, blocks.0, blocks.1, "):
        again.restore(state["tuning"])
    again.restore(state["tuning"], is_changed=True)
    again.enter(1)
    assert again.model.conv1.weight.requires_grad


def test_a_state_from_before_the_first_epoch_says_nothing():
    state = make_tuning(make_net(), mode=Mode.B, unfreeze=[2, 3, 4]).state()
    make_tuning(make_net(seed=1), mode=Mode.B).restore(state)


@pytest.mark.parametrize("change", [{"freeze": ["conv1"]}, {"unfreeze": [2, 3]}, {"swapped": True}])
def test_the_state_of_an_optimizer_is_not_given_to_other_parameters(change):
    """Of blocks in each other's place all sizes agree, and torch would take the momentum of the one for the other's."""
    tuning = make_tuning(make_net(), mode=Mode.B)
    state = tuning.state()
    groups = groups_of(make_net())
    if change.pop("swapped", False):
        groups[1:3] = groups[2:0:-1]
    other = Tuning(make_net(), groups, FinetuneSettings(mode=Mode.B, **change))
    with pytest.raises(CheckpointError, match=r"^finetune: by the settings other parameters learn than in the check"):
        other.restore(state, is_changed=True)


def test_digests_do_not_depend_on_the_layout_of_memory():
    net = make_net()
    tuning = make_tuning(net, mode=Mode.A)
    tuning.enter(0)
    net.to(memory_format=torch.channels_last)
    tuning.check()


def test_every_module_has_one_home():
    net = make_net()
    groups = groups_of(net)
    assert sorted(name for group in groups for name in group.parameters) == sorted(dict(net.named_parameters()))
    assert sum(len(group.leaves) for group in groups) == sum(not list(module.children()) for module in net.modules())
