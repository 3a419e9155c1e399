"""Layer groups: every tensor in one of them, in the order in which layers run, as many as asked for, or by pattern."""

from collections import OrderedDict

import pytest
import torch
from networks import CLASSES, NAMED, Own, conf, on_meta, timm_families, timm_net
from torch import nn

from cnntrain.config.schema.finetune import FinetuneSettings, Mode, Unit
from cnntrain.config.schema.model import HeadSettings
from cnntrain.errors import ConfigError
from cnntrain.finetune.layer_groups import layer_groups
from cnntrain.models.small_images.shape_trace import trace

# Of networks whose names begin with timm's, its own table is asked, and of the others the order of modules.
STAGES = {
    "resnet18": "conv1 bn1 | layer1 | layer2 | layer3 | layer4",
    "vgg16": "features.0-2 | features.5-7 | features.10-14 | features.17-21 | features.24-28 | "
    "classifier.0 | classifier.3",
    "densenet121": "features.conv0 norm0 | features.denseblock1 transition1 | features.denseblock2 transition2 | "
    "features.denseblock3 transition3 | features.denseblock4 norm5",
    "mobilenet_v2": "features.0-1 | features.2-3 | features.4-6 | features.7-13 | features.14-18",
    "efficientnet_b0": "features.0-1 | features.2 | features.3 | features.4 | features.5 | features.6-8",
    "convnext_tiny": "features.0 | features.1 | features.2-3 | features.4-5 | features.6-7 classifier.0",
    "googlenet": "conv1 | conv2-3 | inception3a-b | inception4a-e | inception5a-b",
    "inception_v3": "Conv2d_1a_3x3-2b_3x3 | Conv2d_3b_1x1-4a_3x3 | Mixed_5b-d | Mixed_6a-e | Mixed_7a-c",
    "inception_v1": "features.conv1 | features.conv2_reduce conv2 | features.inception_3a-b | "
    "features.inception_4a-e | features.inception_5a-b",
    "xception": "conv1-bn2 | block1 | block2 | block3-11 | block12-bn4",  # timm's table has blocks only
    "mobilenet_v1": "conv_stem bn1 | blocks.0 | blocks.1 | blocks.2 | blocks.3 | blocks.4",
    "lenet5": "conv1 | conv2 | fc1 | fc2",
    "cnn3": "blocks.0 | blocks.1 | blocks.2 | head.fc1",
    "resnet9": "stem | stage1 | stage2 | stage3",
    "airbench": "whiten | stages.0 | stages.1 | stages.2",
    "resnet20": "stem | stages.0 | stages.1 | stages.2",
    "wrn28_10": "stem | stages.0 | stages.1 | stages.2 tail",
    "softmax": "",
    "hog": "",
}


def settings(**given):
    return FinetuneSettings(mode=Mode.C, **given)


def names(model, **given):
    return [group.name for group in layer_groups(model, settings(**given))]


def home_of(groups, kind):
    """The index of the group of each name, which must be in one alone."""
    listed = [(name, index) for index, group in enumerate(groups) for name in getattr(group, kind)]
    assert len(dict(listed)) == len(listed)
    return dict(listed)


def assert_sound(model, images):
    """All in one group each, none empty, in the order in which the layers run, the head last."""
    for unit in Unit:
        groups = layer_groups(model, settings(unit=unit))
        leaves = [path for path, module in model.named_modules() if next(module.children(), None) is None]
        assert home_of(groups, "parameters").keys() == {name for name, _ in model.named_parameters()}
        assert home_of(groups, "leaves").keys() == set(leaves)
        assert all(group.parameters and group.name for group in groups)
        assert len({group.name for group in groups}) == len(groups)
        assert groups[-1].name == "head"
        visits = trace(model, channels=images.shape[1], classes=CLASSES, image_size=images.shape[-1])
        assert not visits.fault
        homes = home_of(groups, "leaves")
        seen = dict.fromkeys(visit.path for visit in visits.visits if visit.layer.state_dict())
        order = [homes[path] for path in seen]
        assert order == sorted(order)


# By rule

LARGE = ("convnext_tiny", "densenet121", "inception_v3", "xception")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in STAGES]
)
def test_the_stages_of_a_network(name):
    model, images = on_meta(conf(name))
    assert names(model) == [stage for stage in STAGES[name].split(" | ") if stage] + ["head"]
    assert_sound(model, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMED) - set(STAGES)))
def test_every_named_network_has_sound_groups_of_a_usual_number(name):
    model, images = on_meta(conf(name))
    assert_sound(model, images)
    assert len(names(model)) in ([3, 4] if name in ("cnn", "lenet1", "lenet4", "mlp") else range(5, 11))


@pytest.mark.slow
def test_every_family_of_timm_has_sound_groups():
    for family, name in timm_families().items():
        if family not in ("cait", "coat"):  # their own tables do not follow the order in which they run
            assert_sound(*timm_net(name))


def test_what_timm_counts_to_the_classifier_belongs_to_the_encoder():
    model, images = timm_net("tf_efficientnet_lite0")
    expected = ["conv_stem bn1", *(f"blocks.{number}" for number in range(6)), "blocks.6 conv_head bn2", "head"]
    groups = layer_groups(model, settings())
    assert [group.name for group in groups] == expected
    assert groups[-1].parameters == ("classifier.weight", "classifier.bias")
    assert {"bn2.drop", "global_pool.pool"} <= set(groups[-2].leaves)
    assert_sound(model, images)


def test_blocks_are_the_fine_grained_case():
    model, _ = on_meta(conf("resnet18"))
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert names(model, unit=Unit.block) == ["conv1 bn1", *blocks, "head"]
    dense = names(on_meta(conf("densenet121"))[0], unit=Unit.block)
    assert dense[6:9] == [
        f"features.{name}" for name in ("denseblock1.denselayer6", "transition1", "denseblock2.denselayer1")
    ]
    inception = names(on_meta(conf("googlenet"))[0], unit=Unit.block)
    assert inception[:4] == ["conv1", "conv2", "conv3", "inception3a"]
    assert names(timm_net("convnext_atto")[0], unit=Unit.block)[:3] == [
        "stem",
        "stages.0.blocks.0",
        "stages.0.blocks.1",
    ]


def test_stages_do_not_depend_on_the_strides_that_small_images_take_away():
    small, large = (on_meta(conf("resnet18"), image_size=size)[0] for size in (32, 224))
    assert isinstance(small.maxpool, nn.Identity)
    assert names(small) == names(large)


def test_dropout_and_pools_belong_to_the_layer_before_them():
    groups = layer_groups(on_meta(conf("mobilenet_v2"))[0], settings())
    assert groups[-1].leaves == ("classifier.1",)
    assert groups[-2].leaves[-1] == "classifier.0"
    head = HeadSettings(hidden=[8], dropout=0.5)
    groups = layer_groups(on_meta(conf("resnet18", head=head))[0], settings())
    assert groups[-1].leaves == ("fc.drop1", "fc.fc1", "fc.act1", "fc.drop2", "fc.fc2")
    assert groups[0].leaves == ("conv1", "bn1", "relu", "maxpool")
    assert groups[-2].leaves[-1] == "avgpool"


def test_what_follows_the_head_belongs_to_it():
    model = Own(conv=nn.Conv2d(3, 4, 3), drop=nn.Dropout(), fc=nn.Linear(4, 3), scores=nn.LogSoftmax(1))
    assert [group.leaves for group in layer_groups(model, settings())] == [("conv", "drop"), ("fc", "scores")]


def test_auxiliary_classifiers_belong_to_the_head():
    for name, side in (("googlenet", ["aux1.", "aux2."]), ("inception_v3", ["AuxLogits."])):
        groups = layer_groups(on_meta(conf(name))[0], settings())
        modules = [*side, "fc."]
        assert all(name.startswith(tuple(modules)) for name in groups[-1].parameters)
        assert all(any(name.startswith(module) for name in groups[-1].parameters) for module in modules)
        assert not any(name.startswith(tuple(modules)) for group in groups[:-1] for name in group.leaves)


def test_a_wrapped_network_has_the_groups_of_what_it_wraps():
    for model in (on_meta(conf("resnet18"))[0], timm_net("tf_efficientnet_lite0")[0]):
        groups = layer_groups(model, settings())
        wrapped = layer_groups(nn.Sequential(OrderedDict(enlarge=nn.Upsample(scale_factor=2), net=model)), settings())
        assert [group.parameters for group in wrapped] == [
            tuple(f"net.{name}" for name in group.parameters) for group in groups
        ]
        assert wrapped[1].name == f"net.{groups[1].name}"


def test_a_pattern_for_the_head_moves_the_end_of_the_encoder():
    model, _ = on_meta(conf("vgg16"))
    groups = layer_groups(model, settings(head="classifier"))
    assert [group.name for group in groups] == [*STAGES["vgg16"].split(" | ")[:5], "head"]
    assert set(groups[-1].leaves) == {f"classifier.{number}" for number in range(7)}


# Networks of users


def test_the_groups_of_a_users_sequential():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(8, 3))
    assert names(model) == ["0-3", "6", "10", "head"]
    assert names(model, unit=Unit.block) == ["0-1", "3", "6", "10", "head"]


def test_a_network_that_pools_in_its_code_has_blocks_for_stages():
    layers = {"conv1": nn.Conv2d(1, 4, 3), "conv2": nn.Conv2d(4, 4, 3), "fc1": nn.Linear(4, 4), "fc2": nn.Linear(4, 3)}
    assert names(Own(**layers)) == ["conv1", "conv2", "fc1", "head"]


def test_a_backbone_in_a_users_module_is_taken_apart():
    backbone = on_meta(conf("resnet18"))[0]
    backbone.fc = nn.Identity()
    stages = [f"backbone.{stage}" for stage in STAGES["resnet18"].split(" | ")]
    assert names(Own(backbone=backbone, neck=nn.Linear(512, 8), head=nn.Linear(8, 3))) == [*stages, "neck", "head"]


def test_parameters_of_the_network_itself_belong_to_the_lowest_group_and_shared_ones_to_the_lower():
    first, last = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    last.weight = first.weight
    model = Own(first=first, middle=nn.Conv2d(3, 3, 3), last=last, fc=nn.Linear(3, 2))
    model.scale = nn.Parameter(torch.ones(3))
    groups = layer_groups(model, settings())
    assert groups[0].parameters == ("scale", "first.weight", "first.bias")
    assert [group.parameters for group in groups[1:3]] == [("middle.weight", "middle.bias"), ("last.bias",)]


def test_a_batch_norm_before_all_layers_goes_with_the_first_one():
    model = Own(norm=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 3, 3), pool=nn.MaxPool2d(2), fc=nn.Linear(3, 2))
    assert names(model) == ["norm conv", "head"]
    assert names(Own(norm=nn.BatchNorm2d(3), fc=nn.Linear(3, 2))) == ["norm", "head"]


# A count, and patterns


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, ["conv1-layer4"]),
        (3, ["conv1 bn1 layer1", "layer2-4"]),
        (4, ["conv1 bn1 layer1", "layer2", "layer3-4"]),
        (6, ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_a_count_joins_neighbours(count, expected):
    groups = layer_groups(on_meta(conf("resnet18"))[0], settings(groups=count))
    assert len(groups) == count
    joined = [part for group in groups[:-1] for part in group.parameters]
    assert joined == [name for name, _ in on_meta(conf("resnet18"))[0].named_parameters() if not name.startswith("fc.")]
    assert [group.name for group in groups[:-1]] == expected


def test_more_groups_than_there_are_is_a_fault_that_tells_the_number():
    model, _ = on_meta(conf("resnet18"))
    says = (
        r"^finetune.groups: must be from 2 to 6, for 5 stages and the head \(given 7\); finetune.unit=block allows 10$"
    )
    with pytest.raises(ConfigError, match=says):
        layer_groups(model, settings(groups=7))
    with pytest.raises(ConfigError, match=r"from 2 to 10, for 9 blocks and the head \(given 11\)$"):
        layer_groups(model, settings(groups=11, unit=Unit.block))
    with pytest.raises(ConfigError, match=r"\(given 1\)"):
        layer_groups(model, settings(groups=1))


def test_patterns_make_the_groups_and_the_first_that_matches_wins():
    model, _ = on_meta(conf("resnet18"))
    groups = layer_groups(model, settings(groups=["conv1|bn1|layer1", "layer4.1", "*"]))
    assert [group.name for group in groups] == ["conv1|bn1|layer1", "layer4.1", "*", "head"]
    block = ("conv1", "bn1", "relu", "conv2", "bn2")
    assert groups[1].leaves == (*(f"layer4.1.{name}" for name in block), "avgpool")
    assert groups[-1].parameters == ("fc.weight", "fc.bias")
    assert home_of(groups, "parameters").keys() == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (
            ["conv1|bn1", "layer1|layr2", "*"],
            r"'layr2' of 'layer1\|layr2' matches no parameter below the head; did you",
        ),
        (
            ["conv1|bn1", "layer1"],
            "no pattern matches layer2.0.conv1.weight, layer2.0.bn1.weight, layer2.0.bn1.bias and 42",
        ),
        (["*", "layer4"], "all that 'layer4' matches is in groups below; give the narrower pattern first"),
        (
            ["layer4", "layer1|layer2|layer3", "conv1|bn1"],
            "'layer4' lies above 'layer1\\|layer2\\|layer3' in the network",
        ),
        (["*", "fc"], "'fc' matches no parameter below the head"),
    ],
)
def test_patterns_that_leave_something_out_or_match_nothing_are_faults(patterns, says):
    with pytest.raises(ConfigError, match=f"^finetune.groups: {says}"):
        layer_groups(on_meta(conf("resnet18"))[0], settings(groups=patterns))


def test_a_pattern_names_all_that_it_leaves_out_where_that_is_little():
    model = Own(one=nn.Conv2d(3, 3, 1, bias=False), two=nn.Conv2d(3, 3, 1), fc=nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"no pattern matches two\.weight, two\.bias; name them too"):
        layer_groups(model, settings(groups=["one"]))
    model = Own(one=nn.Conv2d(3, 3, 1), two=nn.Conv2d(3, 3, 1), fc=nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"no pattern matches one\.bias, two\.weight, two\.bias; name them too"):
        layer_groups(model, settings(groups=["one.weight"]))


def test_groups_that_overlap_in_the_network_are_in_order():
    """Only a group that lies wholly above the next one is refused."""
    layers = {name: nn.Conv2d(3, 3, 1, bias=False) for name in ("a", "b", "c", "d")}
    model = Own(**layers, fc=nn.Linear(3, 2))
    for patterns in (["b|d", "a|c"], ["a|d", "b|c"], ["d", "*"]):
        assert [group.name for group in layer_groups(model, settings(groups=patterns))] == [*patterns, "head"]
    with pytest.raises(ConfigError, match=r"'c\|d' lies above 'a\|b' in the network"):
        layer_groups(model, settings(groups=["c|d", "a|b"]))


def test_a_count_of_one_or_of_all_the_groups_is_at_the_border():
    layers = {name: nn.Conv2d(3, 3, 1, bias=False) for name in ("a", "b", "c")}
    model = Own(**layers, fc=nn.Linear(3, 2))
    assert names(model, groups=4) == ["a", "b", "c", "head"]
    assert names(model, groups=2) == ["a b c", "head"]
    with pytest.raises(ConfigError, match=r"from 2 to 4, for 3 stages and the head \(given 5\)$"):
        layer_groups(model, settings(groups=5))


def test_names_of_neighbours_are_short_and_of_one_family():
    def of(*keys):
        layers = {key: nn.Conv2d(3, 3, 1, bias=False) for key in keys}
        return names(Own(**layers, fc=nn.Linear(3, 2)), groups=2)[0]

    assert of("a", "b", "c") == "a b c"
    assert of("conv9", "conv10", "conv11") == "conv9-11"
    assert of("mixed10a", "mixed13b") == "mixed10a-13b"
    assert of("stem", "body", "neck", "tail") == "stem-tail"
    assert of("conv1", "bn", "other") == "conv1 bn other"
