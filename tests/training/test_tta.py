"""Test-time augmentation: which views there are, how their probabilities are averaged, and what `eval` tells of it."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional

from cnntrain.cli.arguments import read_arguments
from cnntrain.config.schema.data import CropMode, Interpolation
from cnntrain.config.schema.run_commands import VIEWS, EvalArgs
from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import Batch
from cnntrain.data.view import View
from cnntrain.errors import ConfigError, FileSystemError
from cnntrain.training.scoring import Scorer
from cnntrain.training.tta import Views, average_views


def places(size, count=1):
    """Images whose two channels say where each pixel lies: its row and its column."""
    rows = torch.arange(size, dtype=torch.uint8)
    return torch.stack([rows[:, None].expand(size, size), rows[None].expand(size, size)])[None].repeat(count, 1, 1, 1)


def photo(size, channels=3, count=2):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


# ---- views ----


@pytest.mark.parametrize(
    ("names", "count"),
    [
        ("", 1),
        ("hflip", 2),
        ("vflip", 2),
        ("hflip vflip", 4),
        ("shift", 5),
        ("crops", 5),
        ("hflip crops", 10),
        ("shift crops", 9),
        ("hflip vflip shift crops", 36),
    ],
)
def test_flips_multiply_and_places_add_up(names, count):
    views = Views(names.split(), 32)
    found = list(views(photo(32)))
    assert len(views) == len(found) == count
    assert all(view.shape == (2, 3, 32, 32) and view.dtype == torch.uint8 for view in found)
    assert len({view.numpy().tobytes() for view in found}) == count


@pytest.mark.parametrize("size", [4, 5, 8, 17, 32, 64, 224])
@pytest.mark.parametrize("around", [False, True])
def test_the_first_view_is_the_image_itself_and_the_input_is_left_alone(size, around):
    views = Views(tuple(VIEWS), size)
    images = photo(views.wide_size if around else size)
    before, first = images.clone(), round((images.shape[2] - size) / 2)
    found = list(views(images))
    assert torch.equal(found[0], images[:, :, first : first + size, first : first + size])
    assert {view.shape for view in found} == {(2, 3, size, size)}
    assert torch.equal(images, before)


def test_flips_are_torchs():
    images = photo(8)
    plain, mirrored, upside, both = Views(["vflip", "hflip"], 8)(images)
    assert torch.equal(plain, images)
    assert torch.equal(mirrored, images.flip(3))
    assert torch.equal(upside, images.flip(2))
    assert torch.equal(both, images.flip(2, 3))


def test_with_hflip_the_crops_are_alexnets_ten():
    found = list(Views(["hflip", "crops"], 224)(places(256)))
    corners = [tuple(view[0, :, 0, 0].tolist()) for view in found[::2]]
    assert corners == [(16, 16), (0, 0), (0, 32), (32, 0), (32, 32)]
    for plain, mirrored in zip(found[::2], found[1::2], strict=True):
        assert torch.equal(mirrored, plain.flip(3))
        top, left = plain[0, :, 0, 0].tolist()
        assert torch.equal(plain, places(256)[:, :, top : top + 224, left : left + 224])


def test_an_image_with_nothing_around_it_gets_a_mirrored_border():
    padded = functional.pad(places(32).float(), (2, 3, 2, 3), mode="reflect").to(torch.uint8)
    expected = [
        padded[:, :, top : top + 32, left : left + 32] for top, left in ((2, 2), (0, 0), (0, 5), (5, 0), (5, 5))
    ]
    for view, crop in zip(Views(["crops"], 32)(places(32)), expected, strict=True):
        assert torch.equal(view, crop)


@pytest.mark.parametrize(("size", "step"), [(8, 1), (32, 2), (64, 4)])
def test_a_shift_is_torchs_roll_inside_the_border(size, step):
    images = photo(size)
    _, *moved = Views(["shift"], size)(images)
    inner = (slice(None), slice(None), slice(step, -step), slice(step, -step))
    rolls = [torch.roll(images, shift, dims=(2, 3)) for shift in ((step, 0), (-step, 0), (0, step), (0, -step))]
    for view, roll in zip(moved, rolls, strict=True):
        assert torch.equal(view[inner], roll[inner])
    assert torch.equal(moved[0][:, :, :step], images[:, :, 1 : step + 1].flip(2))


MODES = [(share, Interpolation.bilinear, mode, (1, 2, 3)) for share in (0.7, 0.91, 1.0, 1.15) for mode in CropMode]


@pytest.mark.parametrize("size", [17, 32, 48, 64])
@pytest.mark.parametrize("shape", [(40, 50), (300, 303), (256, 421), (421, 256), (37, 37), (512, 515)])
@pytest.mark.parametrize("looks", [(), (0.965, Interpolation.bicubic), (1.0, Interpolation.bicubic), (0.5,), *MODES])
def test_a_wide_view_has_the_view_in_its_middle_to_the_pixel(size, shape, looks):
    picture = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    view = View(size, *looks)
    side = max(view.short_side, size)
    wide, first = view.wide_view(picture), round((side - size) / 2)
    assert wide.shape == (side, side, 3) == (view.wide_view.size, view.wide_view.size, 3)
    assert torch.equal(wide[first : first + size, first : first + size], view(picture))
    first_of_many = next(Views(tuple(VIEWS), size)(wide.permute(2, 0, 1)[None]))
    assert torch.equal(first_of_many[0], view(picture).permute(2, 0, 1))


# ---- averages ----


def test_probabilities_are_averaged_and_their_logarithm_stands_for_logits():
    logits = [torch.randn(5, 7) for _ in range(3)]
    first, answer = average_views(lambda view: logits[int(view)], map(torch.tensor, range(3)))
    mean = torch.stack(logits).softmax(2).mean(0)
    assert first is logits[0]
    torch.testing.assert_close(answer.exp(), mean)
    torch.testing.assert_close(answer.softmax(1), mean)


def test_probabilities_too_small_for_float32_do_not_become_zero():
    logits = torch.tensor([[0.0, 1000.0]])
    assert average_views(lambda view: view, [logits, logits])[1].tolist() == [[-1000.0, 0.0]]


def test_of_labels_that_have_a_probability_each_the_means_of_these_are_what_the_answer_stands_for():
    logits = [torch.randn(5, 7) for _ in range(3)]
    first, answer = average_views(lambda view: logits[int(view)], map(torch.tensor, range(3)), multi_label=True)
    assert first is logits[0]
    torch.testing.assert_close(answer.sigmoid(), torch.stack(logits).sigmoid().mean(0))
    for sure in (-1000.0, 1000.0):
        extreme = torch.tensor([[sure, sure]])
        answer = average_views(lambda view: view, [extreme, extreme / 2], multi_label=True)[1]
        torch.testing.assert_close(answer, torch.full((1, 2), sure / 2 + math.copysign(math.log(2), sure)))


class Split:
    """A split in memory, two micro-batches of unequal size."""

    def __init__(self, images, labels):
        self.content, self.labels = images, labels

    def batches(self):
        for part in (slice(5), slice(5, None)):
            labels = self.labels[part]
            yield Batch(self.content[part], labels, torch.arange(len(self.labels))[part], len(labels))


def scores(model, images, labels, views=None):
    scorer = Scorer(model, lambda x: x.float() / 255, torch.device("cpu"), Precision.fp32, views=views)
    return scorer.score(cast(Any, Split(images, labels)))


def test_scores_are_those_of_a_hand_made_average_and_the_plain_ones_stand_beside():
    images, labels = photo(16, count=8), torch.randint(0, 6, (8,))
    model = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.Flatten(), nn.LazyLinear(6))
    plain = scores(model, images, labels)
    found = scores(model, images, labels, Views(["hflip", "shift"], 16))

    one = Views(["shift"], 16)
    all_views = [view for place in one(images) for view in (place, place.flip(3))]
    with torch.no_grad():
        mean = torch.stack([model(view.float() / 255).softmax(1) for view in all_views]).mean(0)
    assert len(all_views) == 10
    assert found["loss"] == pytest.approx(functional.nll_loss(mean.log(), labels).item(), rel=1e-5)
    assert found["top1"] == pytest.approx((mean.argmax(1) == labels).float().mean().item())
    assert {key: found[f"plain_{key}"] for key in plain} == plain


def test_a_network_that_does_not_mind_gains_nothing():
    images, labels = photo(16, count=8), torch.randint(0, 4, (8,))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    plain = scores(model, images, labels)
    found = scores(model, images, labels, Views(["hflip", "vflip"], 16))
    assert found["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert found["top1"] == plain["top1"]


# ---- words ----


def read(*words: str) -> EvalArgs:
    return read_arguments(EvalArgs, ["run", *words])


def test_words_of_eval_are_parted_from_the_overrides(tmp_path):
    line = ["eval", "run", "data.root=x", "tta=[crops, hflip]", f"out={tmp_path}/a.json"]
    args = read_arguments(EvalArgs, line[1:], line)
    assert args == EvalArgs(
        line=tuple(line),
        words=("data.root=x",),
        run=Path("run"),
        tta=("hflip", "crops"),
        out=tmp_path / "a.json",
    )
    assert (read("tta=shift").tta, read().tta, read().out) == (("shift",), (), None)


def test_views_that_do_not_exist_are_told_with_the_nearest_right_spelling(tmp_path):
    with pytest.raises(ConfigError) as found:
        read("tta=[hflop,crop,xyzzy]")
    lines = str(found.value).splitlines()
    assert "(given hflop); did you mean hflip?" in lines[0]
    assert "(given crop); did you mean crops?" in lines[1]
    assert lines[2] == "tta: must be among hflip, vflip, shift, crops (given xyzzy)"
    with pytest.raises(ConfigError, match="tta: must not be empty"):
        read("tta=[]")
    with pytest.raises(FileSystemError, match="out: "):
        read(f"out={tmp_path}/nowhere/a.json")


def test_every_view_has_a_meaning():
    for name in VIEWS:
        assert len(Views([name], 32)) > 1
    assert str(Views(["hflip", "crops"], 32)) == "hflip, crops: 10 views"
