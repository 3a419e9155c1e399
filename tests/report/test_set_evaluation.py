"""What eval prints and writes of label sets: 80 columns, whatever the names, and tables that a spreadsheet reads."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from forged import Answers, job_of, random_sets
from rich.cells import cell_len

from cnntrain.errors import ConfigError
from cnntrain.evaluation.label_sets import SetEvaluation, evaluate_sets
from cnntrain.plots import sheet, worst
from cnntrain.report import set_evaluation as tables
from cnntrain.report import set_evaluation_files as files
from cnntrain.storage.atomic import StreamedFile

ODD = ["a very long name of a label, " * 20, "\x1b[31mred", "猫" * 50, "=1+1", "a,b\nc", "", "[bold]", "\udcff"]


def evaluation_of(names: list[str], images: int = 300) -> SetEvaluation:
    val, test = (random_sets(images, len(names), seed=seed) for seed in (0, 1))
    return evaluate_sets(job_of(names, val=val, test=test))


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("names", [ODD, [f"label {place} {'x' * 60}" for place in range(300)], ["a", "b"]])
def test_all_lines_have_80_columns_and_move_no_cursor(names: list[str]) -> None:
    levels = [{"strength": 1.0, "map": 1.0, "loss": 1234.5}] * 5
    lines = tables.tell(evaluation_of(names), {"noise": levels, "contrast": levels})
    assert max(map(cell_len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert len(lines) < 60
    assert not any("top-1" in line for line in lines)


def test_scores_are_told_with_intervals_and_labels_with_the_thresholds_that_decide() -> None:
    evaluation = evaluation_of([*"abcd"])
    scores = evaluation.found["test"].scores
    lines = tables.tell(evaluation)
    heads = [line.split("  ")[0].strip() for line in lines[2:8]]
    assert heads == ["mAP", "macro F1", "micro F1", "subset accuracy", "Hamming loss", "loss"]
    assert all(line.count(" to ") == 2 for line in lines[2:8])
    assert f"{100 * scores['map']:.2f}%" in lines[2]
    assert "thresholds  fitted to these validation images, whose scores flatter" in lines
    hardest = min(scores["classes"], key=lambda name: scores["classes"][name]["average_precision"])
    place = lines.index(next(line for line in lines if line.startswith("test, by label")))
    row = scores["classes"][hardest]
    cells = lines[place + 1].split()
    assert cells[:3] == [hardest, str(row["images"]), f"{100 * row['average_precision']:.2f}%"]
    assert cells[-1] == f"{100 * row['threshold']:.2f}%"
    assert lines[place].split()[-6:] == ["images", "AP", "precision", "recall", "F1", "from"]


def test_without_a_single_mistake_none_is_told() -> None:
    labels = random_sets(50, 3).labels
    lines = tables.tell(evaluate_sets(job_of([*"abc"], val=Answers(20 * labels.float() - 10, labels))))
    assert not any("most" in line for line in lines)


def test_tables_hold_all_labels_and_no_cell_that_a_spreadsheet_would_run(tmp_path: Path) -> None:
    names = [name or "none" for name in ODD]  # an empty name is no label of a table
    evaluation = evaluation_of(names)
    scores = evaluation.scores["val"]
    head, *rows = rows_of(files.as_table(evaluation.scores))
    assert head == [
        *("split", "class", "images", "given", "average_precision", "precision", "recall", "f1", "threshold"),
        *("loss", "micro_f1", "hamming", "subset_accuracy", "ece"),
    ]
    assert len(rows) == 2 * 9
    assert rows[0][:2] == ["val", ""]
    assert [float(rows[0][place]) for place in (4, 7, 10, 11, 12)] == [
        scores[key] for key in ("map", "macro_f1", "micro_f1", "hamming", "subset_accuracy")
    ]
    assert float(rows[2][4]) == scores["classes"][names[1]]["average_precision"]

    path = tmp_path / "errors.csv"
    with StreamedFile(path) as file:
        writer = files.SetRows(file, names)
        writer.split = "val"
        writer.add(evaluation.found["val"].images)
    head, *lines = rows_of(path.read_bytes().decode(errors="surrogateescape"))
    assert head == ["split", "file", "labels", "prediction", "missed", "wrongly_given", "loss"]
    assert [line[1] for line in lines] == [f"photos/{place}.jpg" for place in range(300)]
    answers = random_sets(300, len(names))
    assert {line[2].removeprefix("'") for line in lines} == {
        "|".join(name for name, has in zip(names, row, strict=True) if has) for row in answers.labels.tolist()
    }
    wrong = sum(line[2] != line[3] for line in lines)
    assert wrong == sum(bool(line[4] + line[5]) for line in lines)
    assert 1 - wrong / 300 == pytest.approx(scores["subset_accuracy"])
    cells = [cell for row in [*rows, *lines] for cell in row]
    assert "=1+1" not in cells


def test_a_folder_gets_scores_tables_charts_and_a_sheet_and_no_confusion_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = evaluation_of(["cat", "dog", "bird"], images=40)
    results = {"checkpoint": "best"} | evaluation.scores
    picked: list[list[int]] = []
    captions: list[tuple[str, ...]] = []
    tile = sheet.Tile
    monkeypatch.setattr(worst, "Tile", lambda pixels, words, mark: captions.append(words) or tile(pixels, words, mark))

    def pick(indices: list[int]) -> torch.Tensor:
        picked.append(indices)
        return torch.zeros(len(indices), 3, 8, 8, dtype=torch.uint8)

    files.write_folder(tmp_path, evaluation, results, pick, "best")
    charts = {f"{name}.{end}" for name in ("reliability", "thresholds", "classes") for end in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == charts | {"scores.json", "scores.csv", "worst.png"}
    told = json.loads((tmp_path / "scores.json").read_text())["test"]
    assert set(told["worst"]["missed"][0]["missed"]) <= {"cat", "dog", "bird"}
    assert {words[0][:2] for words in captions} >= {"no", "-1"}
    assert all(words[0] == "none missed" or words[0][1] in "123" for words in captions)
    assert all(words[1] == "none wrong" or words[1][1] in "123" for words in captions)
    assert picked[0] == [image.index for image in evaluation.worst("test")["wrongly_given"][:8]]
    with pytest.raises(ConfigError, match=r"sets of labels have no confusion matrix \(given .*x.svg\)"):
        files.write_file(tmp_path / "x.svg", evaluation, results)


def test_a_split_in_which_no_image_has_a_label_has_its_folder_without_bars_of_labels(tmp_path: Path) -> None:
    answers = Answers(random_sets(9, 3).logits, torch.zeros(9, 3, dtype=torch.bool))
    evaluation = evaluate_sets(job_of([*"abc"], test=answers))
    files.write_folder(
        tmp_path, evaluation, evaluation.scores, lambda places: torch.zeros(len(places), 3, 8, 8).byte(), "best"
    )
    charts = {f"{name}.{end}" for name in ("reliability", "thresholds") for end in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == charts | {"scores.json", "scores.csv", "worst.png"}
