"""A thing that a config names is one entry of a registry, or a function of the user's, and none is followed unasked."""

import contextlib
import io
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from cnntrain import cli
from cnntrain.config.messages import REGISTRIES
from cnntrain.config.schema.arguments import argument
from cnntrain.config.schema.data import DATASETS, DataEntry, DataSettings
from cnntrain.config.schema.loss import LOSSES, LossEntry, LossSettings
from cnntrain.config.schema.networks import NETWORKS, NetworkEntry
from cnntrain.config.schema.optimizer import OPTIMIZERS, OptimizerEntry, OptimizerSettings
from cnntrain.config.schema.schedule import SCHEDULES, ScheduleSettings
from cnntrain.data.datasets import TensorSet
from cnntrain.optim.schedules import Place
from cnntrain.registry import Entry, Registry
from cnntrain.training.losses import Loss, LossFacts

SHORT = ["trainer.max_steps=3", "trainer.tensorboard=false", "trainer.threads=1", "data.batch_size=20"]
SOURCE = """
import torch
from torch import nn
from torch.nn import functional

def net(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

class Squares:
    classes = ["dark", "light"]

    def __init__(self, root, train, size=60):
        draw = torch.Generator().manual_seed(int(train))
        self.labels = torch.arange(size) % 2
        noise = torch.randint(0, 60, (size, 1, 8, 8), generator=draw)
        self.images = (noise + 150 * self.labels.view(-1, 1, 1, 1)).to(torch.uint8)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])

def noise(images, generator):
    return images ^ 1

class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - group["beta"])
                parameter.sub_(mean.sign(), alpha=group["lr"])

def half(step, total, end=0.5):
    return 1 - (1 - end) * step / total

def focal(logits, targets, gamma=2.0):
    entropy = functional.cross_entropy(logits, targets, reduction="none")
    return (1 - (-entropy).exp()) ** gamma * entropy

class Mean(nn.Module):
    def forward(self, logits, targets):
        return functional.cross_entropy(logits, targets)

def number(*given, **more):
    return 7

def negative(step, total):
    return -1

def of_classes(logits, targets):
    return logits.sum(0)

def forgetful(params, lr):
    return torch.optim.SGD(params[:1], lr=lr)

def floats(root):
    return torch.rand(8, 1, 8, 8), torch.arange(8) % 2

class Many(Squares):
    def __init__(self, root, train, how):
        super().__init__(root, train)
        self.how = how
        self.classes = {"twins": ["a", "a"], "number": 5}.get(how)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        if self.how == "breaks":
            raise IndexError("no such image")
        if self.how == "leaves":
            raise SystemExit(0)
        labels = {"halves": label + 0.5, "words": "dark", "pairs": [label, label], "far": 10**9}
        return image, labels.get(self.how, label)

def leave(logits, targets):
    raise SystemExit(0)

def detached(logits, targets):
    return logits.detach().sum(1)

class Late(torch.optim.SGD):
    def step(self):
        raise RuntimeError("too late")
"""
DOTTED = {
    "model.name": "mine:net",
    "data.name": "mine:Squares",
    "augment.own.name": "mine:noise",
    "optimizer.name": "mine:Signs",
    "schedule.name": "mine:half",
    "loss.name": "mine:focal",
}
CHOICES = ["model=own", "data=own", "augment=own", "optimizer=own", "schedule=own", "optimizer.lr=0.01"]
ARGS = ["optimizer.args.beta=0.8", "schedule.args.end=0.25", "loss.args.gamma=1", "data.args.size=40"]


def words(names: dict[str, str]) -> list[str]:
    return [f"{key}={name}" for key, name in names.items()]


@pytest.fixture
def mine(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's functions, which is the current one."""
    (here / "mine.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return here


def fault(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, str]:
    """The exit code, and the one line of a fault."""
    capsys.readouterr()
    code = cli.main(list(line))
    told = capsys.readouterr().err
    assert told.startswith("cnntrain: error: ")
    assert told.count("\n") == 1
    return code, told.removeprefix("cnntrain: error: ")


# --- one entry -------------------------------------------------------------------------------------------------------


@dataclass
class ToyArgs:
    bias: bool = argument(True, lambda value: isinstance(value, bool), "true or false")


@dataclass
class ToyOptimizerSettings(OptimizerSettings):
    name: str = "toy"


@dataclass
class ToyScheduleSettings(ScheduleSettings):
    name: str = "toy"


def toy_net(args: ToyArgs, *, classes: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, classes, args.bias))


def toy_data(request: Any) -> TensorSet:
    labels = torch.arange(60) % 2
    images = (100 * labels.view(-1, 1, 1, 1) + torch.arange(64).view(8, 8)).to(torch.uint8)
    return TensorSet(["dark", "light"], (images, labels), (images[:20], labels[:20]))


def toy_optimizer(settings: ToyOptimizerSettings, groups: Any, lr: float, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr)


def toy_schedule(settings: ToyScheduleSettings, at: Place) -> float:
    return 1 / (1 + at.step)


def toy_loss(settings: LossSettings, facts: LossFacts) -> Loss:
    return Loss(0.2)


TOYS: list[tuple[Registry[Any], Entry]] = [
    (NETWORKS, NetworkEntry("toy", ToyArgs, f"{__name__}:toy_net", 2031, "lectures", 0, 0, 2, 1, 8)),
    (DATASETS, DataEntry("toy", DataSettings, f"{__name__}:toy_data", 2, 1, 8, is_embedded=True)),
    (OPTIMIZERS, OptimizerEntry("toy", ToyOptimizerSettings, f"{__name__}:toy_optimizer")),
    (SCHEDULES, Entry("toy", ToyScheduleSettings, f"{__name__}:toy_schedule")),
    (LOSSES, LossEntry("toy", LossSettings, f"{__name__}:toy_loss")),
]


def test_a_thing_is_added_by_one_entry_and_one_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, entry in TOYS:
        monkeypatch.setitem(registry._entries, entry.name, entry)
    files = {
        "model/toy.yaml": "name: toy\nargs: {bias: false}\n",
        "model/for_toy.yaml": "defaults: [toy]\n",
        "data/toy.yaml": "name: toy\nroot: .\n",
        "optimizer/toy.yaml": "name: toy\nlr: 0.1\nlr_base_batch: null\n",
        "schedule/toy.yaml": "name: toy\n",
    }
    for name, text in files.items():
        (here / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "conf" / name).write_text(text)
    line = ["--config-dir", "conf", "data=toy", "optimizer=toy", "schedule=toy", "loss.name=toy", *SHORT]
    assert cli.main([*line, "trainer.log_every=1"]) == 0
    (run,) = (here / "outputs" / "toy" / "toy").iterdir()
    assert json.loads((run / "results.json").read_text())["parameters"] == 16 * 2
    assert cli.main(["eval", str(run)]) == 0
    assert cli.main(["resume", str(run), "trainer.max_steps=5"]) == 0


@pytest.mark.parametrize("registry", [NETWORKS, *REGISTRIES.values()], ids=lambda registry: registry.section)
def test_every_builder_is_there(registry: Registry[Any]) -> None:
    for entry in (*registry.values(), registry.user):
        module, _, function = entry.builder.partition(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


# --- names that stand for nothing ------------------------------------------------------------------------------------

UNKNOWN = {
    "optimizer": ("defaults: [sgd]\nname: adamm\n", "did you mean adam?"),
    "schedule": ("defaults: [cosine]\nname: cosin\n", "did you mean cosine?"),
    "data": ("defaults: [digits]\nname: cifar100s\n", "did you mean cifar100?"),
}


def test_a_name_that_stands_for_nothing_is_refused_before_torch(here: Path) -> None:
    """The user's own optimizer/lion.yaml with the numbers of SGD does not train as SGD under another headline."""
    lines = {"loss.name=cross_entropi": "did you mean cross_entropy?"}
    for group, (text, advice) in UNKNOWN.items():
        (here / group).mkdir()
        (here / group / "wrong.yaml").write_text(text)
        (here / group / "lion.yaml").write_text(text.splitlines()[0] + "\nname: lion\n")
        lines |= {f"{group}=wrong": advice, f"{group}=lion": "and leave the name out"}
    program = f"""
import sys
from cnntrain import cli
for word in {list(lines)}:
    assert cli.main(["--config-dir", ".", word]) == 2, word
assert not {{"torch", "numpy"}} & sys.modules.keys()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = run.stderr.splitlines()
    assert len(told) == len(lines)
    for line, (word, advice) in zip(told, lines.items(), strict=True):
        assert f"error: {word.partition('=')[0].removesuffix('.name')}.name: must be one of " in line
        assert line.endswith(advice)
    assert not (here / "outputs").exists()


@pytest.mark.parametrize(
    ("text", "advice"),
    [("defaults: [sgd]\nname: adam\n", "begin with adam"), ("defaults: [sgd]\nname: mine:Signs\n", "begin with own")],
)
def test_a_name_over_the_numbers_of_another_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, advice: str
) -> None:
    (here / "optimizer").mkdir()
    (here / "optimizer" / "lion.yaml").write_text(text)
    code, line = fault(capsys, "--config-dir", ".", "optimizer=lion")
    assert code == 2
    assert line.startswith("optimizer.name: must be sgd, whose numbers are in its file (given ")
    assert advice in line


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("optimizer=own optimizer.lr=1", "optimizer.name: missing; give a name of the library"),
        ("schedule=own", "schedule.name: missing; name your function"),
        ("schedule=own schedule.name=cosine", "choose with schedule=cosine"),
        ("optimizer.name=mine:Signs", "choose with optimizer=own optimizer.name=mine:Signs"),
        ("data.name=mine:Squares", "choose with data=own data.name=mine:Squares"),
        ("optimizer.args.beta=1", "optimizer.args.beta: no such key"),
        ("loss.args.gamma=1", "loss.args.gamma: is for a function of yours"),
        ("loss.name=mine:focal loss.label_smoothing=0.1", "loss.label_smoothing: is for a loss of ours"),
    ],
)
def test_what_belongs_to_a_function_is_told(capsys: pytest.CaptureFixture[str], line: str, advice: str) -> None:
    code, told = fault(capsys, *line.split())
    assert code == 2
    assert advice in told


# --- functions of the user's -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run of the user's own model, data, augmentation, optimizer, schedule and loss; what was said."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(SOURCE)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert cli.main([*CHOICES, *words(DOTTED), *ARGS, *SHORT, "out=run"]) == 0
    sys.modules.pop("mine")
    return folder, said.getvalue()


@pytest.fixture
def run(trained: tuple[Path, str], mine: Path) -> str:
    """A copy of that run below the current folder."""
    shutil.copytree(trained[0] / "run", mine / "run")
    return "run"


def test_a_run_of_functions_is_headed_by_them(trained: tuple[Path, str]) -> None:
    out = trained[1]
    assert out.startswith("mine on Squares\n")  # mine:net; a net says nothing
    for text in ("optimizer  mine:Signs, learning rate 0.01", "loss       mine:focal", "schedule   mine:half"):
        assert text in out


def test_what_is_told_to_be_next_works_as_it_stands(trained: tuple[Path, str], run: str) -> None:
    out = trained[1]
    told = [shlex.split(line[6:]) for line in out[out.index("next  ") :].splitlines()]
    assert [command[1] for command in told] == ["eval", "report", "predict", "export", "resume"]
    Image.new("L", (8, 8), 200).save("PHOTOS", "PNG")
    for command in told:
        assert cli.main(command[1:]) == 0


@pytest.mark.parametrize("key", DOTTED)
def test_a_function_out_of_a_run_is_followed_only_if_it_is_repeated(
    capsys: pytest.CaptureFixture[str], run: str, key: str
) -> None:
    others = {name: value for name, value in DOTTED.items() if name != key}
    code, line = fault(capsys, "resume", run, "trainer.max_steps=5", *words(others))
    assert code == 8
    assert line.startswith(f"{key}: {DOTTED[key]} comes out of a saved run and would run code; ")


@pytest.mark.parametrize(("given", "code"), [("model.name", 8), ("data.name", 8), ("model.name data.name", 0)])
def test_eval_follows_network_and_data_alone(run: str, given: str, code: int) -> None:
    assert cli.main(["eval", run, *words({key: DOTTED[key] for key in given.split()})]) == code


def test_predict_asks_for_the_network_alone(run: str) -> None:
    Image.new("L", (8, 8), 200).save("light.png")
    assert cli.main(["predict", run, "images=light.png"]) == 8
    assert cli.main(["predict", run, "images=light.png", "model.name=mine:net"]) == 0


def test_a_mean_trains_as_the_losses_of_each_image_do(mine: Path) -> None:
    line = [*SHORT, "data.limit=60", "trainer.max_steps=2"]
    for name in ("cross_entropy", "mine:Mean"):
        assert cli.main([*line, f"loss.name={name}", f"out={name.rpartition(':')[2]}"]) == 0
    ours, own = (json.loads((mine / name / "results.json").read_text()) for name in ("cross_entropy", "Mean"))
    assert ours["val"]["loss"] == pytest.approx(own["val"]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "optimizer=own optimizer.lr=1 optimizer.name=mine:number",
            "optimizer.name: mine:number gave int back; it must",
        ),
        (
            "optimizer=own optimizer.lr=1 optimizer.name=mine:forgetful",
            "optimizer.name: mine:forgetful leaves ",
        ),
        ("schedule=own schedule.name=mine:negative", "schedule.name: mine:negative gave -1 back at step 0 of "),
        ("loss.name=mine:of_classes", "loss.name: mine:of_classes gave (10,) back for (20, 10) logits; it must return"),
        ("loss.name=mine:focal loss.args.gama=1", "loss.args.gama: no such argument of mine:focal"),
        ("data=own data.name=mine:number", "data.name: mine:number gave int back; return pairs"),
        ("data=own data.name=mine:floats", "data.name: mine:floats gives images float32 (1, 8, 8); let them be"),
        ("data=own data.name=mine:Square", "data.name: "),
        (
            "data=own data.name=mine:Squares data.args.train=1",
            "data.args.train: cnntrain gives it to mine:Squares itself",
        ),
        (
            "data=own data.name=mine:Squares data.args.trian=1",
            "data.args.trian: no such argument of mine:Squares (given 1)",
        ),
        (
            "data=own data.name=mine:Many data.args.how=twins",
            "data.name: mine:Many has classes without a name, of the sam",
        ),
        (
            "data=own data.name=mine:Many data.args.how=number",
            "data.name: mine:Many has classes=5; let classes be a list",
        ),
        (
            "data=own data.name=mine:Many data.args.how=halves",
            "data.name: mine:Many gives label 0.5 (float) for item 0 of train; give each",
        ),
        (
            "data=own data.name=mine:Many data.args.how=words",
            "data.name: mine:Many gives label 'dark' (str) for item 0 of train; give each",
        ),
        (
            "data=own data.name=mine:Many data.args.how=pairs",
            "data.name: mine:Many gives label [0, 0] (list) for item 0 of train; give each",
        ),
        (
            "data=own data.name=mine:Many data.args.how=far",
            "data.name: mine:Many gives label 1000000000 for item 0 of train, not one of 0..119; count",
        ),
        (
            "data=own data.name=mine:Many data.args.how=breaks",
            "data.name: mine:Many fails on item 0 of train (IndexError: no such",
        ),
        (
            "data=own data.name=mine:Many data.args.how=leaves",
            "data.name: mine:Many fails on item 0 of train (SystemExit: 0, in m",
        ),
        ("loss.name=mine:leave", "loss.name: mine:leave(..., ...) failed (SystemExit: 0, in mine.py:"),
        ("loss.name=mine:detached", "loss.name: mine:detached gave a loss back without a gradient; compute it from"),
        ("optimizer=own optimizer.lr=1 optimizer.name=mine:Late", "mine.py:"),
        (
            "loss.name=huber",
            "loss.name: must be one of cross_entropy, focal, bce, asymmetric, or package.module:function (given huber)",
        ),
        ("data.title=../elsewhere", "data.title: must be the name of one folder (given ../elsewhere)"),
    ],
)
def test_a_function_that_gives_something_else_is_told(
    mine: Path, capsys: pytest.CaptureFixture[str], line: str, text: str
) -> None:
    code, told = fault(capsys, *line.split(), "model=lenet5", "data.image_size=32", *SHORT)
    assert code == 2
    assert told.startswith(text)


def test_the_data_sets_of_torchvision_are_named_by_their_class(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = "data.args={size:40,image_size:[3,16,16],num_classes:2}"
    assert cli.main(["data=own", "data.name=torchvision.datasets:FakeData", args, "model=resnet20", *SHORT]) == 0
    assert capsys.readouterr().out.startswith("resnet20 on FakeData\n")
    assert len(list((here / "outputs" / "FakeData" / "resnet20").iterdir())) == 1


def test_a_data_file_of_the_users_heads_its_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data").mkdir()
    (here / "data" / "few.yaml").write_text("defaults: [digits]\nlimit: 60\n")
    assert cli.main(["--config-dir", ".", "data=few", "model=lenet5", *SHORT]) == 0
    assert capsys.readouterr().out.startswith("lenet5 on few\n")
    assert (here / "outputs" / "few" / "lenet5").is_dir()
