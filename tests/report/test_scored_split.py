"""What TensorBoard is shown of the split that is scored at the end of a run."""

import html
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.pr_curve import metadata
from tensorboard.util import tensor_util
from torch import nn

import cnntrain
from cnntrain.cli import main
from cnntrain.data.loaders import Loader
from cnntrain.evaluation.image_scores import ImageScore, Worst
from cnntrain.report import scored_split, split_errors
from cnntrain.report.last_features import LastFeatures
from cnntrain.report.projector import principal_components, write_projector
from cnntrain.text import percent
from cnntrain.training.scoring import Answer, Scorer
from cnntrain.training.state import Progress

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")

QUICK = ["data.limit=200", "trainer.epochs=1", "trainer.threads=1"]


def read(folder: str) -> EventAccumulator:
    events = EventAccumulator(folder, size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def test_a_run_shows_errors_precision_and_recall_and_last_features(here: Path) -> None:
    assert main([*QUICK, "hydra.run.dir=run"]) == 0
    events, results = read("run"), json.loads(Path("run/results.json").read_text())
    step, images = events.Images("test/errors")[0].step, results["images"]["test"]
    (text,) = events.Tensors("test/error_files/text_summary")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    wrong = round(images * (1 - results["test"]["top1"]))
    assert len(lines) == 2 + min(24, wrong)
    shares = [float(line.split("|")[4].strip(" %")) for line in lines[2:]]
    assert shares == sorted(shares, reverse=True)

    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("pr_test/")]
    assert len(tags) == 12
    (curve,) = events.Tensors("pr_test/(all, micro mean)")
    counts = tensor_util.make_ndarray(curve.tensor_proto)
    assert curve.step == step
    assert counts[metadata.TRUE_POSITIVES_INDEX, 0] == images

    rows = [line.split("\t") for line in Path("run/projector/images.tsv").read_text().splitlines()]
    assert rows[0] == ["class", "predicted", "right", "image"]
    assert sum(row[2] == "no" for row in rows[1:]) == wrong
    points = np.loadtxt("run/projector/features.tsv", delimiter="\t")
    assert points.shape == (images, 64)
    assert 'tensor_path: "projector/features.tsv"' in Path("run/projector_config.pbtxt").read_text()


def test_a_finished_run_that_is_resumed_shows_nothing_twice_and_none_is_shown_without_tensorboard(here: Path) -> None:
    assert main([*QUICK, "hydra.run.dir=run"]) == 0
    assert main(["resume", "run"]) == 0
    assert len(read("run").Images("test/errors")) == 1
    assert main([*QUICK, "trainer.tensorboard=false", "hydra.run.dir=plain"]) == 0
    assert not list(Path("plain").glob("projector*")) + list(Path("plain").glob("events*"))


@pytest.mark.parametrize(("best", "passes"), [("last", 2), ("first", 3)])
def test_without_test_images_the_best_epochs_answers_are_shown_and_asked_for_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, best: str, passes: int
) -> None:
    random = np.random.default_rng(0)
    for place in itertools.product(("train", "val"), ("a", "b"), range(6)):
        path = Path("photos", *map(str, place)).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    asked: list[int] = []
    score = Scorer.score

    def count(self: Scorer, loader: Loader, **more: Any) -> dict[str, float]:
        asked.append(len(loader.labels))
        return score(self, loader, **more)

    monkeypatch.setattr(Scorer, "score", count)
    monkeypatch.setattr(Progress, "is_best", lambda self, *_: best == "last" or self.best_epoch == 0)
    words = ["data=imagefolder", "data.root=photos", "data.image_size=16", "model=lenet5", "optimizer.lr=0.5"]
    words += ["trainer.epochs=2", "trainer.probe=0", "trainer.threads=1"]
    assert main([*words, "hydra.run.dir=run"]) == 0
    assert len(asked) == passes
    tags = read("run").Tags()
    assert {"val/errors", "val/confusion"} <= set(tags["images"])
    assert "pr_val/(all, micro mean)" in tags["tensors"]
    (text,) = read("run").Tensors("val/error_files/text_summary")
    classifier, rows = cnntrain.load("run"), text.tensor_proto.string_val[0].decode().splitlines()[2:]
    assert rows
    for row in rows:
        _, file, _, _, probability, _ = (cell.strip() for cell in row.split("|"))
        assert percent(classifier(Path("photos", html.unescape(file))).probability) == probability

    asked.clear()
    assert main([*words, "trainer.tensorboard=false", "hydra.run.dir=plain"]) == 0
    assert len(asked) == 2


def test_a_fault_of_one_part_is_said_once_and_the_others_are_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("no place")

    for module, name in ((Worst, "add"), (scored_split, "find_head")):
        monkeypatch.setattr(module, name, fail)
    assert main([*QUICK, "hydra.run.dir=run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for what in ("errors", "features"):
        told = f"warning: no {what} for TensorBoard: KeyError: 'no place'; the training goes on"
        assert said.count(told) == 1
    assert "pr_test/(all, macro mean)" in read("run").Tags()["tensors"]
    assert json.loads(Path("run/results.json").read_text())["status"] == "done"


@pytest.mark.parametrize("form", ["vector", "map"])
def test_last_features_are_what_the_head_makes_logits_of(form: str) -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 5, 3), *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if form == "vector" else []))
    head = nn.Linear(5, 4) if form == "vector" else nn.Sequential(nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(encoder, head)
    images, labels = torch.rand(6, 3, 40, 40), torch.arange(6) % 4
    chosen = torch.tensor([True, False, True, True, False, False])
    features = LastFeatures(chosen, 32)
    logits = []
    with features.listening(model, "1"):
        for part in torch.arange(6).split(4):
            with pytest.raises(RuntimeError):  # a pass that does not come to its end, as where memory runs out
                model(images[part, :2])
            logits.append(model(images[part]).flatten(1))
            features.add(Answer(part, labels[part], logits[-1], logits[-1]))
    model(images)  # is not heard any more
    indices, found, thumbnails, predictions = features.read()
    assert indices.tolist() == [0, 2, 3]
    assert thumbnails.shape == (3, 3, 32, 32)
    made = head(found if form == "vector" else found[:, :, None, None]).flatten(1)
    torch.testing.assert_close(made, torch.cat(logits)[chosen])
    assert predictions.tolist() == torch.cat(logits)[chosen].argmax(1).tolist()


def test_a_run_in_micro_batches_shows_the_same_features_as_one_in_whole_batches(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points: list[np.ndarray] = []
    for most in ("null", "13"):
        words = ["trainer.max_steps=2", "optimizer.lr=1e-9", f"trainer.micro_batch={most}", f"out={most}"]
        assert main([*QUICK, *words]) == 0
        assert "no features" not in capsys.readouterr().out
        points.append(np.loadtxt(f"{most}/projector/features.tsv", delimiter="\t"))
    whole, parts = (
        torch.cdist(table, table) for table in map(torch.from_numpy, points)
    )  # signs of components are free
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-3)


def test_principal_components_keep_the_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(90, 20, generator=generator) @ torch.randn(20, 300, generator=generator)
    reduced = principal_components(flat)
    assert reduced.shape == (90, 64)
    torch.testing.assert_close(torch.cdist(reduced, reduced), torch.cdist(flat, flat), rtol=1e-3, atol=1e-1)
    few = flat[:, :7]
    assert principal_components(few) is few


def test_names_that_hold_tabs_and_newlines_stay_in_their_cells_and_thumbnails_in_their_places(tmp_path: Path) -> None:
    images = torch.arange(5, dtype=torch.uint8).mul(40).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    facts = {"class": ["a\tb", "c\nd", "é", "=1", ""], "image": list("12345")}
    write_projector(tmp_path, "points", torch.rand(5, 3), images, facts)
    lines = (tmp_path / "projector/images.tsv").read_text().splitlines()
    assert [len(line.split("\t")) for line in lines] == [2] * 6
    assert lines[1:3] == ["a\\tb\t1", "c\\nd\t2"]
    sprite = np.asarray(Image.open(tmp_path / "projector/images.jpg"))
    assert sprite.shape == (24, 24, 3)
    assert [round(sprite[8 * (n // 3) + 4, 8 * (n % 3) + 4].mean() / 40) for n in range(5)] == [0, 1, 2, 3, 4]


def test_names_that_are_markdown_or_html_stay_text() -> None:
    from markdown import markdown  # type: ignore[import-untyped]

    name = "![a](http://b/c.png) | <b>*d*</b> `e` _f_ \\ &amp;"
    error = ImageScore(0, f"{name}/im_1.jpg", 0, 1, 0.75, 0.25, 1.4)
    page = markdown(split_errors.error_table([error], [name, "plain"]), extensions=["tables"])
    cells = re.findall("<td>(.*)</td>", page)
    assert [html.unescape(cell) for cell in cells] == [f"{name}/im_1.jpg", name, "plain", "75.00%"]
