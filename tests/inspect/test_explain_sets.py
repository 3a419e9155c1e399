"""Pictures of what a network sees where images have sets of labels: explain, preview and the live view."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cnntrain import cli
from cnntrain.cli.arguments import read_arguments
from cnntrain.commands import explain
from cnntrain.config.schema.run_commands import ExplainArgs
from cnntrain.evaluation import set_measures
from cnntrain.evaluation.prediction import Reading
from cnntrain.inspect.explain import feature_maps, gradcam, shift
from cnntrain.inspect.explain.subject import Subject, known_labels, names_of, own_class, spread
from cnntrain.inspect.preview import sheet
from cnntrain.plots.answer import answer_tile
from cnntrain.plots.drawing import RIGHT, WRONG
from cnntrain.plots.sheet import Rgb, Tile
from cnntrain.runtime.reporter import Silence
from cnntrain.training.load_run import load_job

LABELS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]).bool()


def test_an_image_with_several_labels_is_shown_for_the_rarest_and_those_without_any_come_last():
    assert own_class(LABELS).tolist() == [2, 3, 1, 0, 3, 0]
    assert spread(LABELS, 4).tolist() == [3, 2, 0, 1]
    assert spread(LABELS, 6).tolist() == [3, 5, 2, 0, 1, 4]
    assert known_labels(LABELS)[:2] == [frozenset({0, 2}), frozenset()]
    assert [names_of(label, ["a", "b", "c"]) for label in known_labels(LABELS)[:2]] == [["a", "c"], ["no label"]]


def test_the_evidence_is_for_labels_that_are_given_then_for_those_that_are_missed_then_for_the_next():
    probabilities = torch.tensor([[0.1, 0.6, 0.3, 0.45], [0.9, 0.8, 0.7, 0.6]])
    reading = Reading(thresholds=torch.tensor([0.05, 0.7, 0.5, 0.5]))
    own = [frozenset({2}), None]
    assert gradcam.choose_labels(probabilities, reading, own, 4).T.tolist() == [[0, 2, 1, 3], [0, 1, 2, 3]]
    own = [frozenset({1, 2, 3}), frozenset()]
    assert gradcam.choose_labels(probabilities, reading, own, 3).T.tolist() == [[0, 1, 3], [0, 1, 2]]


def test_each_label_has_a_probability_of_its_own_and_of_two_classes_two_are_drawn():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    reading = Reading(temperature=2.0, thresholds=torch.tensor([0.5, 0.5]))
    inputs, ranks = images.float() / 255, torch.tensor([[0, 1, 0], [1, 0, 1]])
    found = gradcam.grad_cam(model, inputs, "1", ranks, reading)
    for evidence in found:
        wanted = (model(inputs).detach() / 2).sigmoid().gather(1, evidence.classes[:, None])[:, 0]
        torch.testing.assert_close(evidence.probabilities, wanted)
    labels = [frozenset({0, 1}), frozenset[int](), None]
    names = ["a, b", "no label", "file.png"]
    subject = Subject(model, lambda part: part.float() / 255, ["a", "b"], images, labels, names, "a net", reading)
    (layer,) = [one for one in feature_maps.map_layers(model, subject.inputs) if one.name == "1"]
    assert gradcam.picture(subject, layer).width == 2 * 3 * (128 + 8) + 32


def test_what_is_told_of_a_label_depends_on_whether_the_images_own_are_known():
    said, own = frozenset({0, 1}), frozenset({1, 2})
    assert [gradcam._verdict(place, said, own) for place in range(4)] == ["wrong", "right", "missed", "not given"]
    assert [gradcam._verdict(place, said, None) for place in range(3)] == ["given", "given", "not given"]


def test_a_shift_is_measured_by_whole_sets_and_by_the_labels_that_images_have():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images, reading = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8), Reading(thresholds=torch.full((3,), 0.5))
    zero, two = shift.measure(model, [(images, LABELS)], lambda part: part.float() / 255, [2], reading=reading)
    with torch.no_grad():
        before = model(images.float() / 255).sigmoid()
        moved = [
            model(shift.shift(images, 2 * down, 2 * right).float() / 255).sigmoid() for down, right in shift.DIRECTIONS
        ]
    changed = [((after >= 0.5) != (before >= 0.5)).any(1).double().mean() for after in moved]
    assert isinstance(two, shift.SetShiftRow)
    np.testing.assert_allclose(two.changed, np.mean(changed))
    np.testing.assert_allclose(
        two.moved, np.mean([(after - before).abs()[LABELS].mean() for after in moved]), rtol=1e-6
    )
    hits, calls = (
        sum(float(part.sum()) for part in parts)
        for parts in ([(after >= 0.5) & LABELS for after in moved], [after >= 0.5 for after in moved])
    )
    np.testing.assert_allclose(two.micro_f1, 2 * hits / (4 * LABELS.sum() + calls))
    assert (zero.pixels, zero.changed, zero.moved) == (0, 0, 0)
    for key, value in (("changed", two.changed), ("micro_f1", two.micro_f1)):
        low, high = two.intervals[key]
        assert 0 <= low < value < high <= 1
    assert set_measures.measure(LABELS, before >= 0.5)[1]["micro_f1"] == pytest.approx(zero.intervals["micro_f1"])


def test_a_bar_is_red_where_the_network_alone_gives_a_label():
    answers = [("cat", 1.0, True), ("dog", 0.7, False), ("cow", 0.4, False)]
    colors = {tuple(color) for color in answer_tile(answers, 128, 0.5).reshape(-1, 3)}
    assert {RIGHT, WRONG} <= colors
    assert WRONG not in {tuple(color) for color in answer_tile(answers, 128, 0.8).reshape(-1, 3)}


def test_explain_draws_all_its_parts_of_sets(among_sets, capsys):
    results = explain.run(read_arguments(ExplainArgs, ["run", "images=6", "filters=4", "layers=last"]))
    assert [Path(name).stem.partition("-")[0] for name in results["pictures"]] == [
        "filters", "features", "excite", "gradcam", "shift",
    ]  # fmt: skip
    assert not results["left_out"]
    assert set(results["shift"][0]) == {"pixels", "changed", "moved", "micro_f1", "intervals"}
    *_, job = load_job(Path("run"), [], Silence())
    with torch.no_grad():
        logits = torch.cat([job.model.eval()(job.normalize(batch.images)) for batch in job.data.test.batches()])
    given, own = logits.sigmoid() >= torch.tensor(job.thresholds), job.data.test.labels
    assert results["shift"][0]["micro_f1"] == 2 * int((given & own).sum()) / int(given.sum() + own.sum())
    assert next(csv.reader(Path("run/explain/shift.csv").read_text().splitlines()))[-1] == "micro_f1_high"
    assert "other labels" in capsys.readouterr().out
    assert cli.main(["explain", "run", "what=gradcam", "images=[new/56.png,new/60.png]", "out=mine"]) == 0
    with Image.open("mine/gradcam.png") as picture:
        assert picture.height > 128


def test_preview_names_all_labels_of_an_image_and_the_shares_of_mixed_ones(among_sets, set_run, monkeypatch):
    captions: list[tuple[str, ...]] = []

    def note(pixels: Rgb, lines: tuple[str, ...]) -> Tile:
        captions.append(lines)
        return Tile(pixels, lines)

    monkeypatch.setattr(sheet, "Tile", note)
    words = ["data=table", f"data.root={set_run / 'labels.csv'}", "data.multi_label=true", "loss=bce", "model=cnn"]
    words += ["data.image_size=32", "augment=cutmix", "trainer.device=cpu", "images=7", "out=look"]
    assert cli.main(["preview", *words]) == 0
    assert {("no label",), ("red",)} <= set(captions[:7])
    assert any(len(lines) > 1 for lines in captions[:7])
    mixed = [lines for lines in captions if lines[:1] and lines[0][:2] in ("0.", "1.")]
    assert mixed
    assert all(line.split()[-1] in ("blue", "green", "red") for lines in mixed for line in lines)


@pytest.mark.slow
def test_the_evidence_for_named_classes_is_drawn_of_sets_and_of_single_labels(among_sets, photo_runs, capsys):
    for run, names, count in (("run", "[red,blue]", 2), (photo_runs / "run", "green", 1)):
        words = [str(run), "what=gradcam", "images=2", f"classes={names}", "out=named"]
        assert cli.main(["explain", *words]) == 0
        with Image.open("named/gradcam.png") as picture:
            assert picture.width == max(620, 2 * (1 + count) * (128 + 8) + 32)
    capsys.readouterr()
    assert cli.main(["explain", "run", "what=gradcam", "classes=gren"]) == 2
    assert "classes: the network knows no class 'gren'; did you mean green?" in capsys.readouterr().err
    assert cli.main(["explain", "run", "what=shift", "classes=green"]) == 2
    assert "classes: is of what=gradcam (given what=shift); leave one of them out" in capsys.readouterr().err
    assert cli.main(["explain", "run", "classes=[a,b,c,d]"]) == 2
    assert "classes: must be 1 to 3 names of classes (given [a,b,c,d])" in capsys.readouterr().err
