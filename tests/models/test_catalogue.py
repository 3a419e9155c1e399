"""The stored figures of `cnntrain models`, and the list that shows them."""

import csv
import re
from pathlib import Path

import pytest
from recount import recount, settings_of

from cnntrain import cli
from cnntrain.commands.models import descriptions
from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.models.catalogue import COLUMNS, catalogue, short

CATALOGUE = catalogue()
# Parameters with 1,000 classes in the published tables of torchvision and timm, and by their layers GoogLeNet and
# Inception-v3 without the auxiliary heads that these tables count. Our own networks are pinned in test_models_own.py.
PUBLISHED = {
    "alexnet": 61_100_840, "vgg11": 132_863_336, "vgg11_bn": 132_868_840, "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736, "vgg16": 138_357_544, "vgg16_bn": 138_365_992, "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248, "googlenet": 6_624_904, "inception_v3": 23_834_568, "inception_v4": 42_679_816,
    "inception_resnet_v2": 55_843_464, "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032,
    "resnet101": 44_549_160, "resnet152": 60_192_808, "wide_resnet50_2": 68_883_240, "resnext50_32x4d": 25_028_904,
    "xception": 22_855_952, "densenet121": 7_978_856, "densenet169": 14_149_480, "densenet201": 20_013_928,
    "mobilenet_v1": 4_231_976, "mobilenet_v2": 3_504_872, "mobilenet_v3_large": 5_483_032,
    "efficientnet_b0": 5_288_548, "efficientnet_b1": 7_794_184, "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232, "efficientnet_b4": 19_341_616, "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704, "efficientnet_b7": 66_347_960, "nasnet": 88_753_150, "convnext_tiny": 28_589_128,
}  # fmt: skip


# Made by the code of a smaller sibling, of which there are more layers or wider ones: counting takes seconds.
LARGE = (
    *("densenet169", "densenet201", "resnet34", "resnet101", "resnet152", "wide_resnet50_2"),
    *(f"efficientnet_b{number}" for number in range(1, 8)),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in CATALOGUE]
)
def test_stored_counts_are_those_of_the_network(name: str) -> None:
    now = recount(CATALOGUE[name])
    advice = "python tests/recount.py writes catalogue.csv; the entry of a network of ours should say"
    assert CATALOGUE[name] == now, f"{advice} parameters={now.parameters:_}, macs={now.macs:_}"


def test_counts_are_the_published_ones() -> None:
    libraries = [name for name in CATALOGUE if settings_of(name).name not in NETWORKS]
    assert {name: CATALOGUE[name].parameters for name in libraries} == PUBLISHED


def test_each_network_with_a_name_has_a_row() -> None:
    free = {name for name in descriptions() if "???" in (conf_dir() / "model" / f"{name}.yaml").read_text()}
    assert free == {"torchvision", "timm", "own"}
    assert set(descriptions()) - free == set(CATALOGUE)
    assert list(CATALOGUE) == sorted(CATALOGUE)


def test_rows_are_plausible() -> None:
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert re.fullmatch(r"arXiv \d{4}\.\d{4,5}|[A-Z][A-Za-z]+ \d{4}|lectures", entry.source)
        if entry.source.startswith("arXiv"):
            assert entry.year in (2000 + int(entry.source[6:8]), 1999 + int(entry.source[6:8]))


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
    capsys.readouterr()
    for words, advice in (("zzz", "lists all"), ("lenet5 vgg61", "vgg1"), ("lenet5 vgg16", "in one network")):
        assert cli.main(["models", *words.split()]) == 2
        assert advice in capsys.readouterr().err


def test_the_list_goes_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "models.csv"
    assert cli.main(["models", f"out={file}"]) == 0
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == ["name", "parameters", "macs", "image_size", "year", "source"]
    assert {row["name"]: list(row.values()) for row in rows} == {
        name: [str(getattr(figures, key)) for key in COLUMNS] for name, figures in CATALOGUE.items()
    }
    assert cli.main(["models", f"out={tmp_path}/no/models.csv"]) == 6
    capsys.readouterr()
    for word, code in (("out=", 2), (f"out={tmp_path}", 6), ("out=~no-such-user/a.csv", 6)):
        assert cli.main(["models", word]) == code
        told = capsys.readouterr()
        assert told.err.startswith("cnntrain: error: out: ")
        assert not told.out


def test_counts_have_three_digits() -> None:
    cases = {0: "0", 999: "999", 1000: "1.00k", 9994: "9.99k", 9996: "10.0k", 61_100_840: "61.1M", 999_600: "1.00M"}
    assert {count: short(count) for count in cases} == cases
    assert short(714_188_480, " ") == "714 M"
