"""`cnntrain summary`: what it prints, what it writes, and for which images."""

import csv
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnntrain import cli
from cnntrain.cli.arguments import read_arguments
from cnntrain.commands.summary import COLUMNS, as_csv, native_input, run, totals
from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.commands import SummaryArgs
from cnntrain.config.schema.data import DataSettings
from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.errors import ConfigError, FileSystemError
from cnntrain.inspect.summary.rows import LayerRow, inspect
from cnntrain.inspect.summary.table import LONGEST_FULL, table
from cnntrain.models.build import build_model


def settings_of(name: str, data: str = "digits", **data_keys: Any) -> Settings:
    return Settings(model=ModelSettings(name=name), data=DataSettings(name=data, root=".", **data_keys))


def taken_apart(name: str, size: int = 224, channels: int = 3) -> tuple[nn.Module, list[LayerRow]]:
    with torch.device("meta"):
        model, _ = build_model(ModelSettings(name=name), classes=1000, channels=channels, image_size=size)
    return model, inspect(model, channels, size)


def lines_of(name: str, width: int = 80, *, formulas: bool = False) -> list[str]:
    return [line.plain for line in table(*taken_apart(name), width, formulas=formulas)]


@pytest.mark.parametrize(
    ("settings", "named", "sizes"),
    [
        (settings_of("alexnet"), False, (1000, 3, 224)),
        (settings_of("inception_v3"), False, (1000, 3, 299)),
        (settings_of("lenet5"), False, (10, 1, 32)),
        (settings_of("wrn28_10"), False, (10, 3, 32)),
        (settings_of("mobilenet_v3_small"), False, (1000, 3, 224)),
        (settings_of("my_pkg.nets:build", image_size=64), False, (1000, 3, 64)),
        (settings_of("alexnet", "cifar100"), True, (100, 3, 32)),
        (settings_of("alexnet", "mnist", channels=3), True, (10, 3, 28)),
        (settings_of("alexnet", "imagefolder", image_size=96), True, (1000, 3, 96)),
        (settings_of("alexnet", "imagefolder"), True, (1000, 3, 128)),
    ],
)
def test_images_look_as_the_data_or_the_network_says(
    settings: Settings, named: bool, sizes: tuple[int, int, int]
) -> None:
    assert native_input(settings, named) == sizes


def test_the_chosen_option_says_more_than_the_name() -> None:
    assert native_input(settings_of("cnn"), False) == (10, 1, 28)
    assert native_input(settings_of("cnn"), False, option="cnn3") == (10, 3, 32)


def test_alexnet_is_told_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    run(SummaryArgs(), RunConfig(settings_of("alexnet")))
    out = capsys.readouterr().out
    assert out.startswith("alexnet: 1,000 classes, 3x224x224 images\n")
    assert re.search(r"^features.0 Conv +11 4 2 +64x55x55 +23,296 +70.3M +11 +4 +774k$", out, re.MULTILINE)
    assert re.search(r"^features.12 MaxPool +3 2 0 +256x6x6 +195 +32 +36.9k$", out, re.MULTILINE)
    assert "61,100,840" in out
    assert "714,188,480" in out
    assert "244,403,360" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    "name",
    [
        *("resnet152", "efficientnet_b7", "convnext_tiny"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "inception_v4")),
    ],
)
def test_long_networks_stay_readable_in_80_columns(name: str) -> None:
    lines = lines_of(name)
    assert len(lines) <= LONGEST_FULL
    assert max(map(len, lines)) <= 80


def test_lines_add_up_to_the_totals() -> None:
    model, rows = taken_apart("resnet50")
    lines = [line.plain for line in table(model, rows, 80, formulas=False)]
    end = lines[0].index("parameters") + len("parameters")
    cells = [line[end - len("parameters") : end].strip().replace(",", "") for line in lines[1:]]
    counts = [int(cell) for cell in cells if cell.isdigit()]
    assert sum(counts) == sum(row.parameters for row in rows) == 25_557_032


def test_blocks_that_repeat_are_shown_once() -> None:
    lines = lines_of("resnet50")
    assert "layer3.1 Bottleneck" in lines
    assert "layer3.2 Bottleneck" not in lines
    assert any(line.startswith("to layer3.5: 4 more ") for line in lines)
    assert any(line.startswith("to …") and "_layer_11: 11 more " in line for line in lines_of("vit_b_16"))


def test_wide_terminals_show_the_sums_too() -> None:
    assert any(line.endswith("(11·11·3+1)·64") for line in lines_of("alexnet", 120))
    assert not any("·" in line for line in lines_of("alexnet", 80))


def test_formulas_are_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    run(SummaryArgs(formulas=True), RunConfig(settings_of("lenet5")))
    out = capsys.readouterr().out
    assert "H' = ⌊(14 + 2·0 - 1·(5-1) - 1)/1⌋ + 1 = 10\n" in out
    assert "(5·5·6+1)·16 = 2,416 parameters\n" in out
    assert "5·5·6·16·10·10 = 240,000 multiply-adds\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_terminal_without_the_signs_gets_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    run(SummaryArgs(formulas=True), RunConfig(settings_of("lenet5")))
    sys.stdout.flush()
    out = sys.stdout.buffer.getvalue().decode("ascii")
    assert "H' = floor((14 + 2*0 - 1*(5-1) - 1)/1) + 1 = 10" in out


def test_the_file_holds_every_layer_exactly(tmp_path: Path) -> None:
    file = tmp_path / "layers.csv"
    run(SummaryArgs(out=file), RunConfig(settings_of("resnet18")))
    with file.open(newline="") as opened:
        records = list(csv.DictReader(opened))
    _, rows = taken_apart("resnet18")
    assert tuple(records[0]) == COLUMNS
    assert [record["layer"] for record in records] == [row.path for row in rows]
    for key in ("parameters", "macs", "trainable"):
        assert [int(record[key]) for record in records] == [getattr(row, key) for row in rows]
    assert sum(int(record["macs"]) for record in records) == 1_814_073_344
    first = records[0]
    assert first["output_formula"] == "H' = ⌊(224 + 2·3 - 1·(7-1) - 1)/2⌋ + 1 = 112"
    assert (first["kernel_h"], first["stride_w"], first["padding_top"], first["groups"]) == ("7", "2", "3", "1")
    assert (first["input"], first["output"], first["memory_bytes"]) == ("3x224x224", "64x112x112", "3211264")
    assert {record["field_h"] for record in records[-2:]} == {"image"}
    assert records[-3]["field_h"] == "435"


def test_strips_keep_height_and_width_in_the_file() -> None:
    rows = inspect(nn.Sequential(nn.Conv2d(3, 4, (1, 7), padding=(0, 3))), 3, 16)
    (record,) = csv.DictReader(io.StringIO(as_csv(rows)))
    assert [record[key] for key in ("kernel_h", "kernel_w", "field_h", "field_w")] == ["1", "7", "1", "7"]
    assert record["output_formula"].count("=") == 4


def test_idle_and_frozen_layers_are_named_in_the_totals() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    model[0].requires_grad_(False)
    model.add_module("head", nn.ModuleList([nn.Linear(2, 5)]))
    model.forward = lambda images: model[1](model[0](images))  # type: ignore[method-assign]
    rows = inspect(model, 3, 8)
    assert re.sub(" +", " ", totals(rows)[0]) == "parameters 147 15 of them in training only (not run)"
    assert totals(rows)[1].split() == ["trainable", "35"]
    assert "not run" in table(model, rows, 80, formulas=False)[-1].plain


def test_what_was_changed_for_the_images_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of("resnet18", "cifar10")
    _, notes = build_model(settings.model, classes=10, channels=3, image_size=32)
    assert notes
    run(SummaryArgs(), RunConfig(settings, ("data=cifar10",)))
    head, _, _ = capsys.readouterr().out.partition("\n\n")
    assert " ".join(head.split()[5:]) == " ".join(notes)
    assert max(map(len, head.splitlines())) <= 80


def test_wrong_words_are_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"formulas: must be true or false \(given yes\)"):
        read_arguments(SummaryArgs, ["formulas=yes"])
    with pytest.raises(FileSystemError, match="no folder"):
        read_arguments(SummaryArgs, [f"out={tmp_path}/no/a.csv"])
    with pytest.raises(ConfigError, match="out: must be the name of a file"):
        read_arguments(SummaryArgs, ["out="])
    with pytest.raises(FileSystemError, match="is a folder"):
        read_arguments(SummaryArgs, [f"out={tmp_path}"])


@pytest.mark.parametrize("word", ["out", "formulas"])
def test_a_word_without_its_value_is_a_fault(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["summary", word]) == 2
    assert f"{word}: neither KEY=VALUE" in capsys.readouterr().err
