"""What eval prints and writes of an evaluation: 80 columns, whatever the names, and tables that a spreadsheet reads."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from forged import job_of, random_answers
from rich.cells import cell_len

from cnntrain.evaluation.evaluate import Evaluation, evaluate
from cnntrain.report import evaluation as tables
from cnntrain.report import evaluation_files as files
from cnntrain.storage.atomic import StreamedFile

ODD = ["a very long name of a class, " * 20, "\x1b[31mred", "猫" * 50, "=1+1", "a,b\nc", "", "[bold]", "\udcff"]


def evaluation_of(names: list[str], images: int = 400) -> Evaluation:
    val, test = (random_answers(images, len(names), seed=seed) for seed in (0, 1))
    return evaluate(job_of(names, val=val, test=test))


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("names", [ODD, [f"class {place} {'x' * 60}" for place in range(1000)], ["a", "b"]])
def test_all_lines_have_80_columns_and_move_no_cursor(names: list[str]) -> None:
    evaluation = evaluation_of(names)
    levels = [{"strength": 1.0, "top1": 1.0, "loss": 1234.5}] * 5
    lines = tables.tell(evaluation, {"noise": levels, "contrast": levels})
    assert max(map(cell_len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert len(lines) < 50


def test_of_many_classes_the_hardest_are_told_and_those_without_images_are_not_among_them() -> None:
    names = [f"class {place}" for place in range(1000)]
    evaluation = evaluation_of(names)
    classes = evaluation.found["test"].scores["classes"]
    title, *lines = tables.class_table("test", classes)
    assert title.startswith("test, the 10 hardest classes of 1,000")
    shown = [" ".join(line.split()[:2]) for line in lines]
    assert len(shown) == 10
    assert all(classes[name]["images"] for name in shown)
    least = sorted(score["f1"] for score in classes.values() if score["images"])[:10]
    assert [classes[name]["f1"] for name in shown] == least


def test_the_table_of_scores_has_a_row_for_each_with_its_interval() -> None:
    evaluation = evaluation_of([*"abcdefgh"])
    heads, images, *rows = tables.score_table({split: found.scores for split, found in evaluation.found.items()})
    assert heads.split() == ["validation", "95", "%", "interval", "test", "95", "%", "interval"]
    assert images.split() == ["images", "400", "400"]
    assert [row[:10].strip() for row in rows] == ["top-1", "top-5", "balanced", "macro F1", "loss"]
    assert all(row.count(" to ") == 2 for row in rows)


def test_calibration_is_told_with_what_it_means_and_with_the_way_out() -> None:
    scores = evaluation_of([*"abcdefgh"]).scores["test"]
    line, advice = tables.calibration_lines(scores)
    assert line.startswith(f"calibration  ECE {100 * scores['calibration']['ece']:.2f}%; probability ")
    assert line.endswith("too sure")
    assert advice.strip().startswith("temperature 1.481 of validation makes it ")
    assert advice.endswith("calibrate=true")
    scores["calibration"]["temperature"] |= {"ece": scores["calibration"]["ece"], "loss": scores["loss"]}
    assert len(tables.calibration_lines(scores)) == 1


def test_the_longest_advice_has_80_columns_without_test_images_too() -> None:
    scores = evaluation_of([*"abcdefgh"]).scores["test"]
    temperature = {"used": 1.0, "fitted": 0.062513, "helps": True}
    scores |= {"top1": 0.9876, "loss": 12.3456}
    bins = [{"images": scores["images"], "probability": 0.4567}]
    for ece, loss, told in ((0.2345, 12.567, "would make it"), (0.1234, 12.1, "makes it"), (None, 9.9, "lowers the")):
        scores["calibration"] = {"ece": 0.2, "bins": bins, "temperature": temperature | {"ece": ece, "loss": loss}}
        lines = tables.calibration_lines(scores)
        assert told in lines[1]
        assert max(map(len, lines)) <= 80
    scores["calibration"]["without"] = {"ece": 0.2345, "loss": 12.567}
    assert max(map(len, tables.calibration_lines(scores))) <= 80


def test_tables_hold_all_classes_and_no_cell_that_a_spreadsheet_would_run(tmp_path: Path) -> None:
    evaluation = evaluation_of(ODD)
    head, *rows = rows_of(files.as_table(evaluation.scores))
    assert head == ["split", "class", "images", "precision", "recall", "f1", "top1", "top5", "loss", "ece"]
    assert [row[:2] for row in rows[:2]] == [["val", ""], ["val", ODD[0]]]
    assert len(rows) == 2 * 9
    scores = evaluation.scores["val"]
    expected = [scores[key] for key in ("balanced_accuracy", "macro_f1", "top1", "top5", "loss")]
    assert [float(cell) for cell in rows[0][4:9]] == expected
    assert float(rows[2][4]) == scores["classes"][ODD[1]]["recall"]
    matrix = rows_of(files.as_counts(evaluation.found["test"].matrix.numpy(), ODD))
    assert [list(map(int, row[1:])) for row in matrix[1:]] == evaluation.found["test"].matrix.tolist()
    counts = evaluation.scores["test"]["confusion"]
    assert [[counts[name].get(other, 0) for other in ODD] for name in ODD] == evaluation.found["test"].matrix.tolist()
    cells = [cell for row in [*rows, *matrix] for cell in row]
    assert "'=1+1" in cells
    assert "=1+1" not in cells


def test_single_images_are_written_while_they_are_scored_and_the_file_appears_whole(tmp_path: Path) -> None:
    path, answers = tmp_path / "errors.csv", random_answers(300, 8)
    with StreamedFile(path) as file:
        rows = files.ImageRows(file, ODD)
        rows.split = "val"
        evaluate(job_of(ODD, val=answers), start=lambda split: [rows])
        assert not path.exists()
    head, *lines = rows_of(path.read_bytes().decode(errors="surrogateescape"))
    assert head == ["split", "file", "label", "prediction", "probability", "loss"]
    assert [line[1] for line in lines] == [f"photos/{place}.jpg" for place in range(300)]
    probabilities, guesses = answers.logits.softmax(1).max(1)
    names = [f"'{name}" if name == "=1+1" else name for name in ODD]
    assert [line[2] for line in lines] == [names[label] for label in answers.labels]
    assert [line[3] for line in lines] == [names[label] for label in guesses]
    assert torch.tensor([float(line[4]) for line in lines]) == pytest.approx(probabilities, abs=1e-6)


def test_a_fault_in_the_midst_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "errors.csv"
    path.write_text("older")

    def fail() -> None:
        with StreamedFile(path) as file:
            file.write("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_gets_scores_tables_charts_and_a_sheet(tmp_path: Path) -> None:
    evaluation = evaluation_of(["cat", "dog", "bird"], images=40)
    results = {"checkpoint": "best"} | evaluation.scores
    picked: list[list[int]] = []

    def pick(indices: list[int]) -> torch.Tensor:
        picked.append(indices)
        return torch.zeros(len(indices), 3, 8, 8, dtype=torch.uint8)

    files.write_folder(tmp_path, evaluation, results, pick, "best")
    charts = {f"{name}.{end}" for name in ("confusion", "reliability", "coverage", "classes") for end in ("png", "svg")}
    texts = {"scores.json", "scores.csv", "confusion.csv", "worst.png"}
    assert {path.name for path in tmp_path.iterdir()} == charts | texts
    assert (
        json.loads((tmp_path / "scores.json").read_text())["test"]["worst"]["largest_losses"][0]["label"]
        in "cat dog bird"
    )
    worst = evaluation.worst["test"]
    assert picked[0] == [image.index for image in worst.confident_errors[:8]]
