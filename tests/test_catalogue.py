"""The stored figures of `cnntrain models`, and the list that shows them."""

import csv
import re
from pathlib import Path

import pytest
from recount import recount

from cnntrain import cli
from cnntrain.commands.models import descriptions
from cnntrain.models.catalogue import COLUMNS, FILE, catalogue, short
from cnntrain.paths import conf_dir
from cnntrain.settings.nets import NATIVE

CATALOGUE = catalogue()
# Millions of parameters as published: by the paper, or by the reference implementation of the exact network.
PUBLISHED = {
    "alexnet": 61.10, "vgg16": 138.36, "vgg19_bn": 143.68, "googlenet": 6.62, "inception_v4": 42.68,
    "inception_resnet_v2": 55.84, "resnet18": 11.69, "resnet50": 25.56, "resnet152": 60.19, "resnext50_32x4d": 25.03,
    "wide_resnet50_2": 68.88, "xception": 22.86, "densenet121": 7.98, "densenet201": 20.01, "mobilenet_v1": 4.23,
    "mobilenet_v2": 3.50, "mobilenet_v3_large": 5.48, "efficientnet_b0": 5.29, "efficientnet_b7": 66.35,
    "nasnet": 88.75, "convnext_tiny": 28.59, "wrn28_10": 36.48, "resnet20": 0.27, "resnet110": 1.73, "lenet5": 0.0617,
}  # fmt: skip

# Half a second each, on shapes alone; each of these families has another member that is always counted.
LARGE = ("nasnet", "inception_resnet_v1", "inception_v4", "densenet169", "densenet201", "resnet110", "resnet152",
         *(f"efficientnet_b{scale}" for scale in range(2, 8)))  # fmt: skip
SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in LARGE else ()) for name in CATALOGUE])
def test_stored_counts_are_those_of_the_network(name: str) -> None:
    now = recount(CATALOGUE[name])
    right = ",".join(str(getattr(now, key)) for key in COLUMNS)
    assert CATALOGUE[name] == now, f"python tests/recount.py writes the right row: {right}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    millions = PUBLISHED[name]
    digits = len(str(millions).partition(".")[2])
    assert CATALOGUE[name].parameters / 1e6 == pytest.approx(millions, abs=0.51 * 10**-digits)


def test_each_network_with_a_name_has_a_row() -> None:
    free = {name for name in descriptions() if "???" in (conf_dir() / "model" / f"{name}.yaml").read_text()}
    assert free == {"torchvision", "timm"}
    assert set(descriptions()) - free == set(CATALOGUE)
    assert list(CATALOGUE) == sorted(CATALOGUE)


def test_rows_are_plausible() -> None:
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert re.fullmatch(r"arXiv \d{4}\.\d{4,5}|[A-Z][A-Za-z]+ \d{4}|lectures", entry.source)
        if entry.source.startswith("arXiv"):
            assert entry.year in (2000 + int(entry.source[6:8]), 1999 + int(entry.source[6:8]))
        if name in NATIVE:
            assert entry.image_size == NATIVE[name][2]


def test_the_list_is_narrow_and_ordered(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.split() and line.split()[0] in CATALOGUE]
    assert len(rows) == len(CATALOGUE)
    assert [row[6] for row in rows] == sorted(row[6] for row in rows)
    assert ["alexnet", "61.1", "M", "714", "M", "224", "2012", "Krizhevsky", "2012"] in rows
    assert any(line.startswith("torchvision  ") for line in lines)
    assert any(line.startswith("timm  ") for line in lines)


def test_words_narrow_the_list_and_describe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "LeNet", "1998"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^\w+", out, re.MULTILINE) == ["name", "lenet4", "lenet5"]
    assert "    " + descriptions()["lenet5"][:40] in out
    assert "googlenet" not in out  # a word is the beginning of a word
    assert cli.main(["models", "1602.07261"]) == 0
    assert re.findall(r"^(inception\w+)", capsys.readouterr().out, re.MULTILINE) == [
        "inception_resnet_v1", "inception_v4", "inception_resnet_v2"
    ]  # fmt: skip
    assert cli.main(["models", "perceptrons"]) == 2


def test_the_list_goes_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "models.csv"
    assert cli.main(["models", f"out={file}"]) == 0
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == ["name", "parameters", "macs", "image_size", "year", "source"]
    assert sorted(file.read_text().splitlines()) == sorted(FILE.read_text().splitlines())
    assert cli.main(["models", f"out={tmp_path}/no/models.csv"]) == 6
    assert cli.main(["models", "out="]) == 2


def test_counts_have_three_digits() -> None:
    cases = {0: "0", 999: "999", 1000: "1.00k", 9994: "9.99k", 9996: "10.0k", 61_100_840: "61.1M", 999_600: "1.00M"}
    assert {count: short(count) for count in cases} == cases
    assert short(714_188_480, " ") == "714 M"
