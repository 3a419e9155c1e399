"""`cnntrain.load`: a trained network that takes paths, Pillow images and arrays, and answers as `predict` does."""

import ast
import json
import random
import shutil
from pathlib import Path

import documents
import numpy as np
import pytest
import torch
from PIL import Image

import cnntrain
from cnntrain import cli
from cnntrain.errors import CheckpointError, ConfigError, DataError, UnsafeError
from cnntrain.storage import checkpoint


def photos():
    return sorted(str(file) for file in Path("new").rglob("*.*"))


def draw(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["run", "digits"])
def test_the_answers_are_those_of_predict_to_the_last_digit(among_runs, run):
    assert cli.main(["predict", run, "images=new", "top=2", "out=new.json"]) == 0
    rows = json.loads(Path("new.json").read_text())["predictions"]
    found = cnntrain.load(run)([row["file"] for row in rows], top=2)
    assert len(found) == 12
    for answer, row in zip(found, rows, strict=True):
        assert answer.file == row["file"]
        assert list(answer.classes) == [(one["class"], one["probability"]) for one in row["classes"]]


def test_a_path_an_image_and_an_array_are_the_same_picture_and_may_stand_in_one_list(among_runs):
    network = cnntrain.load("run")
    name = photos()[0]
    image = Image.open(name)
    array = np.asarray(image)
    every = network([name, Path(name), image, array, photos()[1]], top=None)
    assert [answer.file for answer in every] == [name, name, "", "", photos()[1]]
    assert len({answer.classes for answer in every[:4]}) == 1
    assert every[4].classes != every[0].classes
    alone = network(array)
    assert isinstance(alone, cnntrain.Prediction)
    assert dict(alone.classes) == pytest.approx(dict(every[0].classes), abs=1e-6)
    assert network([]) == []
    assert network((name,))[0].file == name


def test_an_answer_has_its_most_probable_class_and_none_below_the_threshold(among_runs):
    network = cnntrain.load("run")
    answer = network(photos()[0], top=None)
    assert [name for name, _ in answer.classes] != network.classes or answer.probability >= 1 / 3
    assert sorted(name for name, _ in answer.classes) == sorted(network.classes)
    assert sum(value for _, value in answer.classes) == pytest.approx(1)
    assert (answer.label, answer.probability) == answer.classes[0]
    above = network(photos()[0], top=1, threshold=answer.probability)
    below = network(photos()[0], top=1, threshold=1.0)
    assert (above.label, below.label, len(below.classes)) == (answer.label, None, 1)


def make_kinds(folder):
    """A file of each kind of pixels that there is."""
    rgb = Image.fromarray(draw(40, 60, 3))
    turned = rgb.getexif()
    turned[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=turned)
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("L").save(folder / "grey.jpg")
    rgb.convert("P").save(folder / "palette.gif")
    rgb.convert("1").save(folder / "bits.png")
    Image.fromarray(draw(40, 60, 4)).save(folder / "clear.png")
    Image.fromarray(draw(40, 60).astype(np.uint16) * 200).save(folder / "deep.png")
    Image.fromarray(draw(40, 60, 4)).convert("LA").save(folder / "clear_grey.png")


@pytest.mark.parametrize("run", ["run", "digits"])
def test_an_open_image_is_what_its_file_is_whatever_its_kind(among_runs, run):
    Path("kinds").mkdir()
    make_kinds(Path("kinds"))
    network = cnntrain.load(run)
    for file in sorted(Path("kinds").iterdir()):
        with Image.open(file) as image:
            assert torch.equal(network.prepare(image), network.prepare(file)), file


@pytest.mark.parametrize("run", ["run", "digits"])
def test_an_array_is_what_a_file_of_its_pixels_is(among_runs, run):
    network = cnntrain.load(run)
    for number, array in enumerate([draw(40, 60), draw(40, 60, 3), draw(40, 60, 4), draw(40, 60, 3)[:, ::-1]]):
        Image.fromarray(array).save(f"{number}.png")
        assert torch.equal(network.prepare(array), network.prepare(f"{number}.png"))
    assert torch.equal(network.prepare(draw(40, 60)), network.prepare(draw(40, 60)[:, :, None]))


def test_the_model_is_a_plain_module_whose_inputs_are_prepared(among_runs):
    network = cnntrain.load("run", device="cpu")
    assert isinstance(network.model, torch.nn.Module)
    assert not any(module.training for module in network.model.modules())
    with torch.no_grad():
        inputs = network.prepare(photos()[:3])
        values = network.model(inputs).softmax(1)
    assert (inputs.dtype, tuple(inputs.shape)) == (torch.float32, (3, 3, 32, 32))
    for row, answer in zip(values.tolist(), network(photos()[:3], top=None), strict=True):
        assert dict(answer.classes) == pytest.approx(dict(zip(network.classes, row, strict=True)), abs=1e-6)
    network.model.train()  # as a user may, to go on training it
    assert network(photos()[:3]) == network(photos()[:3])


def test_more_images_than_a_batch_are_answered_in_their_order(among_runs):
    network = cnntrain.load("run")
    names = photos() * 2
    assert len(names) > network._job.data.batch_size
    assert [answer.file for answer in network(names)] == names


def test_probabilities_are_those_of_the_temperature_that_was_fitted(among_runs, capsys):
    state = checkpoint.load(checkpoint.find(Path("run")))
    state["about"]["temperature"] = 2.0
    Path("cool").mkdir()
    checkpoint.save(Path("cool"), state, best=True)
    network = cnntrain.load("run", device="cpu")
    with torch.no_grad():
        values = (network.model(network.prepare(photos())) / 2).softmax(1)
    cool = cnntrain.load("cool")
    assert (network.temperature, cool.temperature) == (1.0, 2.0)
    found = cool(photos(), top=1)
    assert [answer.probability for answer in found] == pytest.approx(values.amax(1).tolist(), abs=1e-6)
    assert cli.main(["predict", "cool", "images=new", "out=new.json"]) == 0
    assert "  temperature  2, fitted to the validation images" in capsys.readouterr().out
    assert json.loads(Path("new.json").read_text())["temperature"] == 2
    rows = json.loads(Path("new.json").read_text())["predictions"]
    assert [answer.probability for answer in found] == [row["classes"][0]["probability"] for row in rows]


def test_a_program_keeps_its_random_numbers_threads_and_limits(among_runs, monkeypatch):
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3)
    random.seed(3)
    threads = torch.get_num_threads()
    cnntrain.load("run", "trainer.threads=3", "trainer.deterministic=true")
    assert (torch.rand(1), random.random()) == expected
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert Image.MAX_IMAGE_PIXELS


def test_the_programs_of_the_page_run_as_they_stand(among_runs, capsys):
    shutil.copytree("run", "RUN_DIR")
    Path("photos").mkdir()
    for name in ("cat.jpg", "dog.jpg", "photos/a.jpg"):
        Image.fromarray(draw(40, 60, 3)).save(name)
    page = (documents.ROOT / "docs/python.md").read_text(encoding="utf-8")
    programs = [block for kind, block in documents.FENCED.findall(page) if kind == "python"]
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "docs/python.md", "exec"), {})
    assert "torch.Size([2, 3]) ['blue', 'green', 'red']" in capsys.readouterr().out


# --- faults -----------------------------------------------------------------------------------------------------------

WHAT = "must be a path, a Pillow image, a uint8 array (H, W) or (H, W, C), or a list of these"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, f"images[0]: {WHAT} (given int)"),
        (b"cat.jpg", f"images[0]: {WHAT} (given bytes)"),
        ([draw(8, 8), None], f"images[1]: {WHAT} (given NoneType)"),
        (torch.zeros(3, 8, 8), f"images[0]: {WHAT} (given torch.Tensor (3, 8, 8))"),
        (draw(8, 8, 3) / 255, f"images[0]: {WHAT}, with 1, 3 or 4 channels (given float64 array (8, 8, 3))"),
        (draw(3, 8, 8), f"images[0]: {WHAT}, with 1, 3 or 4 channels (given uint8 array (3, 8, 8))"),
        (draw(2, 8, 8, 3), f"images[0]: {WHAT}, with 1, 3 or 4 channels (given uint8 array (2, 8, 8, 3))"),
        (draw(0, 8, 3), "images[0]: uint8 array (0, 8, 3) holds no pixels"),
        ("none.jpg", "none.jpg: cannot be read (No such file or directory)"),
        ("new", "new: cannot be read"),
        (["run/config.yaml"], "run/config.yaml: not an image of a known kind"),
        ("a\0b.png", "a\\x00b.png: cannot be read (embedded null byte)"),
        (Image.new("RGB", (0, 4)), "images[0]: no pixels (0 x 4)"),
        (Image.new("F", (4, 4)), "images[0]: floating-point pixels have no fixed range"),
    ],
)
def test_what_is_no_image_is_one_line_that_names_its_type(among_runs, given, told):
    with pytest.raises(DataError) as fault:
        cnntrain.load("run")(given)
    assert str(fault.value).startswith(told)
    assert "\n" not in str(fault.value)


def test_wrong_arguments_are_faults_of_the_command_line_too(among_runs):
    network = cnntrain.load("run")
    for words, told in (
        ({"top": 0}, r"^top: must be a whole number >= 1, or None for all classes \(given 0\)"),
        ({"top": True}, r"^top: must be a whole number >= 1, or None for all classes \(given True\)"),
        ({"threshold": 1.5}, r"^threshold: must be a number >= 0 and <= 1 \(given 1.5\)"),
        ({"threshold": "high"}, r"^threshold: must be a number >= 0 and <= 1 \(given 'high'\)"),
    ):
        with pytest.raises(ConfigError, match=told):
            network(photos()[0], **words)
    with pytest.raises(DataError, match=r"^images: must be one or more"):
        network.prepare([])
    for words, told in (
        ({"device": "gpu"}, r"^trainer.device: "),
        ({"device": "cuda:99"}, r"^trainer.device: "),
    ):
        with pytest.raises(ConfigError, match=told):
            cnntrain.load("run", **words)
    with pytest.raises(ConfigError, match=r"^data.image_sise: no such key"):
        cnntrain.load("run", "data.image_sise=3")
    with pytest.raises(ConfigError, match=r"^optimizer.lr: load trains nothing \(given 3.0\); leave it out"):
        cnntrain.load("run", "optimizer.lr=3")


def test_what_is_no_run_of_ours_is_a_fault_of_the_checkpoint(among_runs):
    for name in ("nowhere", "new"):
        with pytest.raises(CheckpointError):
            cnntrain.load(name)
    torch.save({"weights": torch.zeros(3)}, "other.pt")
    with pytest.raises(CheckpointError):
        cnntrain.load("other.pt")


def test_code_of_a_stranger_is_run_only_where_its_name_is_repeated(among_runs, monkeypatch):
    state = checkpoint.load(Path("digits/checkpoints/best"))
    state["about"]["config"]["model"] |= {"name": "theirs_of_load:build", "args": {}}
    Path("theirs").mkdir()
    checkpoint.save(Path("theirs"), state, best=True)
    Path("theirs_of_load.py").write_text(
        "from cnntrain.models.zoo.lenet import lenet5\n"
        "from cnntrain.config.schema.network_args import LenetArgs\n"
        "def build(num_classes, in_channels, image_size):\n"
        "    return lenet5(LenetArgs(), classes=num_classes, channels=in_channels, image_size=image_size)\n"
    )
    with pytest.raises(UnsafeError, match=r"repeat model\.name=theirs_of_load:build"):
        cnntrain.load("theirs")
    network = cnntrain.load("theirs", "model.name=theirs_of_load:build")
    assert len(network.classes) == 10


# --- the package ------------------------------------------------------------------------------------------------------


def test_the_package_offers_what_its_stub_says():
    stub = ast.parse(Path(cnntrain.__file__).with_suffix(".pyi").read_text())
    lines = [node for node in ast.walk(stub) if isinstance(node, ast.ImportFrom)]
    names = {alias.name: str(node.module) for node in lines for alias in node.names}
    assert names == vars(cnntrain)["_HOMES"]
    assert sorted(names) == vars(cnntrain)["__all__"]
    assert set(names) < set(dir(cnntrain))
    for name, home in names.items():
        assert getattr(cnntrain, name).__module__ == home
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        getattr(cnntrain, "lod")  # noqa: B009
    assert repr(cnntrain.load).startswith("<function load")
