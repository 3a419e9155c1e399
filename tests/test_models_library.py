"""torchvision's networks by name, fitted to the data."""

import pytest
import torch
from torch import nn

from cnntrain.errors import ConfigError
from cnntrain.models import build_model
from cnntrain.settings.model import ModelSettings, Stem


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def build(name, args=None, stem=Stem.auto, classes=10, channels=3, image_size=32):
    settings = ModelSettings(name=name, args=args or {}, stem=stem)
    return build_model(settings, classes=classes, channels=channels, image_size=image_size)


def on_meta(*words, **keys):
    with torch.device("meta"):
        return build(*words, **keys)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("alexnet", 61_100_840),
        ("mobilenet_v2", 3_504_872),
        ("googlenet", 6_624_904),
        ("regnet_y_400mf", 4_344_144),
        ("vit_b_16", 86_567_656),
    ],
)
def test_parameter_counts_are_the_published_ones(name, count):
    model, notes = on_meta(name, classes=1000, image_size=224)
    assert parameters(model) == count
    assert notes == []


def test_small_images_get_the_small_stem_of_cifar_resnet18():
    model, notes = build("resnet18")
    assert parameters(model) == 11_173_962
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert isinstance(model.maxpool, nn.Identity)
    assert notes == [
        "small stem for 32-pixel images: 3x3/1 convolution, no max-pool (model.stem=imagenet keeps the original)"
    ]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_small_stem_keeps_the_map_four_times_larger():
    seen = []
    model, _ = on_meta("resnet18")
    model.layer4.register_forward_hook(lambda layer, given, output: seen.append(output.shape[-1]))
    model(torch.empty(2, 3, 32, 32, device="meta"))
    assert seen == [4]


def test_small_stem_is_drawn_with_the_spread_of_kaiming_fan_out():
    torch.manual_seed(0)
    assert build("resnet18")[0].conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("stem", "image_size", "kernel"), [("auto", 63, 3), ("auto", 64, 7), ("imagenet", 32, 7), ("small", 224, 3)]
)
def test_stem_follows_its_stated_rule(stem, image_size, kernel):
    model, notes = on_meta("resnet18", stem=Stem[stem], image_size=image_size)
    assert model.conv1.kernel_size == (kernel, kernel)
    assert len(notes) == (kernel == 3)


def test_small_stem_is_refused_where_there_is_no_7x7_stem():
    with pytest.raises(ConfigError, match=r"^model\.stem: small .* vgg11"):
        on_meta("vgg11", stem=Stem.small)


def test_weights_and_random_state_are_those_of_torchvision_itself():
    from torchvision.models import resnet18

    torch.manual_seed(3)
    expected, state = resnet18(num_classes=10).state_dict(), torch.get_rng_state()
    torch.manual_seed(3)
    found = build("resnet18", stem=Stem.imagenet)[0].state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_32"])
@pytest.mark.parametrize("channels", [1, 4])
def test_first_convolution_takes_the_channels_of_the_data(name, channels):
    model, notes = on_meta(name, channels=channels)
    assert model(torch.empty(2, channels, 32, 32, device="meta")).shape == (2, 10)
    assert f"first convolution for {channels}-channel images in place of 3" in notes


def test_channel_change_keeps_the_spread_of_the_weights():
    torch.manual_seed(0)
    model, _ = build("resnet18", stem=Stem.imagenet, channels=1)
    assert model.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("name", "larger"), [("alexnet", 63), ("vgg11", 32), ("inception_v3", 75), ("vit_h_14", 28)])
def test_image_size_that_does_not_suit_names_the_next_that_does(name, larger):
    with pytest.raises(
        ConfigError, match=rf"^data.image_size: {larger - 1} does not suit {name} .*={larger} or"
    ) as caught:
        on_meta(name, image_size=larger - 1)
    assert "\n" not in str(caught.value)
    assert on_meta(name, image_size=larger)[0](torch.empty(2, 3, larger, larger, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        (
            "resnet18",
            {"zero_init_residul": True},
            r"^model\.args\.zero_init_residul: .* did you mean model\.args\.zero_init_residual\?",
        ),
        ("resnet18", {"num_classes": 5}, r"^model\.args\.num_classes: "),
        ("resnet18", {"layers": [1, 1, 1, 1]}, r"^model\.args: resnet18 .*layers"),
        ("resnet18", {"replace_stride_with_dilation": [True]}, r"^model\.args: resnet18 "),
        ("googlenet", {"aux_logits": True}, r"^model\.args: googlenet gives GoogLeNetOutputs"),
        ("alexnet", {"dropout": "much"}, r"^model\.args: alexnet "),
    ],
)
def test_bad_argument_is_one_line_that_names_it(name, args, words):
    with pytest.raises(ConfigError, match=words) as caught:
        on_meta(name, args, image_size=224)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_good_argument_reaches_the_network():
    model, _ = build("resnet18", {"zero_init_residual": True})
    assert not model.layer1[0].bn2.weight.any()


def test_unknown_name_is_shown_the_nearest_one():
    with pytest.raises(ConfigError, match=r"^model\.name: 'resnet81' .* did you mean resnet18\?"):
        build("resnet81")
    with pytest.raises(ConfigError, match=r"^model\.name: 'lenet' .* did you mean lenet5\?"):
        build("lenet")


def test_dotted_name_is_shown_the_form_with_a_colon():
    with pytest.raises(ConfigError, match=r"my_pkg\.nets:build"):
        build("my_pkg.nets.build")


@pytest.mark.slow
def test_every_network_of_torchvision_takes_grey_images_at_its_own_size():
    from torchvision import models

    for name in models.list_models(module=models):
        if name != "regnet_y_128gf":  # half a minute by itself, and built like its smaller sisters
            on_meta(name, channels=1, image_size=224)


@pytest.mark.slow
def test_resnet18_memorises_a_batch_of_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (
        torch.tensor(digits.images[:16], dtype=torch.float32)[:, None].repeat_interleave(2, 2).repeat_interleave(2, 3)
        / 8
        - 1
    )
    labels = torch.tensor(digits.target[:16])
    torch.manual_seed(0)
    model, _ = build("resnet18", channels=1, image_size=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).all()
