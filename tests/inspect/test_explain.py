"""`cnntrain explain`: its words, its sheets and its folder, and whole calls."""

import contextlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cnntrain import cli
from cnntrain.cli.arguments import read_arguments
from cnntrain.commands import explain as command
from cnntrain.config.schema.run_commands import PARTS, EvalArgs, ExplainArgs
from cnntrain.data.view import View
from cnntrain.errors import ConfigError, DataError, FileSystemError
from cnntrain.inspect.explain.gallery import Gallery
from cnntrain.inspect.explain.subject import at_rest, read_files, spread
from cnntrain.plots.drawing import fit, readable, wrap
from cnntrain.plots.sheet import Row, Sheet, Tile
from cnntrain.storage.plain import fingerprint
from cnntrain.training import load_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")


# ---- words ----


def read(*words, run="run"):
    return read_arguments(ExplainArgs, [run, *words])


def test_words_of_explain_are_parted_from_the_overrides(tmp_path):
    args = read("data.root=x", "what=gradcam,filters", "layers=[layer1.*,last]", "images=3", "filters=5")
    assert args.words == ("data.root=x",)
    assert (args.what, args.layers, args.images, args.filters) == (("filters", "gradcam"), ("layer1.*", "last"), 3, 5)
    assert read() == ExplainArgs(line=("explain",), run=Path("run"))
    assert read().what == tuple(PARTS)


def test_image_files_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b,c.jpg", "7"):
        Path(name).touch()
    assert read("images=b,c.jpg").images == (Path("b,c.jpg"),)
    assert read("images=['a.jpg', \"7\"]").images == (Path("a.jpg"), Path("7"))


def test_all_faults_of_the_words_are_told_at_once():
    with pytest.raises(ConfigError) as found:
        read("what=gradcm", "layers=", "images=no.jpg", "filters=0")
    lines = str(found.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["what", "layers", "images", "filters"]
    assert "did you mean gradcam?" in lines[0]
    for word in (
        "images=0",
        "images=33",
        "images=-2",
        "images=",
        "images=~no-such-user/a.jpg",
        "what=",
        "filters=x",
        "out=",
    ):
        with pytest.raises(ConfigError, match=word.partition("=")[0]):
            read(word)


# ---- images, rest, drawing ----


def test_images_are_spread_over_the_classes():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 3])
    assert spread(labels, 4).tolist() == [0, 4, 6, 9]
    assert spread(labels, 6).tolist() == [0, 1, 4, 5, 6, 9]
    assert spread(labels, 2).tolist() == [0, 6]
    assert spread(labels, 10).tolist() == list(range(10))


def test_files_are_prepared_as_the_data_are(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    photo = read_files((tmp_path / "a.png",), 3, View(35))
    assert (photo[0].permute(1, 2, 0).numpy() == image[2:37, 12:47]).all()
    digit = read_files((tmp_path / "a.png",), 1, View(40, share=1.0))
    assert digit.shape == (1, 1, 40, 40)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png: not an image"):
        read_files((tmp_path / "bad.png",), 1, View(40))


def test_at_rest_everything_is_as_before_though_the_block_fails():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(1)))
    model[1].eval()
    streams = torch.get_rng_state(), random.getstate()
    torch.use_deterministic_algorithms(True)
    try:
        with contextlib.suppress(ZeroDivisionError), at_rest(model, torch.device("cpu")):
            assert not any(module.training for module in model.modules())
            torch.rand(3), random.random(), 1 / 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert [module.training for module in model.modules()] == [True, True, False, False]
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]


def test_captions_are_one_line_whatever_the_name():
    assert readable("a\nb", 12)[0] == r"a\nb"
    for name in ("Käse", "кот", "猫", "\udcff", "😀", ""):
        text, font = readable(name, 12)
        assert "\n" not in text
        assert font.getlength(text) >= 0
    assert readable("猫", 12)[0] != readable("犬", 12)[0]
    assert fit("a very long caption", 60, 12).endswith("...")
    assert " ".join(wrap("one two three four", 50, 12)) == "one two three four"
    assert max(readable(line, 12)[1].getlength(line) for line in wrap("one two three four", 50, 12)) <= 50


def test_a_sheet_has_room_for_tiles_of_every_shape():
    tiles = [Tile(np.zeros(shape, dtype=np.uint8), ("one", "two")) for shape in ((4, 4, 3), (3, 9, 3), (200, 100, 3))]
    narrow = Sheet("title", ["note"], "footer", [Row((), tiles[:1])], 40).draw()
    tall = Sheet("title", ["note"], "footer", [Row(("a",), tiles), Row(("b",), tiles)], 40, [("head",)] * 3).draw()
    assert tall.height > narrow.height + 40
    assert (np.asarray(narrow) == 0).all(2).sum() >= 1600  # the black tile is whole


def test_a_gallery_replaces_its_files_and_shows_all_of_them(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "explain"
    red, blue = (Image.new("RGB", (4, 4), name) for name in ("red", "blue"))
    first = Gallery(folder, 5)
    path = first.add("features-a/b c", red)
    first.add("gradcam", red)
    first.show()
    assert path == folder / "features-a_b_c.png"
    blue.save(folder / "not_ours.png")
    (folder / "broken.png").write_bytes(path.read_bytes()[:-20])
    second = Gallery(folder, 9)
    assert second.add("gradcam", blue) == folder / "gradcam.png"
    second.show()
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]} == {
        "explain/features-a_b_c": [5],
        "explain/gradcam": [9],
    }
    assert np.asarray(Image.open(folder / "gradcam.png"))[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(FileSystemError, match="out=DIR"):
        Gallery(folder / "gradcam.png", 1)


def test_a_gallery_does_not_settle_among_the_event_files_of_a_run(tmp_path):
    events = tmp_path / "events.out.tfevents.1795313899.host.10434.0"
    events.touch()
    with pytest.raises(ConfigError, match="holds TensorBoard files of something else; write out=DIR"):
        Gallery(tmp_path, 1)
    assert events.exists()


# ---- whole calls ----


def train(*words: str) -> None:
    quick = ["trainer.epochs=1", "data.batch_size=64", "trainer.threads=1", "trainer.tensorboard=false"]
    assert cli.main([*quick, *words]) == 0


def test_explain_draws_everything_and_leaves_the_network_alone(here, monkeypatch, capsys):
    train("model=lenet5", "data.limit=200", "hydra.run.dir=run")
    loaded = []
    load_job = load_run.load_job

    def load(*args, **words):
        folder, state, job = load_job(*args, **words)
        job.model.train()
        loaded.append((job.model, fingerprint(job.model.state_dict()), torch.get_rng_state()))
        return folder, state, job

    monkeypatch.setattr(command, "load_job", load)
    results = command.run(read("images=3", "filters=4", run="run"))
    names = sorted(path.name for path in (here / "run" / "explain").iterdir())
    layers = [name.removeprefix("features-") for name in names if name.startswith("features-")]
    assert names == sorted(
        ["filters.png", "gradcam.png", "shift.csv", "shift.png", "shift.svg"]
        + [f"{part}-{layer}" for part in ("features", "excite") for layer in layers]
    )
    assert len(layers) == 2
    assert results["pictures"][0] == "run/explain/filters.png"
    assert [row["pixels"] for row in results["shift"]] == [0, 1, 2, 3, 4]
    assert results["split"] == "test"
    assert results["left_out"] == {}
    lines = capsys.readouterr().out.splitlines()
    assert "run/explain/gradcam.png" in lines
    assert max(map(len, lines[-15:])) <= 80

    model, weights, stream = loaded[0]
    assert all(module.training for module in model.modules())
    assert fingerprint(model.state_dict()) == weights
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_scores_of_shift_zero_are_those_of_eval_and_out_takes_the_pictures(here):
    from cnntrain.commands import eval as evaluation

    train("model=lenet5", "data.limit=200", "hydra.run.dir=run")
    for words, message in ((["layers=con1"], "layers: no layer con1"), (["what=shift", "data.valu=3"], "data.valu")):
        with pytest.raises(ConfigError, match=message):
            command.run(read(*words))
    scores = evaluation.run(read_arguments(EvalArgs, ["run"]))["test"]
    rows = command.run(read("what=shift", "out=pictures", run="run"))["shift"]
    assert rows[0]["top1"] == pytest.approx(scores["top1"])
    assert sorted(path.name for path in (here / "pictures").iterdir()) == ["shift.csv", "shift.png", "shift.svg"]
    assert not (here / "run" / "explain").exists()


def test_a_network_without_maps_costs_a_line_and_the_rest_is_drawn(here, capsys):
    train("model=mlp", "data.limit=200", "hydra.run.dir=run")
    results = command.run(read("images=2", run="run/checkpoints/last"))
    assert set(results["left_out"]) == {"features", "excite", "gradcam"}
    assert [Path(path).name for path in results["pictures"]] == ["filters.png", "shift.png"]
    said = capsys.readouterr().out.splitlines()
    assert said.count("features, excite, gradcam: left out, no convolution gives a feature map") == 1
    assert json.dumps(results)


def test_photos_with_odd_class_names_and_files_of_the_users(here):
    draw = np.random.default_rng(0)
    for name in ("a\nb", "猫 & Käse" * 3):
        (here / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "photos" / name / f"{number}.png")
    words = ["model=cnn3", "data=imagefolder", "data.root=photos", "data.image_size=16", "data.val=4"]
    train(*words, "trainer.tensorboard=true", "hydra.run.dir=run")
    results = command.run(read("what=features,gradcam,excite", "layers=last", "data.loader=stream", run="run"))
    assert results["split"] == "validation"
    assert len(results["pictures"]) == 3
    assert len(list((here / "run" / "explain").glob("events.out.tfevents.*"))) == 1
    file = next((here / "photos").rglob("*.png"))
    results = command.run(read("what=gradcam", f"images=[{file}]", run="run"))
    assert len(results["pictures"]) == 1
