"""Weight decay spares what a network wants no decay for: embeddings of positions, class tokens, attention biases."""

from typing import Any

import pytest
import timm
import torch
from networks import timm_families, timm_net
from torch import nn
from torchvision import models

from cnntrain.config.compose import compose_settings
from cnntrain.config.schema.optimizer import SgdSettings
from cnntrain.optim.parameter_groups import Learner, parameter_groups

SGD: dict[str, Any] = {"lr": 0.1, "lr_base_batch": None, "momentum": 0.9, "nesterov": True}


def decayed(model, **decays):
    """Names of the parameters with a weight decay."""
    groups = parameter_groups(model, SgdSettings(**SGD, weight_decay=0.1, **decays))
    chosen = {id(p) for group in groups for p in group["params"] if group["weight_decay"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    return {name for name, p in model.named_parameters() if id(p) in chosen}


@pytest.mark.parametrize(
    "name",
    [
        "coatnet_0_rw_224",
        "maxvit_nano_rw_256",
        "levit_128s",
        "xcit_nano_12_p16_224",
        "vit_tiny_patch16_224",
        "beit_base_patch16_224",
        "swin_tiny_patch4_window7_224",
        "hiera_tiny_224",
        "eva02_tiny_patch14_224",
    ],
)
def test_what_a_network_of_timm_wants_no_decay_for_has_none_as_with_timm(name):
    from timm.optim import param_groups_weight_decay

    with torch.device("meta"):
        model = timm.create_model(name)
    _, decay = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    theirs = {id(p) for p in decay["params"]}
    wanted = {name for name, p in model.named_parameters() if id(p) in theirs}
    assert decayed(model, embedding_weight_decay=0.0) == wanted
    assert decayed(nn.Sequential(nn.Identity(), model), embedding_weight_decay=0.0) == {f"1.{name}" for name in wanted}
    assert decayed(model) > wanted  # as runs were trained that did not know the key


@pytest.mark.slow
def test_no_network_of_timm_has_a_decay_that_it_does_not_want():
    for name in timm_families().values():
        model, _ = timm_net(name)
        listed = list(getattr(model, "no_weight_decay", list)())
        assert not decayed(model, embedding_weight_decay=0.0) & set(listed), name


@pytest.mark.parametrize(
    ("name", "embeddings"),
    [
        ("vit_b_32", {"class_token", "encoder.pos_embedding"}),
        ("swin_t", {f"features.{at}.attn.relative_position_bias_table" for at in ("1.0", "1.1", "3.0", "3.1")}),
        ("resnet18", set()),
    ],
)
def test_embeddings_of_torchvisions_transformers_have_a_decay_of_their_own(name, embeddings):
    with torch.device("meta"):
        model = getattr(models, name)()
    assert decayed(model) - decayed(model, embedding_weight_decay=0.0) >= embeddings
    settings = SgdSettings(**SGD, weight_decay=0.1, embedding_weight_decay=0.02)
    groups = {group["weight_decay"]: group["params"] for group in parameter_groups(model, settings)}
    own = {id(p) for p in groups.get(0.02, [])}
    assert embeddings <= {name for name, p in model.named_parameters() if id(p) in own}
    assert (0.02 in groups) == bool(embeddings)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_no_optimizer_decays_embeddings_by_default(name):
    assert compose_settings([f"optimizer={name}"], None).optimizer.embedding_weight_decay == 0


def test_a_learner_multiplies_the_decay_of_embeddings_too():
    with torch.device("meta"):
        model = models.vit_b_32()
    settings = SgdSettings(**SGD, weight_decay=0.1, embedding_weight_decay=0.02)
    learner = Learner("slow", [model.class_token, model.heads.head.weight], wd_factor=0.5)
    groups = parameter_groups(model, settings, [learner])
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.05, 1), (0.01, 1)]
