"""Muon steps filters and matrices in all directions alike, the rest as AdamW or SGD do, and goes on with the bits."""

from typing import Any

import pytest
import torch
from networks import timm_net
from torch import Tensor, nn

from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.optimizer import MuonSettings, Others, SgdSettings
from cnntrain.errors import ConfigError
from cnntrain.optim.muon import Muon, orthogonal
from cnntrain.optim.optimizers import build_optimizer, set_lr
from cnntrain.optim.parameter_groups import parameter_groups, part_filters

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "lr": 0.1,
    "lr_base_batch": None,
    "momentum": 0.9,
    "nesterov": True,
    "ns_steps": 5,
    "unit_norm": False,
    "others": Others.adamw,
    "others_lr": 0.01,
    "beta1": 0.9,
    "beta2": 0.99,
    "eps": 1e-8,
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 16),
        nn.Linear(16, 5),
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def muon(model: nn.Module, **numbers: Any) -> Muon:
    optimizer = build_optimizer(MuonSettings(**BASE | numbers), model, 0.1, CPU)
    set_lr(optimizer, 0.1)
    assert isinstance(optimizer, Muon)
    return optimizer


def test_filters_and_matrices_are_its_own_and_norms_depthwise_filters_and_the_head_are_not() -> None:
    model = net()
    first, *others = muon(model).param_groups
    assert {id(p) for p in first["params"]} == {id(model[index].weight) for index in (0, 2, 6)}
    assert first["lr"] == 0.1
    assert [group["lr"] for group in others] == pytest.approx([0.01] * len(others))


def test_embeddings_and_the_head_of_a_transformer_are_not_its_own() -> None:
    model = timm_net("vit_tiny_patch16_224")[0]
    names = {id(p): name for name, p in model.named_parameters()}
    groups = part_filters(parameter_groups(model, MuonSettings(**BASE)), model)
    others = {names[id(p)] for group in groups if not group["is_orthogonal"] for p in group["params"]}
    assert {"cls_token", "pos_embed", "head.weight", "norm.weight"} <= others
    assert not [name for name in others if ".attn.qkv.weight" in name or name.startswith("patch_embed.proj.weight")]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_the_orthogonal_factor_of_the_gradient_whatever_the_layout(layout: torch.memory_format) -> None:
    model = net().to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = muon(model, nesterov=False)
    before = {index: model[index].weight.detach().clone() for index in (0, 2)}  # whose gradients are of full rank
    train(model, optimizer, range(1))
    for index, old in before.items():
        gradient = model[index].weight.grad.flatten(1)
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        step = (old - model[index].weight).detach().flatten(1) / (0.1 * 0.2 * max(gradient.shape) ** 0.5)
        sizes = torch.linalg.svdvals(step)
        assert 0.5 < float(sizes[0]) < 1.3
        assert float((step * (left @ right)).sum() / step.norm() / (left @ right).norm()) > 0.9


def test_it_walks_as_timms_muon_does() -> None:
    from timm.optim import Muon as TimmMuon

    ours, theirs = net(), net()
    names = [f"{index}.weight" for index in (0, 2, 6)]
    tensors = dict(theirs.named_parameters())
    filters = [tensors.pop(name) for name in names]
    numbers: dict[str, Any] = {"momentum": 0.9, "ns_coefficients": "original", "betas": (0.9, 0.99), "eps": 1e-8}
    groups = [
        {"params": filters, "weight_decay": 0.1, "nesterov": True},
        {"params": list(tensors.values()), "use_fallback": True, "fallback_lr_scale": 0.1},
    ]
    train(theirs, TimmMuon(groups, lr=0.1, **numbers), range(3))
    train(ours, muon(ours, weight_decay=0.1), range(3))
    start = net().state_dict()
    ends = theirs.state_dict()
    for name in ("0.weight", "2.weight", "1.weight"):  # of full rank: of others, bf16 is noise
        walked, wanted = ours.state_dict()[name] - start[name], ends[name] - start[name]
        assert float((walked - wanted).norm() / wanted.norm()) < 0.06, name  # timm iterates in bf16 here


def test_unit_norm_keeps_each_filter_bank_at_the_root_of_its_outputs_and_steps_by_a_part_of_that() -> None:
    model = net()
    optimizer = muon(model, unit_norm=True, others=Others.sgd, beta1=0.85)
    train(model, optimizer, range(2))
    set_lr(optimizer, 0.0)
    train(model, optimizer, range(2, 3))
    for index in (0, 2, 6):
        weight = model[index].weight.detach()
        assert float(weight.norm()) == pytest.approx(len(weight) ** 0.5, rel=1e-4)


def test_the_others_step_as_torchs_sgd_does() -> None:
    ours, theirs = net(), net()
    optimizer = muon(ours, others=Others.sgd, beta1=0.85, others_lr=0.05, norm_weight_decay=0.1, bias_weight_decay=0.1)
    reference = torch.optim.SGD(theirs[1].parameters(), lr=0.05, momentum=0.85, nesterov=True, weight_decay=0.1)
    for step in range(3):
        for index, parameter in enumerate(ours[1].parameters()):
            gradient = torch.randn(8, generator=torch.Generator().manual_seed(9 * step + index))
            parameter.grad, list(theirs[1].parameters())[index].grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(ours[1].parameters(), theirs[1].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


@pytest.mark.parametrize("others", list(Others))
def test_a_restored_muon_goes_on_with_the_same_bits(others: Others) -> None:
    whole, half, again = net(), net(), net()
    train(whole, muon(whole, others=others), range(6))
    optimizer = muon(half, others=others)
    train(half, optimizer, range(3))
    again.load_state_dict(half.state_dict())
    restored = muon(again, others=others)
    restored.load_state_dict(optimizer.state_dict())
    train(again, restored, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_matrices_of_one_shape_go_through_the_iteration_together_as_each_does_alone() -> None:
    matrices = torch.randn(3, 7, 20)
    assert torch.allclose(orthogonal(matrices, 5), torch.cat([orthogonal(m[None], 5) for m in matrices]), atol=1e-5)


def test_a_factor_of_the_rate_leaves_what_decay_takes_off_as_it_is() -> None:
    def shrunk(**factors: float) -> list[Tensor]:
        model = net()
        settings = SgdSettings(
            lr=0.1, lr_base_batch=None, momentum=0.0, nesterov=False, weight_decay=0.5, lr_factors=factors
        )
        optimizer = build_optimizer(settings, model, 0.1, CPU)
        set_lr(optimizer, 0.1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        return list(model.parameters())

    for one, other in zip(shrunk(), shrunk(**{"7": 64.0, "*.bias": 8.0}), strict=True):
        assert torch.allclose(one, other, rtol=1e-6)


def test_the_first_pattern_of_lr_factors_that_matches_counts() -> None:
    model = net()
    settings = SgdSettings(
        lr=0.1, lr_base_batch=None, momentum=0.0, nesterov=False, lr_factors={"7.bias": 2.0, "*.bias": 64.0}
    )
    groups = parameter_groups(model, settings)
    assert groups[0]["lr_factor"] == 1.0  # the one whose rate is told
    factors = {id(p): group["lr_factor"] for group in groups for p in group["params"]}
    assert [factors[id(model[index].bias)] for index in (0, 6, 7)] == [64.0, 64.0, 2.0]


def test_a_pattern_that_matches_nothing_is_told_with_what_there_is() -> None:
    settings = compose_settings(["optimizer.lr_factors={haed:2}"])
    with pytest.raises(ConfigError, match=r"optimizer.lr_factors: 'haed' matches no parameter"):
        parameter_groups(net(), settings.optimizer)
