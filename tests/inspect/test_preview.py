"""`cnntrain preview`: the sheet of images stage by stage, the schedule, and their files."""

import functools
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain.cli.arguments import read_arguments
from cnntrain.commands import preview
from cnntrain.commands.preview import _facts
from cnntrain.config.compose import compose_settings
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.commands import PreviewArgs
from cnntrain.config.schema.pieces import AugMixSettings
from cnntrain.errors import ConfigError
from cnntrain.inspect.preview.schedule import Course
from cnntrain.inspect.preview.sheet import Sample, Strip, sheet
from cnntrain.models.drop import drop_layers, set_drop_factor
from cnntrain.optim import schedules
from cnntrain.plots.curves import Panel
from cnntrain.report.augmentation import describe, describe_all, shares
from cnntrain.report.run_report import Report
from cnntrain.report.summary import show_samples
from cnntrain.training.build import build_train_job
from cnntrain.training.job import TrainJob

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")
ALL = "augment=[flip_crop,randaugment,blur,cutout,mixup,cutmix]"


@functools.cache
def job_of(*words: str) -> TrainJob:
    settings = compose_settings(["model=lenet5", "trainer.device=cpu", "trainer.threads=1", "trainer.probe=0", *words])
    return build_train_job(settings, Report(None, tensorboard=False), splits=("train",))


def names(job: TrainJob) -> list[str]:
    return [strip.tag for strip in Sample(job, 4).strips()]


# --- the sheet -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("augment", "stages"),
    [
        ("[hflip,rotation]", ["geometry"]),
        ("[cutout,hflip]", ["geometry", "noise"]),
        ("[random_erasing,blur,randaugment,pad_crop]", ["geometry", "policy", "colour", "noise"]),
    ],
)
def test_sheet_has_the_stages_that_were_composed_and_no_others(augment: str, stages: list[str]) -> None:
    found = names(job_of(f"augment={augment}"))
    assert found == ["original", *stages, "network input", "epoch 2", "one image"]


def test_mixed_rows_come_with_mixing_and_nothing_is_drawn_twice_without_augmentation() -> None:
    mixed = names(job_of("augment=[hflip,cutmix]"))
    assert mixed == ["original", "geometry", "network input", "mixed", "epoch 2", "epoch 3", "one image"]
    assert names(job_of("augment=none")) == ["original", "network input"]
    assert names(job_of("augment=hflip", "trainer.epochs=1")) == ["original", "geometry", "network input"]


def test_consistency_loss_shows_all_three_versions() -> None:
    found = names(job_of("augment=augmix", "augment.augmix.jsd=12"))
    versions = [f"policy, {version}" for version in ("clean", "first mixture", "second mixture")]
    assert [name for name in found if name.startswith("policy")] == versions
    assert sum(name.startswith("network input") for name in found) == 3


def test_rows_are_what_training_does_to_these_images() -> None:
    job = job_of(ALL)
    sample = Sample(job, 6)
    strips = {strip.tag: strip for strip in sample.strips()}
    images = job.data.train.pick(sample.indices)
    assert torch.equal(torch.stack(strips["original"].images), images)
    for name, _, traced in job.augment.trace(images, sample.context(0)):
        assert torch.equal(torch.stack(strips[name].images), traced)
    assert all(map(torch.equal, strips["network input"].images, strips["noise"].images))  # normalised and back

    context = sample.context(0)
    assert job.mix
    inputs, targets = job.mix(job.augment(images, context), sample.labels, context)
    low, high = job.data.mean[0], job.data.std[0]
    shown = torch.stack(strips["mixed"].images).float() / 255
    assert (shown - (inputs * high + low).clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    assert list(strips["mixed"].captions) == shares(targets, job.data.classes)
    assert torch.equal(strips["one image"].images[0], strips["network input"].images[0])


@pytest.mark.parametrize("mode", ["batch", "pair", "element"])
def test_captions_of_mixed_images_carry_weights_that_sum_to_one(mode: str) -> None:
    job = job_of("augment=[mixup,cutmix]", f"augment.mix.mode={mode}", "augment.mixup.alpha=5")
    strips = {strip.tag: strip for strip in Sample(job, 7).strips()}
    weights = [
        [float(line.removeprefix("+ ").split()[0]) for line in lines]
        for name in ("mixed", "epoch 2", "epoch 3")
        for lines in strips[name].captions
    ]
    assert all(sum(row) == pytest.approx(1, abs=0.011) and row == sorted(row, reverse=True) for row in weights)
    assert any(len(row) == 2 for row in weights)


def test_images_stay_unmixed_after_off_epoch() -> None:
    strips = {strip.tag: strip for strip in Sample(job_of("augment=mixup", "augment.mix.off_epoch=1"), 4).strips()}
    assert [len(lines) for lines in strips["mixed"].captions] == [2] * 4
    assert all(lines[0].startswith("1.00 class ") for lines in strips["epoch 2"].captions)


def test_crops_of_streamed_files_are_those_that_training_gets(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number}.png")
    words = ("data=imagefolder", f"data.root={tmp_path}", "data.image_size=32", "data.batch_size=2", "data.val=2")
    job = job_of(*words, "data.loader=stream", "augment=resized_crop", "data.workers=0")
    train, sample = job.data.train, Sample(job, 4)
    strips = {strip.tag: strip for strip in sample.strips()}
    for epoch, tag in ((0, "geometry"), (1, "epoch 2")):
        seen = dict(
            zip(
                train.sampler.order(epoch).tolist(),
                torch.cat([images for images, *_ in train.batches(epoch)]),
                strict=True,
            )
        )
        for index, image in zip(sample.indices.tolist(), strips[tag].images, strict=True):
            assert torch.equal(image, seen[index])
    assert not any(map(torch.equal, strips["original"].images, strips["geometry"].images))


def test_one_image_is_drawn_in_the_first_epochs_or_over_all_of_them_where_it_grows() -> None:
    still = list(Sample(job_of("augment=hflip"), 3).strips())[-1]
    assert [words for (words,) in still.captions] == [f"epoch {number}" for number in range(1, 9)]
    growing = list(Sample(job_of("model=resnet20", "augment=[hflip,progressive]", "trainer.epochs=15"), 3).strips())[-1]
    assert [words for words, _ in growing.captions] == [f"epoch {number}" for number in range(1, 16, 2)]
    assert [image.shape[-1] for image in growing.images[:: len(growing.images) - 1]] == [16, 32]


@pytest.mark.parametrize(("count", "size"), [(1, 8), (8, 28), (8, 32), (12, 32), (12, 28), (8, 224)])
def test_sheet_can_be_looked_at_whatever_the_images(count: int, size: int) -> None:
    images = list(torch.randint(256, (count, 3, size, size), dtype=torch.uint8))
    drawn = sheet([Strip("original", ["a piece"], images, [("name",)] * count)], "title", ["note"], "footer")
    assert drawn.side >= 96
    assert drawn.draw().width <= 1640


def test_every_piece_can_be_shown() -> None:
    menu = [item.name for item in fields(AugmentSettings) if item.name not in ("own", "mix", "resized_crop")]
    job = job_of("model=resnet20", f"augment=[{','.join(menu)}]", "data.channels=3", "data.limit=100")
    strips = list(Sample(job, 2).strips())
    pieces = [name for stage in job.augment.stages for name, _ in stage.pieces]
    assert {*pieces, "mixup", "cutmix"} == set(menu)
    told = [word.split()[0] for strip in strips[:5] for word in strip.words]
    assert told == pieces


def test_pieces_are_told_with_the_numbers_that_do_something() -> None:
    settings = compose_settings(["augment=[flip_crop,rotation,randaugment,cutmix]", "augment.mix.off_epoch=9"]).augment
    assert describe(settings, "pad_crop") == "pad_crop padding=4 mode=zeros"
    assert describe(settings, "hflip") == "hflip p=0.5"
    assert describe(settings, "affine") == "affine degrees=15"
    assert describe(settings, "randaugment") == "randaugment n=2 m=9"
    assert describe(settings, "mix") == "mix mode=batch off_epoch=9"
    assert describe_all(settings).endswith("randaugment n=2 m=9, cutmix alpha=1, mix mode=batch off_epoch=9")
    assert describe_all(AugmentSettings()) == "none"
    assert describe_all(AugmentSettings(augmix=AugMixSettings())) == "augmix severity=3 width=3 alpha=1"


# --- the samples of a run in TensorBoard -----------------------------------------------------------------------------


class Told:
    """Keeps what show_samples hands to a report."""

    def pictures(self, tag: str, images: torch.Tensor, captions: list[str]) -> None:
        self.images, self.captions = images, captions

    def graph(self, model: torch.nn.Module, inputs: torch.Tensor) -> None:
        self.inputs = inputs


def test_samples_of_a_run_are_its_first_micro_batch_as_the_network_gets_it() -> None:
    job, told = job_of(ALL, "augment.mixup.alpha=9", "augment.mix.switch_p=0"), cast(Any, Told())
    show_samples(job, told)
    images, labels, indices, _ = next(job.data.train.batches())
    context = job.context(0, 0, indices)
    assert job.mix
    inputs, targets = job.mix(job.augment(images, context), labels, context)
    assert torch.equal(told.images, job.as_images(inputs)[:32])
    assert told.captions == ["\n".join(lines) for lines in shares(targets[:32], job.data.classes)]
    assert sum("+" in caption for caption in told.captions) > 16


def test_samples_show_all_versions_of_a_few_images_however_small_the_micro_batch() -> None:
    job, told = job_of("augment=augmix", "augment.augmix.jsd=12", "data.batch_size=6"), cast(Any, Told())
    show_samples(job, told)
    images, labels, indices, _ = next(job.data.train.batches())
    assert torch.equal(told.images, job.as_images(job.augment(images, job.context(0, 0, indices))))
    assert told.captions == [job.data.classes[label] for label in labels.tolist()] * 3


# --- the curves ------------------------------------------------------------------------------------------------------


def panels(course: Course) -> dict[str, Panel]:
    return {panel.name: panel for panel in course.panels()}


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "multistep", "exponential"])
def test_curve_of_the_rate_equals_the_schedule(schedule: str) -> None:
    job = job_of(f"schedule={schedule}", "trainer.epochs=7")
    course = Course(job)
    panel = panels(course)[f"learning rate, schedule {schedule}"]
    assert job.data.train
    lr, each = job.rates.lr, len(job.data.train)
    expected = [
        lr * schedules.factor(job.settings.schedule, step, 7 * each, each, schedules.Plateau()) for step in panel.steps
    ]
    assert course.steps == 7 * each
    assert panel.steps[0] == 0
    assert panel.steps[-1] == course.steps - 1
    assert panel.lines == [pytest.approx(expected)]
    assert course.scalars(5)["schedule/lr"] == pytest.approx(expected[5])


def test_drop_rates_rise_as_in_training() -> None:
    job = job_of("model=resnet20", "model.drop_path=0.4", "model.drop_schedule=linear", "trainer.epochs=2")
    course = Course(job)
    panel = panels(course)["drop rates of the layers"]
    found = drop_layers(job.model)
    for place in (0, len(panel.steps) // 2, -1):
        set_drop_factor(found, panel.steps[place] / course.steps)
        rates = sorted(getattr(drop.layer, drop.attribute) for drop in found)
        assert rates == pytest.approx([line[place] for line in panel.lines])
    assert panels(Course(job_of("model=cnn3", "model.dropout=0.4")))["drop rate"].words() == "0.4 throughout"
    assert list(panels(Course(job_of()))) == ["learning rate, schedule onecycle"]


def test_growing_images_are_drawn_as_planned_and_mixing_ends_where_it_does() -> None:
    words = ("augment=[hflip,progressive,mixup]", "trainer.epochs=10", "augment.mix.off_epoch=6")
    job = job_of("model=resnet20", *words)
    course = Course(job)
    sizes = panels(course)["image size in pixels"]
    for step, size in zip(sizes.steps, sizes.lines[0], strict=True):
        epoch = int(job.plan.position(step) + 1e-9)
        assert size == job.plan.stage(epoch).image_size == course.scalars(step)["schedule/image_size"]
    assert (sizes.lines[0][0], sizes.lines[0][-1]) == (16, 32)
    assert panels(course)["share of the images that are mixed"].steps[-1] == job.plan.first_step(6)


def test_run_that_ends_early_is_drawn_to_its_end() -> None:
    course = Course(job_of("trainer.max_steps=50", "trainer.epochs=30"))
    assert (course.steps, course.epochs, course.points[-1]) == (50, 2, 49)
    assert b">50 steps of 32 images, 2 epochs.<" in course.curves("title").draw().content("svg")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words: list[str], **arguments: Any) -> Path:
    words = ["model=lenet5", "trainer.device=cpu", *words]
    return preview.run(PreviewArgs(words=tuple(words), **arguments), RunConfig(compose_settings(words)))


def test_preview_of_digits_writes_pictures_and_a_page_and_says_how_to_go_on(here: Path, capsys) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run([ALL], out=Path("look"), images=5)
    assert folder == Path("look")
    for name in ("sheet.png", "schedule.png"):
        with Image.open(folder / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert "learning rate" in (folder / "schedule.svg").read_text()
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert "next  cnntrain train model=lenet5 trainer.device=cpu 'augment=[flip_crop," in told
    assert all(len(line) <= 80 for line in lines if not line.startswith(("next  cnntrain", "      tensorboard")))
    stages = [line.split()[0] for line in lines if line.startswith("  ") and line[2:3].isalpha()]
    assert [name for name in stages if name in ("geometry", "policy", "colour", "noise", "normalise", "mix")] == [
        "geometry",
        "policy",
        "colour",
        "noise",
        "normalise",
        "mix",
    ]
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    assert [tag.partition("_")[2] for tag in sorted(tags["images"]) if tag.startswith("preview/")][:6] == [
        "original",
        "geometry",
        "policy",
        "colour",
        "noise",
        "network_input",
    ]
    assert tags["scalars"] == ["schedule/lr"]
    assert sorted(path.name for path in here.iterdir()) == ["look"]


def test_what_is_told_fits_what_was_composed() -> None:
    def told(job: TrainJob) -> dict[str, str]:
        return _facts(job, Course(job))

    assert told(job_of("augment=none"))["augment"].startswith("none")
    mixed = told(job_of("augment=[hflip,cutmix]"))
    assert (mixed["geometry"], mixed["mix"]) == ("hflip p=0.5", "cutmix alpha=1, mix mode=batch")
    assert "augment" not in told(job_of("augment=mixup", "augment.mix.off_epoch=1"))
    assert told(job_of("augment=none"))["schedule"] == "onecycle, learning rate 0.025 (0.05 x 32/64)"


def test_previews_never_overwrite_each_other_or_anything_else(here: Path) -> None:
    first, second = run(["augment=none"]), run(["augment=none"])
    assert first != second
    assert first.parent == Path("outputs/preview")
    assert first.name.startswith("digits_")
    before = {path: path.read_bytes() for path in first.iterdir()}
    with pytest.raises(ConfigError, match="is not empty"):
        read_arguments(PreviewArgs, [f"out={first}"])
    assert {path: path.read_bytes() for path in first.iterdir()} == before


def test_words_of_preview_are_checked_all_at_once(here: Path) -> None:
    assert read_arguments(PreviewArgs, ["seed=1"]) == PreviewArgs(line=("preview", "seed=1"), words=("seed=1",))
    Path("empty").mkdir()
    args = read_arguments(PreviewArgs, ["images=12", "out=empty"])
    assert (args.images, args.out) == (12, Path("empty"))
    Path("file").touch()
    for word in ("images=0", "images=13", "images=x", "images=", "out=", "out=file"):
        with pytest.raises(ConfigError, match=word.partition("=")[0]):
            read_arguments(PreviewArgs, [word])
    with pytest.raises(ConfigError, match=r"images: .*\nout: "):
        read_arguments(PreviewArgs, ["images=-1", "out= "])


def test_nothing_is_left_behind_where_the_config_does_not_fit(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"pad_crop\.padding"):
        run(["augment=pad_crop", "augment.pad_crop.padding=40", "augment.pad_crop.mode=reflect"], out=Path("look"))
    assert list(here.iterdir()) == []
