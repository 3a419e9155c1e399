"""Help, the version, the list of networks and completion, which come without torch."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_calls import Calls

import cnntrain
from cnntrain import cli
from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.commands import COMMANDS


def test_help_fits_80_columns_and_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "$$" not in text
    for file in conf_dir().glob("*/*.yaml"):
        if file.parent.name not in ("hydra", "recipe", "model") and not file.stem.startswith("for_"):
            assert re.search(rf"\b{file.stem}\b", text), file
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(calls: Calls, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cnntrain {command}")
    assert max(map(len, text.splitlines())) <= 80
    assert calls == []


def test_letters_that_the_output_does_not_have_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.main(["--version"]) == 0
    print("Schlüssel 猫", flush=True)
    assert raw.getvalue().decode().splitlines()[-1] == r"Schl\xfcssel \u732b"


def test_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cnntrain {cnntrain.__version__}\n"


def test_models_lists_each_option_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for file in (conf_dir() / "model").glob("[!f]*.yaml"):  # not for_<data>, a choice rather than a network
        assert re.search(rf"^{file.stem} +\S+", out, re.MULTILINE)
    assert cli.main(["models", "RESNET"]) == 0
    assert "lenet5" not in capsys.readouterr().out
    assert cli.main(["models", "rsenet18"]) == 2
    assert "did you mean resnet18?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("cnntrain ", ["train", "resume", "model=", "data="], []),
        ("cnntrain ev", ["eval"], ["train"]),
        ("cnntrain model=resn", ["model=resnet18", "model=resnet50"], ["train"]),
        ("cnntrain train optimizer=ada", ["optimizer=adam", "optimizer=adamw"], ["train"]),
        ("cnntrain check trainer.ep", ["trainer.epochs="], []),
        ("cnntrain summary model=resn", ["model=resnet18"], ["train"]),
        ("cnntrain compare model=resn", ["model=resnet18"], ["train"]),
        ("cnntrain resume ", [], ["model="]),
        ("cnntrain eval run ", ["tta=", "out="], ["model="]),
        ("cnntrain predict run tta=hflip,s", ["tta=hflip,shift"], ["tta=hflip,crops"]),
        ("cnntrain filter kernel=so", ["kernel=sobel_x"], ["kernel=box"]),
        ("cnntrain summary fo", ["formulas="], []),
        ("cnntrain hydra.c", [], ["hydra/cnntrain"]),
        ("cnntrain --mul", [], []),
    ],
)
def test_completion_knows_commands_groups_and_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, some: list[str], none: list[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    cli.main(["-sc", "query=bash"])
    offered, complaints = capsys.readouterr()
    words = offered.split()
    assert set(some) <= set(words)
    assert not set(none) & set(words)
    assert complaints == ""


def test_completion_script_completes_our_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-sc", "install=bash"]) == 0
    script = capsys.readouterr().out.rstrip()
    assert script.startswith("export _HYDRA_OLD_COMP=")
    assert script.endswith("hydra_bash_completion cnntrain")


def test_help_and_faults_come_without_torch(tmp_path: Path) -> None:
    lines = [
        ["--help"],
        ["--version"],
        ["models"],
        ["trainer.epoch=5", "optimizer.lr=fast"],
        ["find_lr", "low=1", "high=0.1"],
        ["eval", "nowhere"],
        ["report", "nowhere"],
    ]
    code = (
        "import sys; from cnntrain.cli import main\n"
        f"for words in {lines!r}:\n    main(words)\n    assert 'torch' not in sys.modules, words"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(cnntrain.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
