"""Any image size: which layers are relaxed, what the classifier becomes, when images are enlarged, what is refused."""

from itertools import pairwise

import pytest
import torch
from samples import digits
from torch import nn
from torch.nn import functional

from cnntrain.config.schema.model import Library, ModelSettings, Norm, Stem
from cnntrain.errors import ConfigError
from cnntrain.models.build import build_model
from cnntrain.models.catalogue import catalogue

LIBRARY_NETS = [
    *("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "googlenet"),
    *("inception_v3", "inception_v4", "inception_resnet_v2", "resnet18", "resnet34", "resnet50", "resnet101"),
    *("resnet152", "wide_resnet50_2", "resnext50_32x4d", "xception", "densenet121", "densenet169", "densenet201"),
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "nasnet", "convnext_tiny"),
    *(f"efficientnet_b{phi}" for phi in range(8)),
]
OWN_NETS = [
    *("inception_v1", "inception_v2", "inception_resnet_v1", "resnet20", "preact_resnet18", "wrn28_10"),
    *("efficientnet", "resnet9", "airbench"),
]
FAMILIES = [
    *("alexnet", "googlenet", "inception_v3", "resnet18", "xception", "mobilenet_v1"),
    *("mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"),
]
RATES = {"alexnet": 1e-4, "vgg13": 1e-4, "vgg16": 1e-4, "vgg19": 1e-4}
AUXILIARY = {"googlenet": 0.3, "inception_v1": 0.3, "inception_v3": 0.4}


def build(name, image_size=32, channels=3, classes=10, **settings):
    chosen = ModelSettings(name=name, **{"aux_weight": AUXILIARY.get(name, 0.0), **settings})
    return build_model(chosen, classes=classes, channels=channels, image_size=image_size)


def on_meta(*words, **keys):
    with torch.device("meta"):
        return build(*words, **keys)


def logits_of(model, image_size, channels=3, batch=2):
    """The logits of images on the meta device, in evaluation mode and of every head in training mode."""
    images = torch.empty(batch, channels, image_size, image_size, device="meta")
    heads = model.train()(images)
    return [model.eval()(images), *(heads if isinstance(heads, tuple) else [heads])]


def map_after(model, layer, image_size):
    """The side of the map that a layer gives."""
    seen = []
    hook = layer.register_forward_hook(lambda layer, given, output: seen.append(output.shape[-1]))
    model.eval()(torch.empty(2, 3, image_size, image_size, device="meta"))
    hook.remove()
    return seen[-1]


def look(convolution):
    return convolution.kernel_size[0], convolution.stride[0], convolution.padding[0]


# Every network, at every size


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_each_family_gives_logits_at_32_pixels_in_both_modes(name):
    model, notes = on_meta(name)
    assert {tuple(logits.shape) for logits in logits_of(model, 32)} == {(2, 10)}
    assert notes
    assert all("\n" not in note for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet18", "mobilenet_v1", "convnext_tiny"])
@pytest.mark.parametrize(("image_size", "channels"), [(8, 1), (28, 1)])
def test_common_networks_give_logits_for_the_sizes_of_digits(name, image_size, channels):
    model, _ = on_meta(name, image_size, channels)
    assert {tuple(logits.shape) for logits in logits_of(model, image_size, channels)} == {(2, 10)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LIBRARY_NETS, *OWN_NETS])
@pytest.mark.parametrize(("image_size", "channels"), [(8, 1), (28, 1), (32, 3), (64, 3), (224, 3), (299, 3)])
def test_every_network_gives_logits_at_every_size_in_both_modes(name, image_size, channels):
    model, _ = on_meta(name, image_size, channels)
    assert {tuple(logits.shape) for logits in logits_of(model, image_size, channels)} == {(2, 10)}


# The rule


@pytest.mark.parametrize(
    ("image_size", "stem", "has_pool", "stage2", "stage3"),
    [
        (224, (7, 2, 3), True, 2, 2),
        (112, (7, 2, 3), True, 2, 2),
        (64, (3, 1, 1), True, 2, 2),
        (32, (3, 1, 1), False, 2, 2),
        (28, (3, 1, 1), False, 2, 2),
        (16, (3, 1, 1), False, 1, 2),
        (8, (3, 1, 1), False, 1, 1),
    ],
)
def test_resnet_is_relaxed_from_its_stem_on_until_the_last_map_is_4x4(image_size, stem, has_pool, stage2, stage3):
    model, notes = on_meta("resnet18", image_size)
    assert look(model.conv1) == stem
    assert isinstance(model.maxpool, nn.MaxPool2d) == has_pool
    for stage, stride in ((model.layer2, stage2), (model.layer3, stage3)):
        assert stage[0].conv1.stride == stage[0].downsample[0].stride == (stride, stride)
    assert map_after(model, model.layer4, image_size) == max(4, image_size // 32)
    assert len(notes) == (image_size < 112)


def test_small_stem_of_resnet18_is_that_of_the_cifar_nets():
    model, notes = build("resnet18")
    assert sum(weights.numel() for weights in model.parameters()) == 11_173_962
    assert notes == [
        "stem for 32-pixel images: conv1 3x3/1 instead of 7x7/2, maxpool removed; last map 4x4 instead of 1x1 "
        "(model.stem=imagenet keeps the original)"
    ]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_smaller_kernel_has_the_spread_of_kaiming_fan_out():
    torch.manual_seed(0)
    assert build("resnet18")[0].conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_relaxed_layers_keep_their_weights():
    torch.manual_seed(0)
    published, _ = build("mobilenet_v2", stem=Stem.imagenet)
    torch.manual_seed(0)
    relaxed, _ = build("mobilenet_v2")
    assert relaxed.features[0][0].stride == (1, 1)
    pairs = zip(published.state_dict().values(), relaxed.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_branches_side_by_side_are_relaxed_together():
    block = on_meta("xception")[0].block1
    assert (block.skip.stride, block.rep[-1].stride, block.rep[-1].padding) == ((1, 1), (1, 1), 1)
    cell = on_meta("nasnet")[0].cell_stem_0
    assert {getattr(layer, "stride", (1, 1)) for layer in cell.modules()} == {(1, 1), 1}


def test_relaxed_pool_gets_the_border_that_its_neighbours_keep_the_size_by():
    reduction = on_meta("inception_v2", 8)[0].features.inception_3c
    assert reduction.pool.pool.stride == (1, 1)
    assert reduction.pool.pool.padding == 1


@pytest.mark.parametrize(("image_size", "stem"), [(128, (4, 4, 0)), (64, (2, 2, 0)), (32, (3, 1, 1)), (8, (3, 1, 1))])
def test_patches_of_four_pixels_become_two_and_then_a_convolution(image_size, stem):
    model, _ = on_meta("convnext_tiny", image_size)
    assert look(model.features[0][0]) == stem
    assert map_after(model, model.features, image_size) == 4


def test_even_kernel_keeps_the_size_of_the_map_by_its_dilation():
    patch = on_meta("convnext_tiny", 16)[0].features[2][1]
    assert (patch.kernel_size, patch.stride, patch.dilation, patch.padding) == ((2, 2), (1, 1), (2, 2), (1, 1))


@pytest.mark.parametrize(("image_size", "stem"), [(224, (11, 4, 2)), (64, (3, 1, 1)), (32, (3, 1, 1))])
def test_alexnet_loses_its_stride_and_keeps_its_pools(image_size, stem):
    model, _ = on_meta("alexnet", image_size)
    assert look(model.features[0]) == stem
    assert [model.features[place].stride for place in (2, 5, 12)] == [2, 2, 2]


def test_stem_imagenet_is_the_network_as_published():
    model, notes = on_meta("resnet18", 32, stem=Stem.imagenet)
    assert look(model.conv1) == (7, 2, 3)
    assert notes == []


@pytest.mark.parametrize("image_size", [32, 224])
def test_stem_small_relaxes_the_first_two_halvings_at_any_size(image_size):
    model, notes = on_meta("resnet18", image_size, stem=Stem.small)
    assert look(model.conv1) == (3, 1, 1)
    assert isinstance(model.maxpool, nn.Identity)
    assert notes == [
        "small stem: conv1 3x3/1 instead of 7x7/2, maxpool removed (model.stem=imagenet keeps the original)"
    ]


def test_stem_small_takes_two_steps_where_one_layer_quarters_the_map():
    model, _ = on_meta("convnext_tiny", 224, stem=Stem.small)
    assert look(model.features[0][0]) == (3, 1, 1)
    assert map_after(model, model.features, 224) == 28


@pytest.mark.parametrize(("name", "words"), [("vit_b_16", "part of its design"), ("swin_t", "part of its design")])
def test_stem_small_is_refused_where_patches_have_places(name, words):
    with pytest.raises(ConfigError, match=rf"^model\.stem: small .*{words}; use model\.stem=auto"):
        on_meta(name, stem=Stem.small)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "swin_v2_t"])
def test_transformers_stay_as_they_are(name):
    model, notes = on_meta(name)
    assert notes == []
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_networks_of_timm_follow_the_same_rule():
    model, _ = on_meta("resnet18d", library=Library.timm)
    assert model.conv1[0].stride == (1, 1)
    assert isinstance(model.maxpool, nn.Identity)
    assert map_after(model, model.layer4, 32) == 4


# Classifiers of flattened maps


@pytest.mark.parametrize(
    ("image_size", "widths"),
    [
        (224, [25088, 4096, 4096, 10]),
        (128, [25088, 4096, 4096, 10]),
        (64, [2048, 2048, 2048, 10]),
        (32, [512, 512, 512, 10]),
        (28, [512, 512, 512, 10]),
        (8, [512, 512, 512, 10]),
    ],
)
def test_classifier_of_vgg_follows_its_last_map(image_size, widths):
    model, notes = on_meta("vgg16", image_size)
    linear = [layer for layer in model.classifier if isinstance(layer, nn.Linear)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths
    assert all(layer.out_features == after.in_features for layer, after in pairwise(linear))
    assert any("-".join(map(str, widths)) in note for note in notes) == (widths[0] != 25088)


@pytest.mark.parametrize(("image_size", "pools"), [(32, 5), (28, 4), (16, 4), (8, 3)])
def test_vgg_keeps_the_pools_that_have_a_map_to_halve(image_size, pools):
    model, _ = on_meta("vgg16_bn", image_size)
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in model.features) == pools


def test_smaller_classifier_keeps_the_spread_of_the_output():
    torch.manual_seed(0)
    first = build("vgg11")[0].classifier[0]
    assert first.weight.std().item() == pytest.approx(0.01 * (25088 / 512) ** 0.5, rel=0.05)
    assert not first.bias.any()


# Enlarged images


@pytest.mark.slow
def test_images_are_enlarged_where_no_change_lets_the_network_run():
    model, notes = on_meta("inception_resnet_v2", 8)
    assert notes == ["images enlarged from 8 to 75 pixels, the smallest that inception_resnet_v2 runs at"]
    assert model.enlarge(torch.empty(2, 3, 8, 8, device="meta")).shape == (2, 3, 75, 75)
    assert [tuple(logits.shape) for logits in logits_of(model, 8)] == [(2, 10)] * 2
    assert all(key.startswith("net.") for key in model.state_dict())


def test_enlarged_images_suit_the_auxiliary_heads_too():
    model, notes = on_meta("inception_v3", 8)
    assert notes[0] == "images enlarged from 8 to 107 pixels, the smallest that inception_v3 runs at"
    assert len(logits_of(model, 8)) == 3


def test_auxiliary_convolution_that_its_map_is_too_small_for_gets_a_border():
    model, notes = on_meta("inception_v3", 32)
    assert model.AuxLogits.conv1.conv.padding == (2, 2)
    assert "AuxLogits.conv1.conv with a border, as its map has 3x3 pixels" in notes


def test_instance_norm_is_given_more_than_one_pixel():
    model, notes = on_meta("vgg11_bn", 28, norm=Norm.instance)
    assert notes[0] == "images enlarged from 28 to 32 pixels, the smallest that vgg11_bn runs at"
    assert len(logits_of(model, 28)) == 2


# Refusals


@pytest.mark.parametrize(
    ("name", "smallest", "stem", "advice"),
    [
        ("alexnet", 63, "imagenet", "model.stem=auto"),
        ("vgg11", 32, "imagenet", "model.stem=auto"),
        pytest.param("inception_v3", 75, "imagenet", "model.stem=auto", marks=pytest.mark.slow),
        ("inception_v3", 21, "small", "model.stem=auto"),
        ("vit_b_32", 32, "auto", "choose another model"),
        ("vit_b_32", 256, "auto", "choose another model"),  # above the size that it was made for
    ],
)
def test_image_size_that_does_not_suit_names_the_smallest_that_does(name, smallest, stem, advice):
    settings = {"stem": Stem[stem], "aux_weight": 0.0}
    words = (
        rf"^data\.image_size: {smallest - 1} does not suit {name} \(.*\), the smallest above it that works is "
        rf"{smallest}; set data\.image_size={smallest} or {advice}"
    )
    with pytest.raises(ConfigError, match=words) as caught:
        on_meta(name, smallest - 1, **settings)
    assert "\n" not in str(caught.value)
    assert len(logits_of(on_meta(name, smallest, **settings)[0], smallest)) == 2


def test_network_that_runs_at_no_size_blames_its_arguments():
    with pytest.raises(ConfigError, match=r"^model\.args: vit_b_16 fails at 32 pixels .*; correct model\.args or"):
        on_meta("vit_b_16", args={"image_size": 30})


# Learning


def heads_of(output):
    return output if isinstance(output, tuple) else (output,)


def objective(heads, labels):
    return sum(
        weight * functional.cross_entropy(logits, labels) for weight, logits in zip((1, 0.3, 0.3), heads, strict=False)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARY_NETS)
def test_every_network_memorises_a_batch_at_32_pixels(name):
    images, labels = digits(8, 32)
    images = images.expand(-1, 3, -1, -1)
    torch.manual_seed(0)
    drops = {"dropout": 0.0, "drop_path": 0.0} if name.startswith("efficientnet") else {"dropout": 0.0}
    model, _ = build(name, **drops)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATES.get(name, 1e-3))
    for _ in range(60):
        optimizer.zero_grad()
        heads = heads_of(model.train()(images))
        if (heads[0].argmax(1) == labels).all():
            return
        objective(heads, labels).backward()
        assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters())
        optimizer.step()
    pytest.fail(f"{(heads[0].argmax(1) == labels).float().mean():.0%} after 60 steps")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LIBRARY_NETS, *OWN_NETS])
def test_every_network_takes_a_step_at_its_native_size(name):
    size = catalogue()[name].image_size
    torch.manual_seed(0)
    model, notes = build(name, size)
    before = [weights.detach().clone() for weights in model.parameters()]
    objective(heads_of(model.train()(torch.randn(2, 3, size, size))), torch.tensor([0, 1])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not notes
    assert all(weights.grad.isfinite().all() for weights in model.parameters() if weights.requires_grad)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
