"""Fine-tuning runs through the command line: what the modes do to weights, statistics and a resumed run."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import run, run_killed
from safetensors.torch import save_file
from samples import digits

from cnntrain.config.compose import compose_settings
from cnntrain.storage import checkpoint

NET = ("model=cnn", "model.args.blocks=[8,16]", "model.args.norm=batch", "model.args.hidden=[24]")
QUICK = ("trainer.threads=1", "trainer.tensorboard=false", "data.workers=0")
PHOTOS = ("data=imagefolder", "data.root=photos", "data.image_size=32", "data.channels=1", "data.val=0.3")
HEAD = ("head.fc2.weight", "head.fc2.bias")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run on the digits, and the first three of them as a folder of pictures."""
    folder = tmp_path_factory.mktemp("source")
    images, labels = digits(220, 32)
    for index, label in enumerate(labels.tolist()):
        if label < 3:
            file = folder / "photos" / "012"[label] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(((images[index, 0] + 1) * 127).byte().numpy()).save(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(*NET, *QUICK, "trainer.epochs=3", "data.limit=600", "hydra.run.dir=digits") == 0
    return folder


@pytest.fixture
def here(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("digits", "photos"):
        (tmp_path / name).symlink_to(source / name)
    return tmp_path


def tune(folder, *words):
    """A fine-tuning of the run in digits/ that must succeed; answers its results."""
    assert run(*NET, *QUICK, *PHOTOS, "model.weights=digits", f"hydra.run.dir={folder}", *words) == 0
    return json.loads(Path(folder, "results.json").read_text())


def weights(folder, kind="last"):
    return checkpoint.load(Path(folder) / "checkpoints" / kind)["model"]


def changed(folder, other="digits"):
    """Names of the tensors that differ between two runs, the counters of batch norms left out."""
    before = weights(other, "best" if other == "digits" else "last")
    after = weights(folder)
    names = [name for name in after if not name.endswith("num_batches_tracked")]
    return {name for name in names if before[name].shape != after[name].shape or not before[name].equal(after[name])}


def said(folder):
    return Path(folder, "train.log").read_text()


@pytest.mark.parametrize("words", [(), ("augment=hflip", "trainer.ema=0.9", "trainer.accumulate=2")])
def test_mode_a_changes_the_head_and_no_bit_of_the_encoder(here, words):
    results = tune("a", "finetune=A", "trainer.epochs=2", *words)
    assert changed("a") == set(HEAD)
    assert results["trainable_parameters"] == 24 * 3 + 3 < results["parameters"]
    assert results["val"]["top1"] > 0.6
    log = said("a")
    assert ("features cached of" in log) == (not words)
    assert "loaded 14/16 tensors of digits" in log
    assert "new: head.fc2.weight, head.fc2.bias" in log
    assert "images as digits knows them: " in log


def test_the_cache_changes_the_speed_and_not_the_result(here):
    cached, plain = (
        tune(f"cache_{name}", "finetune=A", "trainer.epochs=3", f"finetune.cache_features={name}")
        for name in ("true", "false")
    )
    assert cached["val"]["top1"] == plain["val"]["top1"]
    assert cached["val"]["loss"] == pytest.approx(plain["val"]["loss"], abs=1e-5)
    for name, value in weights("cache_true").items():
        torch.testing.assert_close(value, weights("cache_false")[name], rtol=1e-4, atol=1e-5)


def test_modes_b_and_c_change_everything_and_lower_layers_of_c_less(here):
    for mode, more in (("B", ()), ("C", ("finetune.lr_decay=0.1",))):
        tune(mode, f"finetune={mode}", "schedule=constant", "augment=none", "trainer.epochs=1", *more)
        assert changed(mode) == {name for name in weights("digits", "best") if not name.endswith("tracked")}
    before = weights("digits", "best")
    first = next(name for name in before if before[name].ndim == 4)
    moved = {mode: (weights(mode)[first] - before[first]).norm() for mode in "BC"}
    assert moved["C"] < 0.2 * moved["B"]


def test_grey_images_meet_weights_of_color_images(here):
    color = ("data.channels=3", "data.mean=[0.1,0.2,0.3]", "data.std=[0.2,0.3,0.7]")
    assert run(*NET, *QUICK, *color, "data.limit=100", "trainer.epochs=1", "hydra.run.dir=colour") == 0
    tune("grey", "finetune=A", "trainer.epochs=1", "model.weights=colour")
    assert "summed over its input channels, for grey images" in said("grey")
    about = checkpoint.load(Path("grey/checkpoints/last"))["about"]
    assert (about["mean"], about["std"]) == (pytest.approx([0.2]), pytest.approx([0.4]))


def test_weights_of_the_same_classes_bring_their_head(here):
    words = (*NET, *QUICK, "data.limit=100", "trainer.epochs=1", "finetune=C", "model.weights=digits")
    assert run(*words, "hydra.run.dir=more") == 0
    assert "loaded 16/16" in said("more")
    assert run(*words, "hydra.run.dir=fresh", "model.new_head=true") == 0
    assert "new: head" in said("fresh")


@pytest.mark.slow
def test_a_resume_after_unfreezing_freezes_nothing_again_and_ends_with_the_same_bits(here, monkeypatch):
    """Killed before, after and between the openings of two groups, with everything on that keeps state."""
    words = [*NET, *QUICK, *PHOTOS, "model.weights=digits", "finetune=C", "finetune.unfreeze=[2,3]", "trainer.epochs=3"]
    words += ("augment=[hflip,mixup]", "trainer.ema=0.9", "trainer.accumulate=2", "data.batch_size=8")
    words += ("trainer.save_every=1",)
    assert run(*words, "hydra.run.dir=whole") == 0
    untouched = {name for name in weights("whole") if name.startswith("blocks.0")}
    assert untouched
    assert not untouched & changed("whole")
    epochs = Path("whole/metrics.csv").read_text().count("epoch")
    for epoch, step in ((0, 1), (1, 4), (2, 6)):
        folder = f"cut{epoch}"
        run_killed(
            monkeypatch,
            lambda now, at=(epoch, step): (now.epoch, now.step) >= at,
            *words,
            f"hydra.run.dir={folder}",
        )
        assert run("resume", folder) == 0
        assert changed(folder, "whole") == set()
        assert Path(folder, "metrics.csv").read_text().count("epoch") == epochs


def test_a_fine_tuned_run_is_used_without_the_weights_that_it_began_with(here, capsys):
    save_file(
        {name: value.contiguous() for name, value in weights("digits", "best").items()}, here / "start.safetensors"
    )
    words = ("finetune=A", "trainer.epochs=1", "model.weights=start.safetensors", "data.interpolation=bicubic")
    tune("a", *words, "data.crop=1.0")
    (here / "start.safetensors").unlink()
    assert run("eval", "a") == 0
    assert run("predict", "a", "images=photos/0") == 0
    assert run("resume", "a", "trainer.epochs=2") == 0
    assert changed("a") == set(HEAD)


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        (("finetune=A", "model.pretrained=false"), 2, "finetune.mode: must be none where no weights are loaded"),
        (("finetune=A", "model.weights=digits", "finetune.freeze=[blok1]"), 2, "finetune.freeze"),
        (("finetune=C", "model.weights=digits", "finetune.groups=[blok1]"), 2, "finetune.groups"),
        (("finetune=A", "model.weights=digits", "finetune.head=hat"), 2, "finetune.head"),
        (("finetune=A", "model.weights=digits", "augment=hflip", "finetune.cache_features=true"), 2, "augment.hflip"),
        (("finetune=B", "model.weights=digits", "finetune.lr_decay=0.5"), 2, "finetune.lr_decay: must be null"),
        (
            ("finetune=lpft", "model.weights=digits", "trainer.epochs=2"),
            2,
            "trainer.epochs: the head alone learns for finetune.head_epochs=2 of 2 epochs",
        ),
        (("model.weights=digits", "finetune.cache_features=true"), 2, "finetune.cache_features: must be auto or false"),
        (("finetune=A", "model.weights=other.safetensors"), 4, "other.safetensors"),
        (
            ("finetune=A", "model.weights=digits", "model.args.blocks=[8]", "model.args.hidden=[]"),
            4,
            "model.weights: digits (cnn) is of another network",
        ),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_no_folder(here, capsys, words, code, fault):
    save_file({"resnet.weight": torch.zeros(3)}, here / "other.safetensors")
    assert run(*NET, *QUICK, *PHOTOS, "hydra.run.dir=run", *words) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if "is there twice" not in line]
    assert len(lines) == 1
    assert fault in lines[0]
    assert not (here / "run").exists()


def test_recalibrated_statistics_are_those_of_the_training_images(here):
    tune("train", "finetune=B", "trainer.epochs=1", "augment=none")
    tune("measured", "finetune=B", "trainer.epochs=1", "augment=none", "finetune.norm=recalibrate")
    names = changed("measured", "train")
    assert names == {name for name in weights("train") if "running_" in name}


def test_lpft_trains_the_head_alone_at_first(here):
    tune("lpft", "finetune=lpft", "trainer.epochs=3", "trainer.max_steps=2")
    assert changed("lpft") == set(HEAD)


def test_what_the_command_line_says_wins_over_the_modes_recipe():
    words = (
        "finetune=B",
        "schedule=cosine",
        "augment=none",
        "optimizer=adamw",
        "data.batch_size=5",
        "trainer.epochs=7",
    )
    settings = compose_settings(["data=digits", *words])
    assert settings.schedule.name == "cosine"
    assert not settings.augment.pieces
    assert (settings.optimizer.name, settings.data.batch_size, settings.trainer.epochs) == ("adamw", 5, 7)
    assert settings.model.pretrained
