"""The command lines, the output and the links in README.md and docs/ hold.

Each command line is tried fast, up to where torch and the images would be loaded, and slowly by running it to its end
on stand-ins: pictures and data sets of random pixels, weights that never learnt. Where a page shows what is printed, it
is compared: of commands that train without their figures, of the others letter by letter.
"""

import csv
import json
import re
import shutil
from pathlib import Path

import documents
import pytest
from documents import PAGES, ROOT, Example
from samples import fake_mnist

from cnntrain import cli, errors
from cnntrain.cli import dispatch
from cnntrain.config.messages import keys_of
from cnntrain.config.schema.commands import COMMANDS
from cnntrain.config.schema.optimizer import OPTIMIZERS
from cnntrain.config.schema.schedule import SCHEDULES
from cnntrain.runtime import launcher

EXAMPLES = documents.examples()
OURS = [example for example in EXAMPLES if example.is_ours]
NOT_RUN = {  # command line: why it is not run to its end
    "pip install .": "asks a package registry",
    "pip install 'cnntrain[export]'": "asks a package registry",
    "cnntrain data=hf data.root=OWNER/NAME data.download=true model=resnet18": "tests/data/test_hub.py reads a cache",
    "python model.py cat.jpg": "tests/export does, with more pictures",
    "tensorboard --logdir outputs": "serves until it is stopped",
    "cnntrain play RUN_DIR": "serves until it is stopped; tests/play does",
    "cnntrain trainer.devices=4 model=resnet50 data=imagefolder data.root=photos": "wants four devices",
    "torchrun --nproc-per-node=4 --max-restarts=3 -m cnntrain model=resnet50 data=imagefolder data.root=photos": (
        "wants four devices"
    ),
    "srun cnntrain model=resnet50 data=imagefolder data.root=photos": "wants Slurm",
}
QUICK = ("filter", "models", "summary")  # commands that need no torch, or no images
TRAINING = ("train", "compare")  # commands that are cut short


@pytest.fixture
def desk(here: Path) -> Path:
    """The current folder, with all files that the examples name."""
    documents.lay_out(here)
    return here


def named(examples: list[Example]) -> list[object]:
    return [pytest.param(example, id=example.command) for example in examples]


def same_figures(line: str) -> str:
    """A line without its figures, units and the star of the best row."""
    line = re.sub(r"\d[\d,.:_-]*(e[-+]?\d+)?( ?([kM]|[kMG]i?B)\b)?", "#", line)
    return " ".join(line.removesuffix("*").replace("# threads", "# thread").split())  # this machine may have one


def check_output(example: Example, printed: str, *, figures: bool) -> None:
    """The lines of the page stand in the output, in their order; `…` stands for lines that the page leaves out."""
    clean = str.rstrip if figures else same_figures
    there = [clean(line) for line in printed.splitlines()]
    parts = re.split(r"(?:^|\n)…(?:\n|$)", "\n".join(clean(line) for line in example.output))
    for part in filter(None, parts):
        lines = part.split("\n")
        places = [index for index in range(len(there)) if there[index : index + len(lines)] == lines]
        assert places, f"not printed:\n{part}\n\nbut:\n" + "\n".join(there)
        there = there[places[0] + len(lines) :]


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", named(OURS))
def test_the_words_of_each_command_are_accepted(
    example: Example, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "data=hf" in example.ours:
        pytest.importorskip("datasets")
    quick = bool(set(example.ours[:1]) & set(QUICK))
    make_room(example.ours, desk)
    if not example.fails and not quick:
        monkeypatch.setattr(dispatch, "_load", lambda command: lambda *given: 0)
    monkeypatch.setattr(launcher, "launch", lambda *given: 0)
    code = cli.main(example.ours)
    out, err = capsys.readouterr()
    assert code == (errors.ConfigError.exit_code if example.fails else 0), err
    if example.fails or (example.output and quick):
        check_output(example, err if example.fails else out, figures=True)


def long_enough(example: Example) -> bool:
    return example.command not in NOT_RUN and not example.fails and not set(example.ours[:1]) & set(QUICK)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("example", named([example for example in OURS if long_enough(example)]))
def test_each_command_runs(
    example: Example, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = example.ours
    make_room(words, desk)
    monkeypatch.setenv("CNNTRAIN_DATA", str(desk / "data"))
    if any("cifar10" in word for word in words):
        documents.lay_out_cifar10(desk / "data", monkeypatch)
    if any("mnist" in word for word in words):
        fake_mnist(desk / "data", train=600)
        fake_mnist(desk / "data", train=600, kind="FashionMNIST")
    if "RUN_DIR" in words:
        # A temperature is kept where it helps: of a network that has learnt.
        train_run(desk / "RUN_DIR", *(["trainer.epochs=3", "data.limit=null"] if "calibrate=true" in words else []))
    if "OTHER_RUN_DIR" in words:
        train_run(desk / "OTHER_RUN_DIR", "optimizer.lr=0.01")
    if words and words[0] == "compare":
        in_this_process(monkeypatch)
    more = cut_short(words) if words else []
    if any("finetune=" in word for word in words):
        more += start_from_made_up_weights(words)
    capsys.readouterr()
    assert cli.main([*words, *more]) == 0, capsys.readouterr().err
    if example.output:
        check_output(example, capsys.readouterr().out, figures=False)


def make_room(words: list[str], desk: Path) -> None:
    """Remove the folder that `pack` is to make: other examples find one of photos there."""
    if words[:1] == ["pack"]:
        shutil.rmtree(desk / documents.PACKED)


def cut_short(words: list[str]) -> list[str]:
    """Words that end a training after two small steps, also where fewer images stand in than `data.limit` asks for."""
    if words[0] == "find_lr":
        return ["steps=20", "data.batch_size=8"]
    if words[0] == "bench":
        return ["rounds=1", "steps=1", "data.batch_size=8"]
    if (words[0] in COMMANDS and words[0] not in TRAINING) or "RUN_DIR" in words:
        return []
    typed = {word.partition("=")[0] for word in words}
    more = ["trainer.max_steps=2", *(["data.limit=64"] if "data.limit" in typed else [])]
    return more if "data.batch_size" in typed else [*more, "data.batch_size=8"]


def train_run(folder: Path, *words: str) -> None:
    """A run that has ended, for the commands that go on from one."""
    shutil.rmtree(folder, ignore_errors=True)
    assert cli.main(["trainer.epochs=1", "data.limit=64", "trainer.tensorboard=false", f"out={folder}", *words]) == 0


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of `compare` are made here, one after the other: importing torch for each of them takes minutes."""
    from cnntrain.runtime.child import Relay

    monkeypatch.setattr(Relay, "run", lambda self, command, watch: cli.main(list(command[3:])))


def start_from_made_up_weights(words: list[str]) -> list[str]:
    """Weights in the place of those that would be fetched, and the word that names them."""
    import timm
    import torchvision
    from safetensors.torch import save_file

    given = dict(word.split("=", 1) for word in words if "=" in word)
    if "model.weights" in given:
        save_file(timm.create_model(given["model.name"]).state_dict(), given["model.weights"])
        return []
    save_file(torchvision.models.get_model(given["model"]).state_dict(), "weights.safetensors")
    return ["model.weights=weights.safetensors", "data.image_size=64", "model.stem=imagenet"]


@pytest.mark.parametrize("example", named([example for example in EXAMPLES if not example.is_ours]))
def test_each_other_command_is_known(example: Example) -> None:
    if example.words[0] == "make":
        for target in example.words[1:]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    else:
        assert example.command in NOT_RUN


def test_what_is_not_run_is_still_on_a_page() -> None:
    assert set(NOT_RUN) <= {example.command for example in EXAMPLES}


# --- keys, files, links ----------------------------------------------------------------------------------------------


def test_each_key_that_a_page_names_is_there() -> None:
    known = {key for name in OPTIMIZERS for key in keys_of({"optimizer": name})}
    known |= {key for name in SCHEDULES for key in keys_of({"schedule": name})}
    sections = "|".join({key.partition(".")[0] for key in known if "." in key})
    for page in PAGES:
        for span in documents.spans(page):
            key = span.partition("=")[0]
            is_file = key.endswith((".png", ".svg", ".csv", ".json", ".onnx", ".py", ".safetensors"))
            if re.fullmatch(rf"({sections})(\.[a-z_]+)+", key) and ".args." not in key and not is_file:
                assert key in known, f"{page.name}: {key}"


def test_the_reference_names_each_file_and_key_of_a_run(here: Path) -> None:
    import torch

    assert cli.main(["debug=smoke", "out=run"]) == 0
    text = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    tables = dict(re.findall(r"^#+ (.*?)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))

    def first_column(title: str) -> set[str]:
        rows = [line.split("|")[1] for line in tables[title].splitlines() if line.startswith("| `")]
        return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}

    run = here / "run"
    files = {re.sub(r"(tfevents)\..*", r"\1.*", path.name) + "/" * path.is_dir() for path in run.iterdir()}
    rare = {"bad_images.tsv", "trace.json.gz", "traceback.txt", "eval/", "explain/", "export/", "report.html"}
    assert first_column("The run folder") == files | rare
    assert first_column("environment.json") == set(json.loads((run / "environment.json").read_text())) | {"resumed"}
    assert first_column("results.json") == set(json.loads((run / "results.json").read_text()))
    with open(run / "metrics.csv", newline="") as file:
        assert first_column("metrics.csv") == set(next(csv.reader(file)))
    state = torch.load(run / "checkpoints" / "last" / "state.pt", weights_only=True)
    assert first_column("checkpoints") == set(state)
    spans = set(re.findall(r"`([^`]+)`", tables["checkpoints"]))
    assert spans >= set(state["about"]) | set(json.loads((run / "checkpoints/last/manifest.json").read_text()))


def test_the_reference_names_each_exit_code() -> None:
    text = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    known = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for code in cell.split(",")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")]
    assert known == {kind.exit_code for kind in kinds} | {0, 130, 143, 141}


def test_each_link_leads_somewhere() -> None:
    for page in [*PAGES, *ROOT.glob("CONTRIBUTING.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_list_in_the_readme_has_every_page() -> None:
    listed = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Documentation")[2].partition("\n## ")[0]
    assert [f"docs/{page.name}" in listed for page in PAGES[1:]] == [True] * (len(PAGES) - 1)


def test_the_readme_says_of_each_dependency_why_it_is_here() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|export|parquet|hf) = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL)
    needed = [name for listed in lists for name in re.findall(r'"([\w-]+)', listed)]
    assert len(lists) == 4
    rows = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Dependencies")[2]
    named = [name for row in re.findall(r"^\| (.*?) \|", rows, re.MULTILINE) for name in row.split(", ")]
    assert sorted(needed) == sorted(set(named) - {"package", "---"})


def anchors(page: Path) -> set[str]:
    """The names by which GitHub finds the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
