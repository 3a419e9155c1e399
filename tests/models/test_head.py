"""The head: found by rule in every kind of network, chosen by pattern, replaced, started anew."""

import re
from collections import OrderedDict

import pytest
import torch
from networks import CLASSES, NAMED, Own, conf, on_meta, timm_families, timm_net
from torch import nn

from cnntrain.config.schema.model import HeadInit, HeadSettings, Pool
from cnntrain.errors import ConfigError
from cnntrain.models.build import build_model
from cnntrain.models.head import Head, find_head, head_paths, replace_head
from cnntrain.models.layers import GlobalMaxPool2d

HEADS = {
    "lenet5": "head",
    "mlp": "head",
    "softmax": "head",
    "hog": "head",
    "cnn": "head.fc1",
    "cnn3": "head.fc2",
    "airbench": "head",
    "resnet9": "head",
    "resnet20": "head",
    "preact_resnet18": "head",
    "inception_v1": "head",
    "resnet18": "fc",
    "vgg11": "classifier.6",
    "alexnet": "classifier.6",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v1": "classifier",
    "googlenet": "fc",
    "convnext_tiny": "classifier.2",
    "xception": "fc",
}


def torchvision_net(name):
    from torchvision.models import get_model

    with torch.device("meta"):
        return get_model(name, num_classes=CLASSES), torch.empty(2, 3, 64, 64, device="meta")


def last_layer(model, images):
    """The linear layer or convolution that runs last, and the shape that it gives; the logits' must be right."""
    seen = []
    for path, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.register_forward_hook(lambda _, given, output, path=path: seen.append((path, tuple(output.shape))))
    with torch.no_grad():
        assert model.eval()(images).shape == (2, CLASSES)
    return seen[-1]


def assert_head_makes_the_logits(model, images):
    path, shape = last_layer(model, images)
    assert path in head_paths(model)
    assert shape[0] == 2
    assert CLASSES in shape[1:]
    return path


# By rule


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_the_layer_that_makes_the_logits(name):
    model, images = on_meta(conf(name))
    assert find_head(model) == assert_head_makes_the_logits(model, images) == HEADS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMED) - set(HEADS)))
def test_the_head_of_every_named_network_makes_the_logits(name):
    assert_head_makes_the_logits(*on_meta(conf(name)))


@pytest.mark.slow
def test_the_head_of_every_family_of_timm_makes_the_logits_and_can_be_replaced():
    for name in timm_families().values():
        model, images = timm_net(name)
        assert_head_makes_the_logits(model, images)
        replace_head(model, HeadSettings(hidden=[5], dropout=0.1), CLASSES)
        path, _ = last_layer(model, images)  # VOLO's auxiliary head runs last, and stays
        assert {path, path.rpartition(".")[0]} & set(head_paths(model)), name


@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5", "shufflenet_v2_x0_5", "swin_t"])
def test_the_head_of_other_networks_of_torchvision_makes_the_logits(name):
    assert_head_makes_the_logits(*torchvision_net(name))


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("tf_efficientnet_lite0", ["classifier"]),
        ("dla34", ["fc"]),  # a 1x1 convolution
        ("resnetv2_18", ["head.fc"]),
        ("caformer_s18", ["head.fc.fc2"]),  # of a head with a hidden layer
        ("levit_128s", ["head.linear", "head_dist.linear"]),  # their logits are averaged
    ],
)
def test_timm_names_its_classifiers(name, heads):
    model, images = timm_net(name)
    assert head_paths(model) == heads
    assert find_head(model) == heads[0]
    assert_head_makes_the_logits(model, images)


@pytest.mark.parametrize(
    ("name", "auxiliary"),
    [
        ("googlenet", ["aux1.fc2", "aux2.fc2"]),
        ("inception_v3", ["AuxLogits.fc"]),
        ("inception_v1", ["auxiliary.inception_4a.head", "auxiliary.inception_4d.head"]),
    ],
)
def test_auxiliary_classifiers_have_heads_too(name, auxiliary):
    model, images = on_meta(conf(name))
    shapes = {}
    for path in head_paths(model):
        model.get_submodule(path).register_forward_hook(
            lambda _, given, output, path=path: shapes.update({path: tuple(output.shape)})
        )
    with torch.no_grad():
        model.train()(images)
    assert head_paths(model)[1:] == auxiliary
    assert shapes == dict.fromkeys([find_head(model), *auxiliary], (2, CLASSES))
    assert head_paths(on_meta(conf(name, aux_weight=0.0))[0]) == [find_head(model)]


@pytest.mark.parametrize(("make", "head"), [(torchvision_net, "net.classifier.1"), (timm_net, "net.classifier")])
def test_a_wrapped_network_has_the_head_of_what_it_wraps(make, head):
    net, images = make("mobilenet_v2" if make is torchvision_net else "mobilenetv1_100")
    model = nn.Sequential(OrderedDict(enlarge=nn.Upsample(size=(96, 96)), net=net))
    assert assert_head_makes_the_logits(model, images) == head


@pytest.mark.parametrize(
    ("layers", "head"),
    [
        ({"conv": nn.Conv2d(1, 4, 3), "fc1": nn.Linear(4, 8), "fc2": nn.Linear(8, 3)}, "fc2"),
        ({"fc": nn.Linear(4, 8), "out": nn.Linear(8, 3)}, "out"),  # fc feeds it
        ({"classifier": nn.Linear(4, 3), "conv": nn.Conv2d(1, 4, 3)}, "classifier"),  # not in the order of running
        ({"conv": nn.Conv2d(1, 4, 3), "head": nn.Linear(4, 3), "aux_head": nn.Linear(4, 3)}, "head"),
        ({"conv": nn.Conv2d(1, 4, 3), "last": nn.Sequential(nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1))}, "last.0"),
        ({"net": nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 3), nn.Identity())}, "net.1"),
        ({"net": Own(classifier=nn.Linear(4, 3), conv=nn.Conv2d(1, 4, 3))}, "net.classifier"),
    ],
)
def test_the_head_of_a_users_network(layers, head):
    assert find_head(Own(**layers)) == head


def test_a_network_without_layers_has_no_head():
    with pytest.raises(ConfigError, match=r"finetune.head: Own has no linear layer"):
        find_head(Own(norm=nn.BatchNorm2d(3)))


# By pattern


def test_a_pattern_names_the_head_even_one_of_several_layers():
    model, _ = on_meta(conf("vgg11"))
    assert find_head(model, "classifier") == "classifier"
    assert find_head(model, "class*.3") == "classifier.3"
    assert head_paths(on_meta(conf("googlenet"))[0], "inception5b")[1:] == ["aux1.fc2", "aux2.fc2"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("fcc", "'fcc' matches no module; did you mean fc"),
        ("layer*", r"'layer\*' matches 4 modules \(layer1, layer2, layer3, ...\)"),
        ("avgpool", "avgpool has no parameters"),
    ],
)
def test_a_pattern_that_names_no_head_is_a_fault(pattern, says):
    with pytest.raises(ConfigError, match=f"^finetune.head: {says}"):
        find_head(on_meta(conf("resnet18"))[0], pattern)


# In its place


def resnet20(**head):
    torch.manual_seed(0)
    return build_model(conf("resnet20", head=HeadSettings(**head)), classes=CLASSES, channels=3, image_size=16)[0]


@pytest.mark.parametrize(("pattern", "listed"), [("a|b|c", "a, b, c"), ("a|b|c|d", "a, b, c, ...")])
def test_a_pattern_that_takes_in_several_modules_is_told_with_their_names(pattern, listed):
    model = Own(**{name: nn.Linear(3, 3) for name in "abcd"})
    with pytest.raises(ConfigError, match=rf"matches {len(pattern) // 2 + 1} modules \({re.escape(listed)}\); name"):
        find_head(model, pattern)


def test_default_settings_change_nothing():
    model = resnet20()
    own = model.head
    replace_head(model, HeadSettings(), CLASSES)
    assert model.head is own
    assert type(own) is nn.Linear


def test_hidden_layers_and_dropout_come_in_the_order_of_the_docs():
    model = resnet20(hidden=[16, 8], activation="gelu", dropout=0.25)
    names = "drop1 fc1 act1 drop2 fc2 act2 drop3 fc3"
    assert isinstance(model.head, Head)
    assert " ".join(name for name, _ in model.head.named_children()) == names
    sizes = [(layer.in_features, layer.out_features) for layer in model.head if isinstance(layer, nn.Linear)]
    assert sizes == [(64, 16), (16, 8), (8, CLASSES)]
    assert {type(model.head.act1), type(model.head.act2)} == {nn.GELU}
    assert [layer.p for layer in model.head if isinstance(layer, nn.Dropout)] == [0.25] * 3
    assert find_head(model) == "head"
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, CLASSES)


def test_a_new_head_loads_what_one_of_the_same_settings_saved():
    saved = resnet20(hidden=[16], dropout=0.5).state_dict()
    assert {key for key in saved if key.startswith("head.")} == {
        f"head.fc{n}.{k}" for n in (1, 2) for k in ("weight", "bias")
    }
    resnet20(hidden=[16], dropout=0.5).load_state_dict(saved)


def test_a_head_without_bias_stays_without():
    model, _ = on_meta(conf("resnet9", head=HeadSettings(hidden=[16])))
    assert model.head.fc2.bias is None
    assert model.head.fc1.bias is not None


def test_a_head_of_zeros_gives_all_classes_the_same_chance():
    for head in ({}, {"hidden": [16]}):
        model = resnet20(init=HeadInit.zero, **head).eval()
        assert torch.equal(model(torch.randn(2, 3, 16, 16)), torch.zeros(2, CLASSES))
    assert model.head.fc1.weight.abs().min() > 0


def test_a_convolution_as_head_gets_hidden_layers_of_1x1_convolutions():
    head = HeadSettings(hidden=[16], dropout=0.1)
    model, images = torchvision_net("squeezenet1_1")
    replace_head(model, head, CLASSES)
    assert [type(layer) for layer in model.classifier[1]] == [nn.Dropout, nn.Conv2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    assert last_layer(model, images) == ("classifier.1.fc2", (2, CLASSES, 3, 3))


def test_heads_side_by_side_are_replaced_alike():
    model, images = timm_net("levit_128s")
    replace_head(model, HeadSettings(hidden=[16]), CLASSES)
    assert isinstance(model.head.linear, Head)
    assert isinstance(model.head_dist.linear, Head)
    last_layer(model, images)


def test_a_head_that_does_not_give_the_classes_is_not_replaced():
    with pytest.raises(ConfigError, match=r"model.head: fc, taken for the head of Own, gives 3 values and not the 7"):
        replace_head(Own(conv=nn.Conv2d(1, 4, 1), fc=nn.Linear(4, 3)), HeadSettings(hidden=[16]), CLASSES)
    with pytest.raises(ConfigError, match=r"model.head: conv, taken for the head of Own, is a convolution above 1x1"):
        replace_head(Own(conv=nn.Conv2d(1, CLASSES, 3)), HeadSettings(dropout=0.5), CLASSES)


def test_the_head_that_the_user_names_is_the_one_replaced():
    for pattern in ("scores", "scores.1"):
        model = Own(scores=nn.Sequential(nn.Linear(5, 4), nn.Linear(4, CLASSES)), side=nn.Linear(6, 2))
        replace_head(model, HeadSettings(hidden=[8], init=HeadInit.zero), CLASSES, pattern)
        assert isinstance(model.scores[1], Head)
        assert not model.scores[1].fc2.weight.any()
        assert type(model.side) is nn.Linear
        assert find_head(model, pattern) == pattern
    model = Own(fc=nn.Linear(1, 2), odd=nn.PReLU())
    with pytest.raises(
        ConfigError, match=r"^model.head: odd, the head by finetune.head, has no linear layer .*default$"
    ):
        replace_head(model, HeadSettings(init=HeadInit.zero), CLASSES, "odd")


@pytest.mark.parametrize("pool", Pool)
@pytest.mark.parametrize(
    ("name", "place"), [("resnet18", "avgpool"), ("resnet20", "pool"), ("mobilenet_v1", "global_pool")]
)
def test_the_pool_before_the_head_is_the_one_asked_for(name, place, pool):
    model, _ = on_meta(conf(name, head=HeadSettings(pool=pool)))
    maps = torch.randn(2, 3, 4, 5)
    average, largest = maps.mean((2, 3)), maps.amax((2, 3))
    expected = {Pool.avg: average, Pool.max: largest, Pool.avgmax: (average + largest) / 2}[pool]
    torch.testing.assert_close(model.get_submodule(place)(maps).flatten(1), expected)


def test_the_pool_beside_the_first_of_heads_side_by_side_is_the_one_replaced():
    def side(**pool):
        return nn.Sequential(OrderedDict(**pool, fc=Head(nn.Flatten(), nn.Linear(4, CLASSES))))

    model = Own(conv=nn.Conv2d(1, 4, 3), one=side(pool=nn.AdaptiveAvgPool2d(1)), two=side())
    replace_head(model, HeadSettings(pool=Pool.max), CLASSES)
    assert isinstance(model.one.pool, nn.AdaptiveMaxPool2d)


def test_a_pool_of_channels_last_maps_stays_one():
    model, images = timm_net("swin_tiny_patch4_window7_224")
    replace_head(model, HeadSettings(pool=Pool.max), CLASSES)
    maps = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(model.head.global_pool(maps), maps.amax((1, 2)))
    last_layer(model, images)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("pool_type", ["avg", "fast"])
def test_a_pool_of_timm_flattens_if_the_one_before_did(pool_type, flatten):
    from timm.layers import SelectAdaptivePool2d

    pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=flatten)
    model = Own(conv=nn.Conv2d(1, 4, 3), pool=pool, fc=nn.Linear(4, CLASSES))
    replace_head(model, HeadSettings(pool=Pool.max), CLASSES)
    maps = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(model.pool(maps), maps.amax((2, 3), keepdim=not flatten))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("densenet121", "DenseNet"), ("mobilenet_v2", "MobileNetV2"), ("vgg11", "VGG"), ("lenet5", "Sequential")],
)
def test_a_network_without_a_global_pooling_layer_refuses_another_pool(name, kind):
    says = rf"^model.head.pool: {kind} has no global pooling layer beside its head that max"
    with pytest.raises(ConfigError, match=says):
        on_meta(conf(name, head=HeadSettings(pool=Pool.max)))


def test_pools_of_squeeze_and_excitation_are_not_those_before_the_head():
    model, _ = on_meta(conf("mobilenet_v3_large", head=HeadSettings(pool=Pool.max)))
    kinds = [
        type(layer) for layer in model.modules() if isinstance(layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))
    ]
    assert kinds == [nn.AdaptiveAvgPool2d] * 8 + [GlobalMaxPool2d]


def test_a_module_whose_name_begins_like_that_of_the_head_does_not_hold_it():
    layers = {"pool": nn.AdaptiveAvgPool2d(1), "he": nn.Sequential(nn.AdaptiveAvgPool2d(1))}
    model = Own(conv=nn.Conv2d(1, 4, 3), **layers, head=nn.Linear(4, CLASSES))
    replace_head(model, HeadSettings(pool=Pool.max), CLASSES)
    assert [type(model.pool), type(model.he[0])] == [GlobalMaxPool2d, nn.AdaptiveAvgPool2d]


def test_an_activation_must_be_one_that_our_networks_take():
    assert HeadSettings(activation="Hardswish").faults() == []
    assert [key for key, _, _ in HeadSettings(activation="rellu").faults()] == ["activation"]
