"""`cnntrain export`: whole calls on small runs, what the files answer, and the lines printed."""

import itertools
import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from predicted import make_photos, stored
from safetensors.torch import load_file

from cnntrain import cli
from cnntrain.commands import export
from cnntrain.config.schema.data import CropMode, Interpolation
from cnntrain.config.schema.export import Format
from cnntrain.data.common import Data
from cnntrain.data.decode import read_image
from cnntrain.export import parity, usage
from cnntrain.export.subject import ExportedFile
from cnntrain.report.run_report import Report
from cnntrain.storage import checkpoint
from cnntrain.training.load_run import load_job

CLASSES = ["blue", "green", "red"]
ALONE = (  # a program in a process where there is neither cnntrain nor torch
    "import sys, runpy; sys.modules.update(cnntrain=None, torch=None); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
FLOW = """
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.layer = nn.Linear(in_channels * image_size**2, num_classes)

class Branch(Base):
    def forward(self, x):
        x = x.flatten(1)
        if x.mean() > 0:
            x = 2 * x
        return self.layer(x)

class Fixed(Base):
    def forward(self, x):
        return self.layer(x.reshape(2, -1) if len(x) == 2 else x.reshape(len(x), -1))

class Bessel(Base):
    def forward(self, x):
        return self.layer(torch.special.i1(x.flatten(1)))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on photos with averaged weights."""
    home = tmp_path_factory.mktemp("trained")
    make_photos(home / "photos")
    words = [f"data.root={home / 'photos'}", "data.image_size=32", "model=cnn", "data.batch_size=10", "seed=1"]
    words += [
        "trainer.device=cpu",
        "trainer.threads=1",
        "trainer.epochs=2",
        "trainer.tensorboard=false",
        "trainer.probe=0",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        assert cli.main(["data=imagefolder", *words, "trainer.ema=0.5", f"out={home / 'run'}"]) == 0
    return home


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A current folder with a copy of the run, and new photos."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "photos/test", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return cli.main(["export", *map(str, words)])


def change(folder, **about):
    """The checkpoint of the run, saying something else of itself."""
    state = checkpoint.load(Path("run/checkpoints/best"))
    state["about"] |= about
    Path(folder).mkdir()
    checkpoint.save(Path(folder), state)


# --- the program -----------------------------------------------------------------------------------------------------


def draw_odd_pictures(folder):
    """Pictures of many kinds, each of which goes another way to its pixels."""
    draw = np.random.default_rng(0)

    def pixels(*shape):
        return draw.integers(0, 256, shape, dtype=np.uint8)

    folder.mkdir()
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(pixels(90, 61, 3)).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(pixels(40, 300, 3)).save(folder / "strip.jpg")
    Image.fromarray(pixels(50, 50)).save(folder / "gray.jpg")
    Image.fromarray(pixels(33, 20, 4), "RGBA").save(folder / "clear.png")
    Image.fromarray(pixels(33, 33).astype(np.uint16) * 200).save(folder / "deep.png")
    Image.fromarray(pixels(24, 24, 3)).quantize(16).save(folder / "palette.gif")
    Image.fromarray(pixels(80, 45, 4), "CMYK").save(folder / "inks.jpg")


def told(text):
    """File -> class -> percent, of what the program prints."""
    found, file = {}, ""
    for line in text.splitlines():
        if line.startswith(" "):
            share, name = line.split()
            found[file][name] = float(share.removesuffix("%"))
        else:
            file = line
            found[file] = {}
    return found


@pytest.mark.filterwarnings("ignore:.*mode.*parameter is deprecated:DeprecationWarning")
def test_the_program_beside_the_file_answers_as_predict_does_without_cnntrain_and_torch(here, capfd):
    draw_odd_pictures(here / "odd")
    assert cli.main(["predict", "run", "images=[new,odd]", "out=told.csv"]) == 0
    expected = {file: {name: 100 * share for name, share in best} for file, best in stored("told.csv").items()}
    capfd.readouterr()
    for words in (["out=plain.onnx"], ["out=whole.onnx", "preprocessing=true"]):
        assert run("run", *words) == 0
        out, err = capfd.readouterr()
        assert f"next  python {words[0][4:-5]}.py cat.jpg" in out
        assert max(map(len, out.splitlines())) <= 80
        assert err == ""  # the exporters' own words
        command = [sys.executable, "-c", ALONE, f"{words[0][4:-5]}.py", *expected]
        found = told(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for file, shares in expected.items():
            assert found[file] == pytest.approx(shares, abs=2e-4)
            assert next(iter(found[file])) == next(iter(shares))
    check_answers(onnx_file("plain.onnx"), onnx_file("whole.onnx"))
    content = Path("plain.onnx").read_bytes()
    assert str(Path(torch.__file__).parents[1]).encode() not in content  # what stack traces would tell of this machine


@pytest.mark.slow
def test_the_service_of_the_page_answers_as_predict_does_without_cnntrain_and_torch(here):
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(# service\.py\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found
    service = found[1]
    assert sum(map(bool, service.splitlines())) == 1 + 10  # its name, and ten lines
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("service.py").write_text(service.replace("8000", str(port)))
    assert run("run", "preprocessing=true", "out=model.onnx") == 0
    assert cli.main(["predict", "run", "images=new", "out=told.csv"]) == 0
    server = subprocess.Popen([sys.executable, "-c", ALONE, "service.py"], stderr=subprocess.DEVNULL)
    try:
        for file, best in stored("told.csv").items():
            answer = json.loads(post(f"http://127.0.0.1:{port}", Path(file).read_bytes()))
            assert dict(answer) == pytest.approx(dict(best), abs=2e-6)
            assert answer[0][0] == best[0][0]
        with pytest.raises(urllib.error.HTTPError, match="400: no picture"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}", b"no picture")
    finally:
        server.kill()
        server.wait()


def post(url, content, patience=20):
    """What a service answers, which may need time to begin."""
    for _ in range(10 * patience):
        try:
            with urllib.request.urlopen(url, content) as answer:
                return answer.read()
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("no answer")


def test_the_program_names_each_file_that_is_no_picture_and_tells_the_others(here):
    assert run("run", "out=model.onnx") == 0
    Path("notes.txt").write_text("no picture")
    command = [sys.executable, "-c", ALONE, "model.py"]
    found = subprocess.run([*command, "nosuch.jpg", "notes.txt", "new/red/0.png"], capture_output=True, text=True)
    assert found.returncode == 1
    assert list(told(found.stdout)) == ["new/red/0.png"]
    first, second = found.stderr.splitlines()
    assert first == "nosuch.jpg: No such file or directory"
    assert second.startswith("notes.txt: cannot identify image file")
    found = subprocess.run(command, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (2, "", "usage: python model.py PICTURE...\n")


def test_the_temperature_of_the_checkpoint_is_in_what_tells_probabilities(here):
    change("warm", temperature=1.7)
    _, _, job = load_job(Path("warm"), [], Report(None, tensorboard=False))
    images = job.data.test.pick(torch.arange(5))
    expected = (job.scorer().logits(images) / 1.7).softmax(1)
    pixels = images.permute(0, 2, 3, 1).contiguous()
    for words in (["out=plain.pt2"], ["out=whole.pt2", "preprocessing=true"]):
        assert run("warm", "format=torch_export", *words) == 0
        answer = runpy.run_path(f"{words[0][4:-4]}.py")["probabilities"](pixels.numpy())
        assert np.allclose(answer, expected, atol=1e-5)
    assert json.loads(torch_export_file("plain.pt2")[0]["temperature"]) == 1.7


@pytest.mark.filterwarnings("ignore:.*mode.*parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_program_sees_each_pixel_as_predict_does(here, mode):
    draw_odd_pictures(here / "odd")
    for size, crop, kind, channels in itertools.product((24, 71), (0.875, 1.0, 1.25), Interpolation, (1, 3)):
        data = Data(
            name="",
            classes=[],
            channels=channels,
            image_size=size,
            eval_size=size,
            interpolation=kind,
            crop=crop,
            crop_mode=CropMode[mode],
            batch_size=1,
            mean=[0.1, 0.5, 0.9][:channels],
            std=[1.0],
            fingerprint="",
            notes=[],
        )
        space = {}
        exec("import numpy as np\nfrom PIL import Image, ImageOps\n" + usage.reading(data), space)
        for file in Path("odd").iterdir():
            expected = data.view(size)(read_image(file, channels)).numpy()
            assert np.array_equal(space["read"](file), expected), (file, size, crop, kind, channels)


def test_a_program_of_the_users_or_of_another_file_is_not_written_over(here, capsys):
    Path("net.py").write_text("# my network\n")
    assert run("run", "out=net.onnx") == 6
    assert "net.py: is there, and not what cnntrain writes beside net.onnx" in capsys.readouterr().err
    assert Path("net.py").read_text() == "# my network\n"
    assert not Path("net.onnx").exists()


# --- the files -------------------------------------------------------------------------------------------------------


def onnx_file(path):
    session = onnxruntime.InferenceSession(path)
    facts = session.get_modelmeta().custom_metadata_map
    return facts, lambda inputs: session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]


def torch_export_file(path):
    facts = dict.fromkeys(("classes", "preprocessing", "temperature"), "")
    module = torch.export.load(path, extra_files=facts).module()
    return facts, lambda inputs: module(inputs).detach().numpy()


def torchscript_file(path):
    facts = dict.fromkeys(("classes", "preprocessing", "temperature"), "")
    module = torch.jit.load(path, _extra_files=facts)
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in facts.items()}, (
        lambda inputs: module(inputs).detach().numpy()
    )


def check_answers(plain, whole):
    """Both files answer as the averaged network of the run, for any number of images, and hold its facts."""
    (facts, ask), (whole_facts, ask_whole) = plain, whole
    _, state, job = load_job(Path("run"), [], Report(None, tensorboard=False))
    assert any(not torch.equal(state["model"][key], value) for key, value in state["ema"]["model"].items())
    images = job.data.test.pick(torch.arange(7))
    assert json.loads(facts["classes"]) == json.loads(whole_facts["classes"]) == CLASSES
    preprocessing = json.loads(facts["preprocessing"])
    assert (preprocessing["image_size"], preprocessing["crop"]) == (32, job.data.crop)
    assert preprocessing["mean"] == job.data.mean
    assert json.loads(whole_facts["preprocessing"]) == preprocessing | {"in_graph": True}
    for count in (1, 7):
        inputs = job.normalize(images[:count]).contiguous()
        logits = job.model.eval()(inputs).detach()
        assert np.allclose(ask(inputs), logits, rtol=1e-4, atol=1e-5)
        answer = ask_whole(images[:count].permute(0, 2, 3, 1).contiguous())
        assert np.allclose(answer, logits.softmax(1), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated")
@pytest.mark.parametrize(
    ("name", "ending", "read"), [("torch_export", ".pt2", torch_export_file), ("torchscript", ".pt", torchscript_file)]
)
def test_a_file_answers_as_the_averaged_network_for_any_number_of_images(here, name, ending, read):
    assert run("run", f"format={name}") == run("run", f"format={name}", "preprocessing=true", f"out=whole{ending}") == 0
    check_answers(read(f"run/export/{name}/model{ending}"), read(f"whole{ending}"))
    if name == "torchscript":  # whose deprecation is no news
        found = subprocess.run([sys.executable, "whole.py", "new/red/0.png"], capture_output=True, text=True)
        assert (found.returncode, found.stderr) == (0, "")
    one, other = (runpy.run_path(program)["classify"]("new/red/0.png") for program in ("whole.py", model_py(name)))
    assert dict(one) == pytest.approx(dict(other), abs=1e-5)
    assert sum(dict(one).values()) == pytest.approx(1, abs=1e-5)


def model_py(name):
    return f"run/export/{name}/model.py"


def fake_onnx(monkeypatch, factor=1.0):
    """In place of the exporter, which takes its time: what answers as the network does, times a factor."""

    def make(subject):
        return ExportedFile(b"onnx", lambda inputs: subject.network(inputs) * factor, "a fake")

    monkeypatch.setitem(export.MAKERS, Format.onnx, make)


def test_a_file_that_answers_otherwise_is_not_written(here, capsys, monkeypatch):
    fake_onnx(monkeypatch, 1.001)
    assert run("run", "out=a.onnx") == 2
    told = "onnx answers otherwise than the network (difference 1.0e-03 over 16 images, 1e-04 are allowed)"
    assert told in capsys.readouterr().err
    fake_onnx(monkeypatch, float("nan"))
    assert run("run") == 2
    assert sorted(path.name for path in here.iterdir()) == ["new", "run"]
    assert not Path("run/export").exists()


def test_without_the_images_of_the_run_random_ones_prove_the_file(here, trained, capsys, monkeypatch):
    fake_onnx(monkeypatch)
    (trained / "photos").rename(trained / "elsewhere")
    try:
        assert run("run", "out=a.onnx") == 0
        told = capsys.readouterr().out
        assert "random images stand in for those of the run (data.root: " in told
        assert f"{parity.MOST_IMAGES} random images" in told
        assert run("run", "out=b.onnx", f"data.root={trained / 'photos'}") == 3  # which was asked for
        assert run("run", "out=b.onnx", "int8=true") == 3
    finally:
        (trained / "elsewhere").rename(trained / "photos")
    assert not Path("b.onnx").exists()


def test_weights_of_a_network_of_ours_are_stored_too(here, capsys):
    assert run("run", "format=safetensors", "out=a.safetensors") == 0
    assert "network = build_own(" in capsys.readouterr().out
    _, state, job = load_job(Path("run"), [], Report(None, tensorboard=False))
    found = load_file("a.safetensors")
    assert found.keys() == state["model"].keys()
    assert all(torch.equal(value, state["ema"]["model"][key]) for key, value in found.items())
    assert cli.main(["eval", "run"]) == 0  # and no module of the run is disturbed
    words = ["data=imagefolder", f"data.root={job.settings.data.root}", "model=cnn", "data.image_size=32"]
    assert cli.main([*words, "model.weights=a.safetensors", "trainer.max_steps=1", "out=further"]) == 0


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["format=coreml"], 2, "format: must be one of onnx, torch_export, safetensors, torchscript (given coreml)"),
        (["out=a.pt2"], 2, "out: must end in .onnx for format=onnx (given a.pt2); write out=FILE.onnx, or format=tor"),
        (["out=a.txt"], 2, "out: must end in .onnx, .pt2, .safetensors or .pt (given a.txt)"),
        (["out=.onnx"], 2, "out: must have a name before its end (given .onnx); write out=FILE.onnx"),
        (["out="], 2, "out: must be the name of a file"),
        (["out=none/a.onnx"], 6, "out: none is no folder; make it first"),
        (["int8=true", "format=torchscript"], 2, "int8: is for format=onnx (given format=torchscript); leave it out"),
        (["latency=true", "format=safetensors"], 2, "latency: weights alone compute nothing"),
        (["preprocessing=true", "format=safetensors"], 2, "preprocessing: weights alone compute nothing"),
        (["trainer.lr=1"], 2, "trainer.lr: no such key"),
        (["trainer.ema=0.9"], 2, "trainer.ema: export trains nothing"),
        (["trainer.precision=bf16"], 2, "trainer.precision: what leaves is in fp32"),
        (["data.root=gone"], 3, "gone"),
    ],
)
def test_a_mistake_is_told_in_one_line(here, capsys, words, code, line):
    assert run("run", *words) == code
    err = capsys.readouterr().err
    assert err.startswith("cnntrain: error: ")
    assert line in err
    assert err.count("\n") == 1


def test_what_is_no_run_is_refused(here, capsys):
    Path("empty").mkdir()
    torch.save({"model": {}}, "theirs.pt")
    assert run("empty") == run("theirs.pt") == 4
    assert run("gone") == 4
    assert capsys.readouterr().err.count("\n") == 3


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_its_packages_onnx_is_refused_before_anything_is_loaded(here, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("cnntrain.cli.dispatch._load", lambda command: pytest.fail("loaded"))
    assert run("run") == 2
    told = f"format: onnx needs {package}, not installed here; pip install 'cnntrain[export]'"
    assert capsys.readouterr().err == f"cnntrain: error: {told}\n"


@pytest.mark.slow
def test_a_network_that_no_graph_holds_is_told_with_its_line(here, capsys, monkeypatch):
    Path("flow.py").write_text(FLOW)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["data=digits", "data.limit=64", "trainer.max_steps=1", "trainer.tensorboard=false", "model=own"]
    assert cli.main([*words, "model.name=flow:Branch", "out=branch"]) == 0
    capsys.readouterr()
    assert run("branch", "out=a.onnx") == 8
    assert "repeat model.name=flow:Branch on the command line" in capsys.readouterr().err
    for words in (["out=a.onnx"], ["out=a.pt", "format=torchscript"], ["out=a.pt2", "format=torch_export"]):
        assert run("branch", "model.name=flow:Branch", *words) == 2
        out, err = capsys.readouterr()
        assert "this network chooses its way by the values of its input, in flow.py:13; take torch.where" in err
        assert (out.count("\n"), err.count("\n")) == (1, 1)
    faults = {
        "Fixed": "this network does not take any number of images alike; let it read the number",
        "Bessel": "onnx cannot hold this network (it has no operator for torch.ops.prims.bessel_i1.default)",
    }
    state = checkpoint.load(Path("branch/checkpoints/last"))
    for name, line in faults.items():
        state["about"]["config"]["model"]["name"] = f"flow:{name}"
        Path(name).mkdir()
        checkpoint.save(Path(name), state)
        assert run(name, f"model.name=flow:{name}", "out=a.onnx") == 2
        out, err = capsys.readouterr()
        assert line in err
        assert (out.count("\n"), err.count("\n")) == (1, 1)
    assert not list(Path().glob("a.*"))
