"""A table of files and labels: what is read, what is found by itself, and what is wrong with its rows."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tables import build, is_right, label, labelled, names, pile, write

from cnntrain import cli
from cnntrain.data.labels import near_names, near_words, sort_classes
from cnntrain.errors import ConfigError, DataError, DataErrors
from cnntrain.storage import checkpoint

QUICK = ["model=softmax", "data.image_size=16", "data.batch_size=8", "trainer.threads=1", "trainer.tensorboard=false"]
QUICK += ["trainer.epochs=2", "schedule=constant", "augment=none", "data.workers=0"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def faults(table: Path, **arguments) -> list[str]:
    """What is wrong with the rows, each without the table's name."""
    with pytest.raises(DataErrors) as caught:
        build(table, **arguments)
    assert all(line.startswith(f"{table}: ") for line in caught.value.lines())
    return [line.removeprefix(f"{table}: ") for line in caught.value.lines()]


def rows_of(count: int = 8) -> list[str]:
    return [f"{number}.png,{label(number)}" for number in range(count)]


# ---- kinds of tables ----


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_separator_is_found_by_the_header(tmp_path, separator):
    table = labelled(tmp_path)
    table.write_text(table.read_text().replace(",", separator))
    data = build(table)
    assert data.classes == ["cat", "dog"]
    assert len(names(data.train)) + len(names(data.val)) == 8
    assert is_right(data.train, data.classes)
    assert is_right(data.val, data.classes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(tmp_path, encoding, end):
    pile(tmp_path)
    rows = [row.replace("cat", "Kätzchen") for row in rows_of()]
    lines = ["file,label,remark", *(f'{row},"one, two{end}three"' for row in rows), ",,"]
    (tmp_path / "labels.csv").write_bytes("".join(line + end for line in lines).encode(encoding))
    assert build(tmp_path / "labels.csv").classes == ["Kätzchen", "dog"]


def test_a_table_of_another_encoding_is_refused_with_the_row_and_what_converts_it(tmp_path, capsys):
    pile(tmp_path)
    table = tmp_path / "labels.csv"
    rows = [row.replace("dog", "été") for row in rows_of()]
    table.write_bytes("\n".join(["file,label", *rows]).encode("latin1"))
    assert cli.main(["data=table", f"data.root={table}", "model=softmax"]) == 3
    convert = "save the table as UTF-8, such as by `iconv -f latin1 -t utf-8 labels.csv > utf8.csv`"
    text = rf"{table}: row 3: '\xe9t\xe9' in 'label' is no UTF-8, and 3 more rows; {convert}"
    assert capsys.readouterr().err.splitlines() == [f"cnntrain: error: {text}"]
    table.write_bytes("\n".join(["file,label", *rows_of(2), "é.png,cat"]).encode("latin1"))
    assert faults(table) == [rf"row 4: \xe9.png is not there in {tmp_path}; {convert}"]


def test_tsv_json_lines_and_parquet_give_what_csv_gives(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = labelled(tmp_path)
    (tmp_path / "labels.tsv").write_text(table.read_text().replace(",", "\t"))
    records = [dict(zip(("file", "label"), row.split(","), strict=True)) for row in rows_of()]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, records)))
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "labels.parquet")
    first = build(table)
    for kind in ("tsv", "jsonl", "parquet"):
        other = build(tmp_path / f"labels.{kind}")
        assert (other.fingerprint, names(other.val)) == (first.fingerprint, names(first.val))


def test_without_pyarrow_parquet_is_refused_in_a_line_that_says_what_to_install(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    (tmp_path / "labels.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else find(name, *more)
    )
    assert cli.main(["check", "data=table", f"data.root={tmp_path}/labels.parquet"]) == 2
    line = capsys.readouterr().err
    assert "data.root: .parquet needs pyarrow, not installed here" in line
    assert line.rstrip().endswith("; pip install pyarrow")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("labels.parquet", b"PAR1 is not enough", "no readable Parquet"),
        ("labels.csv", b"", "holds no row; give a table with a row for each image"),
        ("labels.csv", b"file,label\n", "holds no row; give a table with a row for each image"),
        ("labels.csv", b"0.png,cat\n1.png,dog\n", "its first row holds an image ('0.png', 'cat'); write the names of"),
        ("labels.csv", b"file,colour,size\n0.png,red,3\n", "no column of labels among 'file', 'colour', 'size'; name"),
        ("labels.csv", b"file,label,label\n0.png,cat,dog\n", "two columns are called 'label'; rename one"),
        ("labels.csv", b'file,label\n0.png,"cat\n' + b"x" * 140_000, "row 2: cannot be read (field larger than field"),
        ("labels.csv", b'file,label\n0.png,cat\n1.png,"dog\n2.png,cat\n', "row 3: cannot be read (a quote without its"),
        ("labels.jsonl", b'{"file": "0.png"}\n', "no column of labels among 'file'"),
    ],
)
def test_what_is_no_table_is_told_in_one_line(tmp_path, name, content, fault):
    pile(tmp_path, 2)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        build(tmp_path / name)
    assert len(caught.value.lines()) == 1
    assert str(caught.value).startswith(f"{tmp_path / name}: {fault}")


def test_a_table_that_is_not_there_is_told_before_torch_is_needed(tmp_path, capsys):
    labelled(tmp_path / "cats")
    words = {
        f"{tmp_path}/none.csv": "none.csv is not there; give a table",
        f"{tmp_path}/cats": f"cats is a folder, not a table; did you mean data.root={tmp_path}/cats/labels.csv?",
        f"{tmp_path}/cats/0.png": "0.png is no table of a known kind; save it as one of .csv, .tsv, .jsonl, .parquet",
    }
    for root, fault in words.items():
        assert cli.main(["data=table", f"data.root={root}"]) == 3
        assert f"cnntrain: error: data.root: {tmp_path}" in (line := capsys.readouterr().err)
        assert fault in line
    assert cli.main(["data=imagefolder", f"data.root={tmp_path}/cats/labels.csv"]) == 3
    assert "a table of files and labels is read with data=table" in capsys.readouterr().err


# ---- columns and files ----


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("Image_ID,Class", {}),
        ("FilePath,target", {}),
        ("name,y", {}),
        ("image,kind", {}),  # of two columns, the other one
        ("a,b", {"file": "a", "label": "b"}),
        ("label,file", {"file": "label", "label": "file"}),
    ],
)
def test_columns_are_found_by_usual_names_or_chosen(tmp_path, header, columns):
    data = build(labelled(tmp_path, header=header), columns=columns)
    assert is_right(data.train, data.classes)
    assert any(note.startswith("columns of labels.csv: file is ") for note in data.notes)


def test_a_column_that_is_not_there_is_a_fault_of_the_config_with_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.columns\.label: no column 'lable' in .*; did you mean label\?"):
        build(labelled(tmp_path), columns={"label": "lable"})


def test_names_without_suffix_find_their_file_in_the_pile_beside_the_table(tmp_path):
    pile(tmp_path / "train_images", suffix=".jpg")
    (tmp_path / "other").mkdir()
    table = write(tmp_path / "train.csv", "image_id,label", *(f"{i},{label(i)}" for i in range(8)))
    data = build(table)
    assert is_right(data.train, data.classes)
    assert any("those of train_images/" in note for note in data.notes)
    shutil.move(tmp_path / "train_images", tmp_path / "other" / "deep")
    assert "0 is not there in" in faults(table)[0]
    assert is_right(build(table, images=str(tmp_path / "other" / "deep")).train, data.classes)


def test_ids_that_have_lost_their_zeros_are_told_with_the_file_that_they_mean(tmp_path):
    for name in pile(tmp_path / "train", suffix=".jpg"):
        (tmp_path / "train" / name).rename(tmp_path / "train" / name.rjust(8, "0"))
    table = write(tmp_path / "train.csv", "id,label", *(f"{i},{label(i)}" for i in range(8)))
    place = f"is not there in {tmp_path}/train"
    assert f"row 2: 0 {place}; 0000.jpg is: keep the zeros, in a column of text" in faults(table)


def test_two_piles_that_fit_are_not_chosen_between(tmp_path):
    for name in ("a", "b"):
        pile(tmp_path / name)
    table = write(tmp_path / "labels.csv", "file,label", *rows_of())
    with pytest.raises(DataError, match=r"labels\.csv: a/, b/ hold files of its names; choose one with data\.images"):
        build(table)


def test_paths_from_the_root_and_those_of_windows_are_understood(tmp_path):
    pile(tmp_path / "deep" / "er")
    ways = ("deep/er/{}", "deep\\er\\{}", "./deep//er/{}", f"{tmp_path}/deep/er/{{}}")
    rows = [f"{ways[i % 4].format(f'{i}.png')},{label(i)}" for i in range(8)]
    data = build(write(tmp_path / "labels.csv", "file,label", *rows))
    assert is_right(data.train, data.classes)
    assert sorted(names(data.train) + names(data.val)) == [f"{i}.png" for i in range(8)]


def test_classes_that_are_numbers_stand_in_the_order_of_these(tmp_path):
    assert sort_classes({"10", "9", "-1", "2.5"}) == ["-1", "2.5", "9", "10"]
    assert sort_classes({"10", "9", "x"}) == ["10", "9", "x"]


def test_some_classes_can_be_chosen_and_the_rest_is_left_out(tmp_path):
    pile(tmp_path, 12)
    rows = [f"{i}.png,{('cat', 'dog', 'fox')[i % 3]}" for i in range(12)]
    table = write(tmp_path / "labels.csv", "file,label", *rows, "gone.png,fox")
    data = build(table, classes=["dog", "cat"], batch_size=2)
    assert data.classes == ["dog", "cat"]
    assert len(data.train.labels) + len(data.val.labels) == 8
    with pytest.raises(ConfigError, match=r"data\.classes: no class 'cow' in the data"):
        build(table, classes=["dog", "cow"])


def test_classes_that_differ_only_in_case_blanks_or_form_are_told_with_the_row_in_training_and_check(tmp_path, capsys):
    pile(tmp_path, 13)
    rows = [*rows_of(12), "12.png,Dog"]
    table = write(tmp_path / "labels.csv", "file,label", *rows)
    text = "'Dog' (1 image, row 14) and 'dog' (6) differ only in case"
    assert build(table).warnings == [f"labels.csv: {text}; write them alike if they are one class"]
    words = ["data=table", f"data.root={table}", "steps=0", f"out={tmp_path}/look.json"]
    assert cli.main(["check", *words]) == 0
    found = json.loads((tmp_path / "look.json").read_text())["findings"]
    (near,) = [finding for finding in found if finding["finding"] == "near_names"]
    assert (near["advice"], len(near["images"])) == ("'Dog' (1 image) and 'dog' (6) differ only in case", 1)
    assert near_names(["a", "A", "e\u0301t", "\u00e9t", "Big  dog", "big dog", "cat"]) == [
        ["e\u0301t", "\u00e9t"],
        ["Big  dog", "big dog"],
    ]
    assert near_words(["e\u0301t", "\u00e9t"], {"e\u0301t": 1, "\u00e9t": 2}).endswith(
        "only in how letters are composed"
    )


def test_a_class_that_is_made_of_others_is_told(tmp_path):
    pile(tmp_path, 12)
    rows = [f"{i}.png,{('cat', 'dog', 'dog|cat')[i % 3]}" for i in range(12)]
    (line,) = build(write(tmp_path / "labels.csv", "file,label", *rows)).warnings
    assert line.startswith("labels.csv: 'dog|cat' (row 4) is a class of its own beside 'dog' and 'cat'; set data.multi")


# ---- splits ----


def test_a_column_of_splits_is_honoured_whatever_its_words(tmp_path):
    pile(tmp_path, 12)
    words = ("Training", "Training", "valid", "TEST")
    rows = [f"{i}.png,{label(i // 4)},{words[i % 4]}" for i in range(12)]
    data = build(write(tmp_path / "labels.csv", "file,label,Set", *rows))
    assert names(data.train) == ["0.png", "1.png", "8.png", "9.png", "4.png", "5.png"]
    assert sorted(names(data.val)) == ["10.png", "2.png", "6.png"]
    assert sorted(names(data.test)) == ["11.png", "3.png", "7.png"]
    assert "val: 3 images of 'valid' in labels.csv" in data.notes
    whole = build(tmp_path / "labels.csv", columns={"split": ""})
    assert len(whole.train.labels) + len(whole.val.labels) == 12
    assert whole.test is None


def test_a_class_that_a_scored_split_lacks_is_told_and_no_fault(tmp_path):
    pile(tmp_path, 6)
    rows = [f"{i}.png,{label(i)},{'test' if i == 4 else 'train'}" for i in range(6)]
    data = build(write(tmp_path / "labels.csv", "file,label,split", *rows))
    assert data.warnings == ["test: no image of 'dog'"]


def test_the_order_of_the_rows_means_nothing_and_a_label_means_all(tmp_path):
    table = labelled(tmp_path, 12)
    first = build(table)
    header, *rows = table.read_text().splitlines()
    write(table, header, *reversed(rows))
    again = build(table)
    assert (again.fingerprint, names(again.val)) == (first.fingerprint, names(first.val))
    write(table, header, *rows[:-1], rows[-1].replace("dog", "cat"))
    assert build(table).fingerprint != first.fingerprint


def test_labels_are_aligned_to_a_trained_network_and_strangers_are_faults(tmp_path):
    table = labelled(tmp_path)
    data = build(table, known=["dog", "fox", "cat"], splits=("val",))
    assert is_right(data.val, ["dog", "fox", "cat"])
    (first, *_) = faults(table, known=["cat", "fox"], splits=("val",))
    assert first == "row 3: class 'dog' is in train and not among those of the network; take the row out"


# ---- faults ----


def test_all_faults_are_told_together_each_with_its_row(tmp_path):
    pile(tmp_path)
    rows = [
        "0.png,cat,train",
        "1.png,dog,train",
        "gone.png,cat,train",  # 4
        ",cat,train",  # 5
        "2.png,,train",  # 6
        "3.png,dog,tran",  # 7
        "4.png;cat;train",  # 8
        "5.png,dog",  # 9
        "0.png,dog,train",  # 10
        "6.png,fox,test",  # 11
        "1.png,dog,test",  # 12
        "1.png,dog,train",  # said twice, which is none
        "http://x.org/7.png,cat,train",  # 14
        "7.png,cat,",  # 15
    ]
    assert faults(write(tmp_path / "labels.csv", "file,label,split", *rows)) == [
        f"row 4: gone.png is not there in {tmp_path}; mend the row, or give the folder with data.images=DIR",
        "row 5: no file, as 'file' is empty; give it one, or take the row out",
        "row 6: no label, as 'label' is empty; give it one, or take the row out",
        "row 7: 'tran' in 'split' names no split; did you mean train?",
        "row 8: is separated by semicolons, and the header by commas; use one of them throughout",
        "row 9: 2 cells, and the header has 3; give each column one, and quotes to a cell that holds the separator",
        "row 10: 0.png has the label 'dog' here and 'cat' in row 2; leave one of them",
        "row 11: class 'fox' is in test and not in train; put images of it into train, or take the row out",
        "row 12: 1.png has the split 'test' here and 'train' in row 3; leave one of them",
        "row 14: http://x.org/7.png is an address, and no file; fetch the images first",
        "row 15: no split, as 'split' is empty; give it one, or take the row out",
    ]


def test_many_faults_of_a_kind_are_counted_and_end_with_exit_code_3(tmp_path, capsys):
    pile(tmp_path, 2)
    table = write(tmp_path / "labels.csv", "file,label", *rows_of(100))
    assert cli.main(["check", "data=table", f"data.root={table}"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cnntrain: error: ")]
    assert len(lines) == 6
    assert lines[0].startswith(f"cnntrain: error: {table}: row 4: 2.png is not there")
    assert lines[-1] == f"cnntrain: error: {table}: and 93 more rows with files that are not found"


def test_a_row_is_counted_by_lines_of_the_file(tmp_path):
    pile(tmp_path, 2)
    text = 'file,label,remark\n0.png,cat,"two\nlines"\n\n1.png,dog,-\ngone.png,dog,-\n'
    (tmp_path / "labels.csv").write_text(text)
    assert faults(tmp_path / "labels.csv")[0].startswith("row 6: gone.png")


def test_cells_as_long_as_books_are_no_classes_and_end_in_short_lines(tmp_path):
    pile(tmp_path, 2)
    table = write(tmp_path / "labels.csv", "file,label", f"0.png,{'x' * 100_000}", f"{'y' * 100_000},cat", "1.png,dog")
    label, file = faults(table)
    assert label == "row 2: a label of 100,000 letters is no class; give it one"
    assert len(file) < 1100
    assert file.endswith("mend the row, or give the folder with data.images=DIR")


def test_times_that_python_does_not_have_are_told_of_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = pyarrow.array([2**62 - 1, 0], pyarrow.duration("s"))
    parquet.write_table(pyarrow.table({"file": pile(tmp_path, 2), "label": labels}), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"labels.parquet: no readable Parquet \(.*\); write it anew"):
        build(tmp_path / "labels.parquet")


def test_names_are_found_however_their_letters_are_composed(tmp_path):
    (tmp_path / "e\u0301").mkdir()
    pile(tmp_path / "e\u0301", 8)
    table = write(tmp_path / "labels.csv", "file,label", *(f"\u00e9/{i}.png,{label(i)}" for i in range(8)))
    assert len(build(table).train.labels) == 6


def test_json_lines_that_are_none_and_lists_of_labels_are_faults(tmp_path):
    pile(tmp_path, 2)
    rows = ['{"file": "0.png", "label": "cat"}', "{", "[1]"]
    rows += ['{"file": "1.png", "label": ["dog", "cat"]}', '{"file": 7}']
    assert faults(write(tmp_path / "labels.jsonl", *rows)) == [
        "row 2: is no object of JSON; write one per line, {...}",
        "row 3: is no object of JSON; write one per line, {...}",
        "row 4: 'label' holds several values; give it one, or set data.multi_label=true",
        "row 5: no label, as 'label' is empty; give it one, or take the row out",
    ]


def test_a_misspelt_split_is_told_alone_and_not_that_its_class_is_missing_in_train(tmp_path):
    pile(tmp_path, 4)
    rows = ["0.png,cat,trian", "1.png,dog,train", "2.png,cat,test"]
    assert faults(write(tmp_path / "labels.csv", "file,label,split", *rows)) == [
        "row 2: 'trian' in 'split' names no split; did you mean train?"
    ]


def test_a_column_of_folds_decides_the_folds(tmp_path):
    pile(tmp_path)
    table = write(tmp_path / "labels.csv", "file,label,kfold", *(f"{row},{i // 3}" for i, row in enumerate(rows_of())))
    for fold in range(3):
        data = build(table, folds=3, fold=fold)
        assert names(data.val) == [f"{i}.png" for i in range(0, 8, 2) if i // 3 == fold] + [
            f"{i}.png" for i in range(1, 8, 2) if i // 3 == fold
        ]
        assert len(names(data.train)) + len(names(data.val)) == 8
        note = f"val: {len(names(data.val))} of the 8 training images, fold {fold} of 0 to 2, as the table has them"
        assert note in data.notes
    assert build(table, folds=3, fold=0).fingerprint == build(table, folds=3, fold=1).fingerprint
    table.write_text(table.read_text().replace("0.png,cat,0", "0.png,cat,1"))
    assert build(table, folds=3, fold=0).fingerprint != data.fingerprint


def test_a_column_of_folds_is_told_what_to_do_with_it(tmp_path):
    pile(tmp_path)
    header, rows = "file,label,patient,fold", [f"{row},p{i},{i % 4}" for i, row in enumerate(rows_of())]
    table = write(tmp_path / "labels.csv", header, *rows)
    with pytest.raises(DataError, match=r"'fold' holds the folds 0 to 3; set data.folds=4 .*columns.split=$"):
        build(table)
    with pytest.raises(ConfigError, match=r"^data.folds: the column 'fold' .* holds 4 folds \(given 5\)"):
        build(table, folds=5)
    assert len(build(table, folds=5, columns={"split": ""}).val.labels) == 2
    table.write_text(table.read_text().replace("p5,", "p0,"))
    assert faults(table, folds=4) == ["row 7: group 'p0' is in fold 1 here and in fold 0 in row 2; keep it in one fold"]
    write(table, header, *(row[:-1] + str(2 * int(row[-1])) for row in rows))
    with pytest.raises(DataError, match=r"holds 4 different numbers, from 0 to 6; count folds from 0 without a gap"):
        build(table, folds=4)


def test_one_class_alone_is_refused(tmp_path):
    pile(tmp_path)
    with pytest.raises(DataError, match=r"'cat' is the only class; it takes two classes or more"):
        build(write(tmp_path / "labels.csv", "file,label", *(f"{i}.png,cat" for i in range(4))))


def test_names_of_strangers_move_no_cursor(tmp_path):
    pile(tmp_path, 2)
    rows = ["0.png,\x1b[31mred", "1.png,dog", "\x1b[2Jgone.png,dog"]
    (line,) = faults(write(tmp_path / "labels.csv", "file,label", *rows))
    assert "\\x1b[2Jgone.png is not there" in line
    write(tmp_path / "labels.csv", "file,label", *rows[:2], "0.png,\x1b[31mred")
    data = build(tmp_path / "labels.csv", val=0)
    assert data.classes == ["\\x1b[31mred", "dog"]
    assert data.warnings == ["labels.csv: 1 row said again what another one says"]


# ---- the same road as a folder ----


@pytest.fixture
def photos(here):
    """Two classes of noise without splits, and a table of them."""
    draw, rows = np.random.default_rng(0), []
    for index, name in enumerate(("dark", "light")):
        (here / "photos" / name).mkdir(parents=True)
        for number in range(16):
            pixels = draw.integers(120 * index, 120 * index + 100, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(here / "photos" / name / f"{number:02}.png")
            rows.append(f"{name}/{number:02}.png,{name}")
    return write(here / "photos" / "labels.csv", "file,label", *rows)


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text())


@pytest.mark.parametrize("loader", ["memory", "stream"])
def test_a_table_of_a_folders_files_trains_the_same_network_to_the_bit(photos, loader):
    words = [*QUICK, f"data.loader={loader}"]
    assert cli.main([*words, "data=imagefolder", "data.root=photos", "out=a"]) == 0
    assert cli.main([*words, "data=table", "data.root=photos/labels.csv", "out=b"]) == 0
    assert results("a")["weights_sha256"] == results("b")["weights_sha256"]
    assert results("a")["val"] == results("b")["val"]


def test_a_run_on_a_table_resumes_and_is_scored_and_a_changed_label_is_refused(photos, capsys):
    words = [*QUICK, "data=table", "data.root=photos/labels.csv"]
    assert cli.main([*words, "out=whole"]) == 0
    assert cli.main([*words, "out=run", "trainer.max_steps=5"]) == 0
    assert cli.main(["resume", "run", "trainer.max_steps=null"]) == 0
    assert results("run")["weights_sha256"] == results("whole")["weights_sha256"]
    capsys.readouterr()
    assert cli.main(["eval", "run"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert checkpoint.load(Path("run/checkpoints/last"))["about"]["classes"] == ["dark", "light"]
    photos.write_text(photos.read_text().replace("dark/03.png,dark", "dark/03.png,light"))
    assert cli.main(["resume", "run", "trainer.epochs=3"]) == 4
    assert "data.root: the images are not those that the run was started on" in capsys.readouterr().err


def test_a_pack_of_a_table_trains_as_the_table_does(photos):
    rows = photos.read_text().splitlines()[1:]
    splits = ["test" if i % 4 == 3 else "train" for i in range(len(rows))]
    write(photos, "file,label,split", *(f"{row},{split}" for row, split in zip(rows, splits, strict=True)))
    assert cli.main(["pack", "data=table", f"data.root={photos}", "out=packed", "data.workers=0"]) == 0
    assert cli.main([*QUICK, "data=table", f"data.root={photos}", "out=a"]) == 0
    assert cli.main([*QUICK, "data=imagefolder", "data.root=packed", "out=b"]) == 0
    assert results("a")["weights_sha256"] == results("b")["weights_sha256"]
    assert results("a")["test"] == results("b")["test"]


def test_the_data_of_a_table_is_headed_by_a_name_that_tells_something():
    from cnntrain.config.schema.titles import name_of_folder

    for root, title in {
        "/data/birds/labels.csv": "birds",
        "/data/birds/train.csv": "birds",
        "/data/birds.csv": "birds",
        "/data/birds/v2.parquet": "v2",
    }.items():
        assert name_of_folder(root) == title
