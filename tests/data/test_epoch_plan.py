"""The plan of a run: sizes, micro-batches and steps of its epochs, by hand and as the loaders cut them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnntrain.config.schema.augment import AugmentSettings, ProgressiveSettings
from cnntrain.config.schema.data import DataSettings, LoaderKind
from cnntrain.config.schema.pieces import ResizedCropSettings
from cnntrain.data.build import build_data
from cnntrain.data.epoch_plan import EpochPlan, Stage, images_in_epoch
from cnntrain.data.sampler import BatchSampler
from cnntrain.runtime.world import World


def plan(images=50_000, batch_size=128, image_size=32, epochs=10, accumulate=1, max_steps=None, **progressive):
    return EpochPlan(
        images,
        batch_size=batch_size,
        image_size=image_size,
        epochs=epochs,
        accumulate=accumulate,
        max_steps=max_steps,
        progressive=ProgressiveSettings(**progressive) if progressive else None,
    )


def sizes(made: EpochPlan) -> list[int]:
    return [made.stage(epoch).image_size for epoch in range(made.epochs)]


def batch_sizes(made: EpochPlan) -> list[int]:
    return [made.stage(epoch).batch_size for epoch in range(made.epochs)]


def totals(made: EpochPlan, epoch: int, start: int = 0) -> list[int]:
    """Images of each micro-batch of an epoch, as the loaders cut it."""
    labels, world = torch.zeros(made.images, dtype=torch.int64), World(0, made.processes)
    sampler = BatchSampler(labels, batch_size=1, seed=0, train=True, world=world).cut(made.stage(epoch).batch_size)
    return [total for _, total in sampler.parts(start)]


# ---- by hand ----


def test_images_grow_linearly_in_whole_multiples_and_the_batch_keeps_its_cost():
    made = plan(start=0.5, until=0.8, multiple=4)
    assert sizes(made) == [16, 16, 20, 24, 24, 24, 28, 32, 32, 32]  # of 16, 18, 20, 22, 24, 26, 28, 30, 32, 32
    assert batch_sizes(made) == [512, 512, 328, 228, 228, 228, 167, 128, 128, 128]
    assert [made.steps(epoch) for epoch in range(10)] == [98, 98, 153, 220, 220, 220, 300, 391, 391, 391]
    assert made.total == 98 * 2 + 153 + 220 * 3 + 300 + 391 * 3
    photos = plan(images=9469, batch_size=32, image_size=224, epochs=5, start=0.57, until=1.0, multiple=32)
    assert sizes(photos) == [128, 160, 160, 192, 224]  # of 127.7, 151.8, 175.8, 199.9, 224
    assert batch_sizes(photos) == [98, 63, 63, 44, 32]


def test_the_first_of_several_epochs_is_small_however_short_the_growth_is():
    assert sizes(plan(start=0.5, until=0.01)) == [16] + [32] * 9


def test_the_batch_may_keep_its_size():
    assert batch_sizes(plan(batch=False)) == [128] * 10


@pytest.mark.parametrize(("epochs", "expected"), [(1, [32]), (2, [16, 32]), (3, [16, 24, 32]), (4, [16, 20, 28, 32])])
def test_the_last_epoch_is_full_however_few_there_are(epochs, expected):
    assert sizes(plan(epochs=epochs, start=0.5, until=1.0)) == expected


@pytest.mark.parametrize("image_size", [4, 30, 33, 224])
@pytest.mark.parametrize("multiple", [1, 4, 32])
@pytest.mark.parametrize("epochs", [1, 7, 100])
def test_sizes_rise_to_exactly_the_full_one_and_are_multiples_below_it(image_size, multiple, epochs):
    made = plan(image_size=image_size, epochs=epochs, start=0.01, multiple=multiple)
    found = sizes(made)
    assert found == sorted(found)
    assert found[-1] == image_size
    assert all(size == image_size or (size % multiple == 0 and multiple <= size < image_size) for size in found)


def test_epochs_beyond_the_planned_ones_have_the_full_size():
    made = plan(start=0.5)
    assert made.stage(10_000) == Stage(32, 128)
    assert made.first_step(12) == made.total + 2 * 391
    assert made.position(made.total + 391) == 11


# ---- steps ----


def test_without_progressive_resizing_every_epoch_is_the_same():
    made = plan(images=1001, batch_size=50, epochs=7, accumulate=3)
    assert (made.batches(3), made.steps(3), made.total) == (20, 7, 49)  # the remainder of one is left out
    for step in (0, 1, 6, 7, 20.5, 49, 1000):
        assert made.position(step) == step / 7
        assert made.at_full_size(step) == step
    assert [made.first_step(epoch) for epoch in (0, 1, 6, 9)] == [0, 7, 42, 63]


def test_a_last_micro_batch_of_one_image_is_left_out():
    assert [images_in_epoch(images, 4) for images in (4, 5, 6, 8, 9)] == [4, 4, 6, 8, 8]
    assert images_in_epoch(9, 1) == 9
    assert images_in_epoch(9, 100) == 9
    made = plan(images=513, batch_size=128, epochs=10, start=0.5, until=0.8)
    assert [made.batches(epoch) for epoch in (0, 2, 9)] == [1, 2, 4]  # of 512, 328 and 128 images


def test_the_last_micro_batch_counts_what_it_holds():
    made = EpochPlan(30, batch_size=7, image_size=8, epochs=2)
    assert (made.batches(0), made.steps(0), made.total) == (5, 5, 10)
    assert totals(made, 0) == [7, 7, 7, 7, 2]
    grown = plan(images=513, batch_size=128, epochs=10, start=0.5, until=0.8)
    assert [sum(totals(grown, epoch)) for epoch in (0, 2, 9)] == [512, 513, 512]  # of 512, 328 and 128 images


def test_each_process_gets_two_images_of_a_last_micro_batch_or_it_is_left_out():
    assert [images_in_epoch(images, 4, 2) for images in (8, 9, 10, 11, 12, 13)] == [8, 8, 8, 8, 12, 12]
    assert [images_in_epoch(images, 8, 2) for images in (3, 4, 7, 11, 12)] == [0, 4, 7, 8, 12]
    assert [images_in_epoch(images, 2, 2) for images in (4, 5, 6)] == [4, 4, 6]  # one image for each is what was asked
    shared = EpochPlan(13, batch_size=4, image_size=8, epochs=1, processes=2)
    assert (shared.batches(0), totals(shared, 0)) == (3, [4, 4, 4])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_position_is_continuous_and_rises_by_one_in_each_epoch(accumulate):
    made = plan(images=3000, accumulate=accumulate, start=0.3)
    positions = np.array([made.position(step) for step in range(made.total + 1)])
    assert (np.diff(positions) > 0).all()
    for epoch in range(11):
        first = made.first_step(epoch)
        assert positions[first] == pytest.approx(epoch)
        assert made.position(max(0, first - 1e-9)) == pytest.approx(epoch)
        if epoch < 10:
            assert np.diff(positions[first : made.first_step(epoch + 1) + 1]) == pytest.approx(1 / made.steps(epoch))


def test_full_sized_steps_are_the_position_times_those_of_a_full_epoch():
    made = plan(start=0.3)
    for step in range(0, made.total + 500, 7):
        assert made.at_full_size(step) == pytest.approx(made.position(step) * 391)


def test_a_limit_on_steps_lets_the_images_grow_within_it():
    limited = plan(epochs=100, max_steps=2482, start=0.5, until=0.8)
    assert limited.first_step(10) == 2482  # the steps of ten epochs, see above
    assert sizes(limited)[:10] == sizes(plan(start=0.5, until=0.8))
    assert sizes(plan(max_steps=10**9, start=0.5)) == sizes(plan(start=0.5))
    assert sizes(plan(max_steps=1, start=0.5)) == [32] * 10
    assert plan(max_steps=100).total == 3910  # without progressive resizing it changes nothing


def test_a_million_epochs_cost_no_more_than_the_sizes_they_have():
    made = plan(epochs=10**6, start=0.5, until=0.8)
    assert made.stage(799_999).image_size == made.stage(999_999).image_size == 32
    assert (
        made.first_step(10**6)
        == made.total
        == sum(count * steps for count, steps in zip(_run_lengths(made), (98, 153, 220, 300, 391), strict=True))
    )


def _run_lengths(made: EpochPlan) -> list[int]:
    """Epochs of each size: those at which the linear growth passes the middle between two multiples of 4."""
    # Half-way sizes are rounded to even multiples: 18 belongs to 16, 22 and 26 to 24, 30 to 32.
    borders = [0]
    for middle, inclusive in ((18, True), (22, False), (26, True), (30, False)):
        epoch = (middle - 16) / 16 * 800_000
        borders.append(int(epoch) + inclusive)
    return [end - start for start, end in zip(borders, [*borders[1:], made.epochs], strict=True)]


# ---- whatever the settings ----


@st.composite
def plans(draw):
    """Runs of up to 40 epochs, growing or not, in one process or several."""
    processes = draw(st.integers(1, 4))
    grown = st.builds(
        ProgressiveSettings,
        start=st.floats(0.05, 0.95),
        until=st.floats(0.01, 1),
        multiple=st.integers(1, 40),
        batch=st.booleans(),
    )
    return EpochPlan(
        draw(st.integers(2 * processes, 3000)),
        batch_size=processes * draw(st.integers(1, 300)),
        image_size=draw(st.integers(4, 224)),
        epochs=draw(st.integers(1, 40)),
        accumulate=draw(st.integers(1, 9)),
        progressive=draw(st.none() | grown),
        max_steps=draw(st.none() | st.integers(1, 2000)),
        processes=processes,
    )


@given(plans())
def test_the_micro_batches_of_an_epoch_hold_each_of_its_images_once(made):
    cut = {}  # by stages: epochs of one stage are cut alike
    for epoch in range(made.epochs + 2):
        size, batches = made.stage(epoch).batch_size, made.batches(epoch)
        if made.stage(epoch) in cut:
            assert batches == cut[made.stage(epoch)]
            continue
        cut[made.stage(epoch)] = batches
        counts = totals(made, epoch)
        assert len(counts) == batches
        assert sum(counts) == images_in_epoch(made.images, size, made.processes)
        assert counts[:-1] == [size] * (batches - 1)
        assert made.processes <= counts[-1] <= size
        assert made.images - sum(counts) < 2 * made.processes
        for start in range(0, batches, 1 + batches // 9):
            assert totals(made, epoch, start) == counts[start:]


@given(plans())
def test_the_steps_of_the_epochs_follow_one_another_and_make_up_the_run(made):
    steps = 0
    for epoch in range(made.epochs):
        assert made.first_step(epoch) == steps
        assert made.steps(epoch) == math.ceil(made.batches(epoch) / made.accumulate) > 0
        for step in (steps, steps + made.steps(epoch) - 1):
            assert made.stage_at(step) == made.stage(epoch)
            assert epoch <= made.position(step) < epoch + 1
        steps += made.steps(epoch)
    assert made.total == steps
    assert made.position(steps) == pytest.approx(made.epochs)


@given(plans())
def test_images_grow_from_stage_to_stage_to_the_full_size(made):
    grown = sizes(made)
    assert grown == sorted(grown)
    assert made.stage(made.epochs) == Stage(made.image_size, made.batch_size)
    assert made.progressive or set(grown) == {made.image_size}
    assert batch_sizes(made) == sorted(batch_sizes(made), reverse=True)


# ---- what the loaders really do ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """41 little pictures of two classes."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for index in range(41):
        (root / f"class{index % 2}").mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (12, 14, 3), dtype=np.uint8)).save(root / f"class{index % 2}/{index}.png")
    return root


@pytest.mark.parametrize("kind", ["digits", "memory", "stream"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_planned_steps_are_those_that_the_loaders_yield(folder, kind, accumulate):
    settings = DataSettings(name="digits", root="", batch_size=100, image_size=16, limit=901)
    if kind != "digits":
        settings = DataSettings(
            name="imagefolder", root=str(folder), batch_size=5, image_size=16, val=5, workers=0, mean=[0.5], std=[0.5]
        )
        settings.loader = LoaderKind(kind)
    crop = AugmentSettings(resized_crop=ResizedCropSettings()) if kind == "stream" else AugmentSettings()
    train = build_data(settings, crop, seed=0, device=torch.device("cpu"), splits=("train",), say=list).train
    made = plan(
        len(train.labels),
        settings.batch_size,
        settings.image_size,
        epochs=5,
        accumulate=accumulate,
        start=0.4,
        until=0.9,
    )
    assert sizes(made) == [8, 8, 12, 12, 16]
    steps = 0
    for epoch in range(5):
        stage = made.stage(epoch)
        loader = train.at(stage.batch_size, stage.image_size)
        counts = [len(labels) for _, labels, *_ in loader.batches(epoch)]
        assert len(counts) == len(loader) == made.batches(epoch)
        assert sum(counts) == loader.images
        assert min(counts) > 1
        assert made.first_step(epoch) == steps
        steps += math.ceil(len(counts) / accumulate)
    assert steps == made.total
