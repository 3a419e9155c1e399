"""The numbers behind the pictures of `cnntrain explain`, against brute force and analytic cases."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cnntrain.errors import ConfigError
from cnntrain.evaluation.intervals import wilson
from cnntrain.inspect.explain import excite, feature_maps, features, filters, gradcam, shift
from cnntrain.inspect.explain.subject import NotApplicable, Subject
from cnntrain.plots.drawing import fit
from cnntrain.plots.sheet import HEAT, Tile, color


def small_net(channels: int = 3) -> nn.Sequential:
    """Two convolutions with a pooling between them, and a fully connected head for 8-pixel images."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 5),
    ).eval()  # fmt: skip


def pooled_net(padding_mode: str = "zeros") -> nn.Sequential:
    """Convolutions, global average pooling, one linear layer."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, padding_mode=padding_mode), nn.ReLU(),
        nn.Conv2d(8, 7, 3, padding=1, padding_mode=padding_mode), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4),
    ).eval()  # fmt: skip


def subject_of(model: nn.Module, images: torch.Tensor, classes: int) -> Subject:
    names = [f"class {index}" for index in range(classes)]
    labels: list[int | None] = [index % classes for index in range(len(images))]
    return Subject(model, lambda batch: batch.float() / 255, names, images, labels, ["name"] * len(images), "a net")


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


# ---- layers ----


def test_layers_with_maps_are_found_by_running():
    layers = feature_maps.map_layers(small_net(), torch.zeros(2, 3, 8, 8))
    assert [(layer.name, layer.channels, layer.size, layer.is_pool) for layer in layers] == [
        ("0", 6, (8, 8), False), ("1", 6, (8, 8), False), ("2", 6, (4, 4), True),
        ("3", 4, (4, 4), False), ("4", 4, (4, 4), False),
    ]  # fmt: skip
    assert feature_maps.first_map(layers).name == "1"
    assert feature_maps.last_map(layers).name == "4"
    assert [layer.name for layer in feature_maps.stages(layers)] == ["1", "4"]
    assert layers[0].describe() == "0 (Conv2d): 6 maps of 8x8"


def test_a_network_without_maps_says_so():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(NotApplicable, match="no convolution gives a feature map"):
        feature_maps.map_layers(flat, torch.zeros(1, 1, 8, 8))
    with pytest.raises(NotApplicable, match="no convolution gives a feature map"):
        feature_maps.map_layers(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), torch.zeros(1, 1, 8, 8))


def test_enlarged_images_tensors_with_channels_last_and_the_end_in_a_pool_are_no_last_map():
    class Permute(nn.Module):
        def forward(self, images):
            return images.permute(0, 2, 3, 1)

    net = nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(1, 5, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
        Permute(), nn.LayerNorm(5), nn.Linear(5, 9), nn.Flatten(),
    )  # fmt: skip
    layers = feature_maps.map_layers(net, torch.zeros(1, 1, 8, 8))
    assert [layer.name for layer in layers] == ["1", "2.0", "2.1", "2"]
    assert feature_maps.last_map(layers).name == "2.0"


def test_stages_end_with_the_last_block_of_each_size():
    from torchvision import models

    mobilenet = ["features.0", "features.1", "features.3", "features.8", "features"]
    for model, last, stages in (
        (models.resnet18(), "layer4", ["relu", "layer1", "layer2", "layer3", "layer4"]),
        (models.mobilenet_v3_small(), "features", mobilenet),
    ):
        layers = feature_maps.map_layers(model.eval(), torch.zeros(1, 3, 64, 64))
        assert feature_maps.last_map(layers).name == last
        assert [layer.name for layer in feature_maps.stages(layers)] == stages


def test_layers_are_chosen_by_name_pattern_and_word():
    model = small_net()
    layers = feature_maps.map_layers(model, torch.zeros(1, 3, 8, 8))

    def chosen(*words: str) -> list[str]:
        return [layer.name for layer in feature_maps.choose_layers(words, layers, model)]

    assert chosen("3", "0") == ["0", "3"]
    assert chosen("[0-2]") == ["0", "1", "2"]
    assert chosen("last", "first") == ["1", "4"]
    assert chosen("stages") == ["1", "4"]
    model.add_module("stages", nn.Identity())
    assert chosen("stages") == ["1", "4"]
    with pytest.raises(ConfigError, match="6 gives no feature map"):
        chosen("6")
    with pytest.raises(ConfigError, match=r"no layer fist; did you mean first\? `cnntrain summary` lists"):
        chosen("fist")


def test_maps_are_those_of_the_layer_though_the_next_one_works_in_place():
    model, inputs = small_net(), torch.randn(2, 3, 8, 8)
    found = feature_maps.maps_of(model, inputs, ["0", "3"])
    assert torch.equal(found["0"], model[0](inputs))
    assert (found["0"] < 0).any()


# ---- filters ----


def test_a_filter_tile_has_grey_for_zero_and_the_extremes_for_the_largest_weight():
    weights = torch.tensor([[[0.0, 0.5], [-1.0, 0.25]]])
    tile = filters.filter_tile(weights)
    assert tile.shape == (2, 2, 3)
    assert (tile[..., 0] == tile[..., 2]).all()
    assert tile[..., 0].tolist() == [[128, 191], [0, 159]]
    colored = filters.filter_tile(torch.stack([weights[0], -weights[0], 0 * weights[0]]))
    assert colored[1, 0].tolist() == [0, 255, 128]
    assert (filters.filter_tile(torch.zeros(1, 3, 3)) == 128).all()


def test_the_first_layer_is_the_convolution_that_runs_first_else_the_linear_layer_on_the_pixels():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.later = nn.Conv2d(4, 2, 1)
            self.sooner = nn.Conv2d(1, 4, 3)

        def forward(self, images):
            return self.later(self.sooner(images)).flatten(1)

    assert filters.first_layer(subject_of(Backwards(), pixels(1, 1, 8, 8), 2))[0] == "sooner"
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 2))
    name, layer = filters.first_layer(subject_of(mlp, pixels(1, 1, 8, 8), 2))
    assert name == "1"
    assert torch.equal(filters.weights_of(layer, (1, 8, 8)), mlp[1].weight.detach().view(9, 1, 8, 8))
    with pytest.raises(NotApplicable, match="neither a convolution nor"):
        filters.first_layer(subject_of(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), pixels(1, 1, 8, 8), 4))


# ---- feature maps ----


def test_the_channels_that_vary_most_are_shown_in_their_order():
    found = torch.zeros(2, 5, 4, 4)
    found[0, 0], found[0, 3], found[:, 1] = 99.0, torch.eye(4), torch.randn(2, 4, 4) * 9
    assert features.choose_channels(found, 2) == [1, 3]
    assert features.choose_channels(found, 9) == [0, 1, 2, 3, 4]


def test_map_tiles_show_the_values_on_their_scale():
    values = torch.tensor([[0.0, 4.0], [2.0, 1.0]])
    assert (features.map_tile(values, 4.0, False) == color(values.numpy() / 4, HEAT)).all()
    signed = features.map_tile(values - 2, 2.0, True)
    assert signed[1, 0].tolist() == [255, 255, 255]
    assert signed[0, 0, 2] > signed[0, 0, 0]  # below 0: blue
    assert signed[0, 1, 0] > signed[0, 1, 2]


# ---- Grad-CAM ----


def test_grad_cam_before_a_global_average_pooling_is_cam():
    """arXiv 1610.02391, section 3.1: the weights are those of the linear layer, over the number of places."""
    model, inputs = pooled_net(), torch.randn(3, 1, 9, 9)
    classes = torch.tensor([[0, 1, 2], [3, 3, 3]])
    maps_before = model[:4](inputs)
    for evidence, wanted in zip(gradcam.grad_cam(model, inputs, "3", classes), classes, strict=True):
        cam = torch.einsum("nk,nkhw->nhw", model[6].weight[wanted], maps_before).relu() / 81
        torch.testing.assert_close(evidence.heat, cam.detach())
        probabilities = model(inputs).softmax(1)[torch.arange(3), wanted]
        torch.testing.assert_close(evidence.probabilities, probabilities.detach())


def test_grad_cam_works_on_frozen_weights_and_leaves_no_gradient():
    model = small_net().requires_grad_(False)
    for layer in ("3", "4"):  # what the activation changes in place, and what it gives
        (evidence,) = gradcam.grad_cam(model, torch.randn(2, 3, 8, 8), layer, torch.tensor([[0, 1]]))
        assert evidence.heat.shape == (2, 4, 4)
        assert (evidence.heat >= 0).all()
        assert evidence.heat.any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_grad_cam_of_a_network_without_derivatives_says_so():
    class Cut(nn.Module):
        def forward(self, images):
            return images.detach()

    model = nn.Sequential(nn.Conv2d(1, 2, 3), Cut(), nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(NotApplicable, match="no derivative by the maps of 0"):
        gradcam.grad_cam(model, torch.zeros(1, 1, 8, 8), "0", torch.tensor([[1]]))


def test_the_second_class_is_the_true_one_where_the_prediction_is_wrong():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert gradcam.choose_classes(logits, [0, 2, None]).tolist() == [[0, 0, 0], [1, 2, 1]]


def test_heat_is_enlarged_to_the_image_on_a_scale_of_its_own():
    heat = torch.zeros(2, 2, 2)
    heat[0, 0, 0] = 5.0
    large = gradcam.enlarge(heat, 8)
    assert large.shape == (2, 8, 8)
    assert large[0].max() == large[0, 0, 0] == 1
    assert not large[1].any()
    grey = gradcam.overlay(np.full((8, 8, 3), 100, dtype=np.uint8), large[1])
    hot = gradcam.overlay(np.full((8, 8, 3), 100, dtype=np.uint8), large[0])
    assert (grey == grey[0, 0]).all()
    assert hot[0, 0, 0] > grey[0, 0, 0]


def test_every_caption_of_grad_cam_fits_its_tile_whether_there_is_evidence_or_not(monkeypatch):
    captions = []
    monkeypatch.setattr(gradcam, "Tile", lambda *tile: captions.append(tile[1]) or Tile(*tile))
    for bias in (0.0, -1e4):  # with which no map has anything
        model = pooled_net()
        nn.init.constant_(model[2].bias, bias)
        nn.init.constant_(model[6].bias, 0.0)
        model[6].bias.data[1] = 50.0  # sure of its answer: the widest number
        subject = subject_of(model, pixels(2, 1, 8, 8), 4)
        gradcam.picture(subject, feature_maps.last_map(feature_maps.map_layers(model, subject.inputs)))
    lines = [line for caption in captions for line in caption]
    assert {"predicted, 100.0 %", "second choice, 0.0 %", "no evidence"} <= set(lines)
    assert [line for line in lines if fit(line, gradcam.SIDE + 5, 12) != line] == []


# ---- what excites a filter ----


def test_the_most_exciting_images_are_those_of_brute_force_whatever_the_batches():
    model, images = small_net(), pixels(50, 3, 8, 8).float().div(64).floor()  # coarse, so that values tie
    images[30:34] = images[3]
    channels = {"1": [0, 2, 5], "4": [1, 3]}
    every = feature_maps.maps_of(model, images, list(channels))
    for size in (7, 50):
        found = excite.most_exciting(model, images.split(size), channels, 6)
        for layer, chosen in channels.items():
            for place, channel in enumerate(chosen):
                values = every[layer][:, channel].amax((1, 2)).tolist()
                sums = every[layer][:, channel].sum((1, 2)).tolist()
                rank = [(-value, -total, index) for index, (value, total) in enumerate(zip(values, sums, strict=True))]
                wanted = [index for _, _, index in sorted(rank)[:6]]
                assert found[layer].images[:, place].tolist() == wanted
                rows, columns = found[layer].places[:, place].T
                assert every[layer][wanted, channel, rows, columns].tolist() == found[layer].values[:, place].tolist()


def test_where_an_activation_has_a_ceiling_the_sum_over_the_map_decides_and_the_fullest_place_is_shown():
    model, images = nn.Sequential(nn.Identity(), nn.ReLU6()), torch.zeros(8, 1, 9, 9)
    for index in range(8):
        images[index, 0, 0, 0] = 50  # every map reaches 6 here first, and most around (4, 5)
        images[index, 0, 3 : 4 + index % 4, 4:7] = 50 + index
    found = excite.most_exciting(model, images.split(3), {"1": [0]}, 5)["1"]
    assert found.values.flatten().tolist() == [6] * 5
    assert found.images.flatten().tolist() == [3, 7, 2, 6, 1]
    assert found.sums.flatten().tolist() == [78, 78, 60, 60, 42]
    assert found.places[:4, 0].tolist() == [[4, 5]] * 4
    assert found.tied.tolist() == [True]


def test_a_layer_that_runs_twice_counts_as_it_ends():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, images):
            return self.convolution(self.convolution(images)).flatten(1)

    model, images = Twice(), torch.randn(9, 1, 6, 6)
    with torch.no_grad():
        wanted = model(images).amax(1)
    found = excite.most_exciting(model, images.split(4), {"convolution": [0]}, 4)["convolution"]
    assert found.images[:, 0].tolist() == wanted.argsort(descending=True)[:4].tolist()
    assert len({*found.images[:, 0].tolist()}) == 4


def test_the_box_of_a_place_is_that_of_the_pixels_that_change_it():
    """Against derivatives: with positive weights and poolings that average nothing cancels out."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, (3, 5), padding=1), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, stride=2, padding=1, dilation=2)
    )
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    inputs = torch.rand(1, 1, 20, 20, requires_grad=True)
    (field,) = excite.receptive_fields(model, inputs.detach(), ["2"]).values()
    found = model(inputs)
    for row in range(found.shape[2]):
        for column in range(found.shape[3]):
            (slopes,) = torch.autograd.grad(found[0, 0, row, column], inputs, retain_graph=True)
            touched = slopes[0, 0].nonzero()
            (top, left), (bottom, right) = touched.amin(0).tolist(), (touched.amax(0) + 1).tolist()
            box = excite.box_of(field, (row, column), 20)
            assert box[0] <= top
            assert box[1] <= left
            assert box[2] >= bottom
            assert box[3] >= right
            if 0 < row < found.shape[2] - 1 and 0 < column < found.shape[3] - 1:  # dilation leaves holes at a border
                assert box == (top, left, bottom, right)


def test_a_layer_behind_a_squeeze_sees_the_whole_image():
    class Squeeze(nn.Module):
        def forward(self, images):
            return images * images.mean((2, 3), keepdim=True)

    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Squeeze(), nn.Flatten())
    fields = excite.receptive_fields(model, torch.zeros(1, 1, 8, 8), ["0", "1"])
    assert excite.box_of(fields["1"], (2, 2), 8) == (0, 0, 8, 8)
    assert excite.box_of(fields["0"], (2, 0), 8) == (1, 0, 4, 2)


def test_patches_are_cut_out_or_framed():
    image = pixels(1, 8, 8)
    cut = excite.patch(image, (1, 2, 4, 6), False)
    assert (cut == image[0, 1:4, 2:6].numpy()[..., None]).all()
    framed = excite.patch(image, (1, 2, 4, 6), True)
    assert framed.shape == (80, 80, 3)
    assert framed[10, 20].tolist() == list(excite.FRAME)
    assert framed[0, 0].tolist() == [image[0, 0, 0]] * 3


# ---- shifts ----


def test_shifted_images_repeat_their_border_or_come_round():
    images = pixels(2, 3, 5, 6)
    round_ = shift.shift(images, 1, -2, circular=True)
    assert torch.equal(round_, images.roll((1, -2), (2, 3)))
    padded = functional.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    assert torch.equal(shift.shift(images, 1, -2), padded[:, :, 1:6, 4:10])


def scale(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255 - 0.5


def test_circular_convolution_and_global_pooling_do_not_feel_a_circular_shift_and_an_mlp_does():
    torch.manual_seed(3)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    batches = [(pixels(40, 1, 8, 8), torch.arange(40) % 4)]
    invariant = shift.measure(
        pooled_net("circular").double(), batches, lambda x: scale(x).double(), [1, 3], circular=True
    )
    assert [row.changed for row in invariant] == [0, 0, 0]
    assert max(row.moved for row in invariant) < 1e-7
    assert len({row.top1 for row in invariant}) == 1
    felt = shift.measure(mlp, batches, scale, [1, 3], circular=True)
    assert felt[0].changed == felt[0].moved == 0
    assert min(row.changed for row in felt[1:]) > 0.1
    assert min(row.moved for row in felt[1:]) > 0.01


def test_the_effect_of_a_shift_is_the_mean_over_images_and_directions():
    model, images, labels = small_net(), pixels(30, 3, 8, 8), torch.arange(30) % 5
    with torch.no_grad():
        before = model(scale(images)).softmax(1)
        changed, moved, right = [], [], []
        for down, across in ((0, 2), (0, -2), (2, 0), (-2, 0)):
            after = model(scale(shift.shift(images, down, across))).softmax(1)
            changed.append((after.argmax(1) != before.argmax(1)).float().mean().item())
            moved.append((after - before)[torch.arange(30), labels].abs().mean().item())
            right.append((after.argmax(1) == labels).float().mean().item())
    batches = list(zip(images.split(8), labels.split(8), strict=True))
    zero, two = shift.measure(model, batches, scale, [2])
    assert (two.changed, two.moved, two.top1) == pytest.approx((np.mean(changed), np.mean(moved), np.mean(right)))
    assert zero.top1 == pytest.approx((before.argmax(1) == labels).float().mean().item())
    heads = "pixels,changed,moved,top1,changed_low,changed_high,top1_low,top1_high"
    assert shift.csv([zero]).splitlines()[0] == heads
    text = shift.draw([zero, two], 30, "test", "a $net$").content("svg").decode()
    assert all(f">{words}<" in text for words in ("a $net$", "shift in pixels", "0", "2", f"{100 * zero.top1:.1f}"))


def test_a_shift_has_intervals_over_images_whatever_the_batches():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    images, labels = pixels(60, 1, 8, 8), torch.arange(60) % 4
    rows = [
        shift.measure(model, list(zip(images.split(size), labels.split(size), strict=True)), scale, [2])
        for size in (7, 60)
    ]
    zero, two = rows[0]
    assert two.intervals["changed"] == pytest.approx(rows[1][1].intervals["changed"])
    assert zero.intervals == {"changed": (0, 0), "top1": pytest.approx(wilson(zero.top1, 60))}
    with torch.no_grad():
        before = model(scale(images)).argmax(1)
        after = torch.stack(
            [model(scale(shift.shift(images, 2 * down, 2 * right))).argmax(1) for down, right in shift.DIRECTIONS]
        )
    for key, shares in (("changed", after != before), ("top1", after == labels)):
        values = shares.double().mean(0)
        low, high = two.intervals[key]
        assert low < values.mean() < high
        assert high - low == pytest.approx(2 * 1.96 * values.std().item() / 60**0.5, rel=0.06)
    head, _, line = shift.table([zero, two])
    assert head == ["shift", "other prediction", "95 % interval", "probability", "top-1", "95 % interval"]
    low, high = two.intervals["changed"]
    assert line[2] == f"{100 * low:.2f} to {100 * high:.2f}%"
    assert [float(cell) for cell in shift.csv([two]).split()[1].split(",")][4:6] == pytest.approx((low, high), abs=1e-6)
