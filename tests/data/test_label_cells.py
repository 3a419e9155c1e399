"""Tables whose images have several labels, or none: how cells are parted, what is a fault, and a run to its end."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from tables import build, names, pile, write

from cnntrain import cli
from cnntrain.config.schema.data import OnBadImage
from cnntrain.data.label_cells import find_separator
from cnntrain.errors import ConfigError, DataError, DataErrors
from cnntrain.storage import checkpoint

SETS = ["a", "a|b", "b|c", "", "c", "a|c", "b", "a|b|c"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(folder: Path, cells: list[str] = SETS * 2, column: str = "labels") -> Path:
    pile(folder, len(cells))
    rows = [f'{place}.png,"{cell}"' for place, cell in enumerate(cells)]
    return write(folder / "labels.csv", f"file,{column}", *rows)


def told(data, sign: str = "|") -> dict[str, str]:
    """The labels of each image by its name."""
    result = {}
    for loader in (data.train, data.val):
        assert loader.labels.dtype == torch.bool
        for name, row in zip(names(loader), loader.labels.tolist(), strict=True):
            result[name] = sign.join(one for one, has in zip(data.classes, row, strict=True) if has)
    return result


@pytest.mark.parametrize("sign", ["|", ";", ",", " ", "; "])
def test_labels_are_parted_by_a_sign_that_is_found(here, sign):
    data = build(table(here, [cell.replace("|", sign) for cell in SETS * 2]), multi_label=True)
    assert data.classes == ["a", "b", "c"]
    assert data.multi_label
    assert told(data) == {f"{place}.png": cell for place, cell in enumerate(SETS * 2)}
    assert any("1.5 an image, 2 images without any" in note for note in data.notes)


def test_names_of_two_words_are_not_parted_and_a_sign_may_be_named(here):
    assert find_separator(["golden retriever", "tabby cat", "siamese cat", ""]) == ""
    assert find_separator(["cat dog", "dog", "cat bird", "bird dog", "bird"]) == " "
    data = build(table(here, ["a/b", "b", "a", "b/a"] * 4), multi_label=True, columns={"separator": "/"})
    assert data.classes == ["a", "b"]


def test_lists_of_python_and_of_json_are_sets(here):
    cells = ["['a', 'b']", "['b']", "[]", "['a']"] * 4
    assert told(build(table(here, cells), multi_label=True))["0.png"] == "a|b"
    cells = ['["a, b", "it\'s"]', "['a, b' \"it's\"]", "['a, b', \"it's\"]", "[]"] * 4
    pile(here, len(cells))
    quoted = [f'{place}.png,"{cell.replace(chr(34), 2 * chr(34))}"' for place, cell in enumerate(cells)]
    data = build(write(here / "labels.csv", "file,labels", *quoted), multi_label=True)
    assert data.classes == ["a, b", "it's"]
    assert sorted(told(data).values()) == [""] * 4 + ["a, b|it's"] * 12
    rows = [json.dumps({"file": f"{place}.png", "tags": ["a", "b"][: place % 3]}) for place in range(16)]
    data = build(write(here / "labels.jsonl", *rows), multi_label=True)
    assert told(data) | {} == {f"{place}.png": "|".join(["a", "b"][: place % 3]) for place in range(16)}


def test_columns_of_ones_and_zeros_are_labels(here):
    pile(here, 12)
    rows = [f"{place}.png,{place % 2},{-1 if place % 3 else 1}" for place in range(12)]
    file = write(here / "labels.csv", "file,cat,dog", *rows)
    data = build(file, multi_label=True, columns={"label": ["cat", "dog"]})
    assert told(data)["3.png"] == "cat|dog"
    assert told(data)["1.png"] == "cat"
    assert told(data)["2.png"] == ""
    with pytest.raises(ConfigError, match=r"^data\.columns\.label: no column 'cta' .* did you mean cat\?$"):
        build(file, multi_label=True, columns={"label": ["cta", "dog"]})
    write(file, "file,cat,dog", *rows[:-1], "11.png,maybe,1")
    with pytest.raises(DataErrors, match="row 13: 'maybe' in 'cat' is neither yes nor no; write 1 or 0"):
        build(file, multi_label=True, columns={"label": ["cat", "dog"]})


def test_columns_of_ones_and_zeros_without_multi_label_are_one_label_a_row_or_refused(here, capsys):
    pile(here, 9)
    rows = [f"{place}.png,{','.join('01'[place % 3 == column] for column in range(3))}" for place in range(9)]
    file = write(here / "labels.csv", "file,fish,dog,radio", *rows)
    data = build(file, columns={"label": ["fish", "dog", "radio"]})
    assert "columns of labels.csv: file is 'file', labels are 'fish', 'dog', 'radio'" in data.notes
    assert cli.main(["data=table", f"data.root={file}", "data.columns.label=fish,dog,radio"]) == 2
    word = 'write "data.columns.label=[fish,dog,radio]", or add -m for one run each'
    assert f"data.columns.label: several columns stand in brackets; {word}" in capsys.readouterr().err
    assert (data.classes, len(data.train.labels) + len(data.val.labels)) == (["dog", "fish", "radio"], 9)
    write(file, "file,fish,dog,radio", *rows[:5], "5.png,0,0,0", "6.png,1,0,1", "7.png,1,1,0", rows[8])
    text = "row 7: no label, and each image is to have one; 1 of 9 rows have no label, and 2 several: "
    text += "set data.multi_label=true loss=bce for images with several labels or none"
    for words in (["loss=cross_entropy"], ["loss=bce"]):
        words += ["data=table", f"data.root={file}", "data.columns.label=[fish,dog,radio]", "model=softmax"]
        for command in ([], ["check"]):
            assert cli.main([*command, *words]) == 3
            assert capsys.readouterr().err.splitlines() == [f"cnntrain: error: {file}: {text}"]


def test_a_table_without_a_column_of_labels_offers_those_of_ones_and_zeros(here):
    pile(here, 8)
    rows = [f"{place}.png,{place % 2},{place % 3 // 2},p{place},3{place}" for place in range(8)]
    file = write(here / "labels.csv", "file,cat,Big dog,patient,age", *rows)
    words = "'data.columns.label=[cat,Big dog]' data.multi_label=true"
    with pytest.raises(DataError, match=r"no column of labels among .* all of them: " + re.escape(words) + "$"):
        build(file)
    words = f"data=table data.root=labels.csv {words} loss=bce model=lenet5 trainer.max_steps=1 data.image_size=16"
    assert cli.main([*shlex.split(words), "data.batch_size=2", "data.val=0", "hydra.run.dir=run"]) == 0
    names = ["a-b", *(f"c{place}" for place in range(9))]
    write(file, f"file,{','.join(names)}", *(f"{place}.png" + f",{place % 2}" * 10 for place in range(8)))
    with pytest.raises(DataError, match=r"""of them: "data\.columns\.label=\['a-b',c0,c1,c2,c3,c4,…\]" data\."""):
        build(file)
    write(file, "file,cat,age", *(f"{place}.png,{place % 2},3{place}" for place in range(8)))
    with pytest.raises(DataError, match=r"; name it with data\.columns\.label=NAME$"):
        build(file)


def test_rows_of_other_sets_and_labels_that_are_not_learnt_are_faults(here):
    pile(here, 8)
    rows = [f"{place}.png,a|b,train" for place in range(6)]
    write(here / "labels.csv", "file,labels,split", *rows, "6.png,a|c,test", "0.png,a,train")
    with pytest.raises(DataErrors) as caught:
        build(here / "labels.csv", multi_label=True)
    lines = [line.partition(": row ")[2] for line in caught.value.lines()]
    assert lines[0].startswith("8: class 'c' is in test and not in train;")
    assert lines[1] == "9: 0.png has the label 'a' here and 'a|b' in row 2; leave one of them"


@pytest.mark.parametrize(
    ("cells", "text"), [([""] * 6, "no row has a label"), (["a", ""] * 3, "'a' is the only class")]
)
def test_fewer_than_two_labels_are_too_few(here, cells, text):
    with pytest.raises(DataError, match=f"{text}; it takes two classes or more"):
        build(table(here, cells), multi_label=True)


def test_chosen_classes_leave_other_labels_out_and_keep_their_images(here):
    data = build(table(here), multi_label=True, classes=["c", "a"])
    assert data.classes == ["c", "a"]
    assert told(data)["2.png"] == "c"
    assert len(told(data)) == 16


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("loss=cross_entropy", "loss.name: must be one of focal, bce, asymmetric, or a function of yours"),
        ("loss=bce data.sampling=balanced", "data.sampling: must be natural with data.multi_label=true"),
        ("loss=bce data.per_class=3", "data.per_class: must be null with data.multi_label=true: set data.limit"),
        ("loss=bce augment=[augmix] augment.augmix.jsd=12", "augment.augmix.jsd: must be 0 with data.multi_label=true"),
        ("loss=focal loss.pos_weight=2", "loss.pos_weight: is for loss=bce, and loss.name is focal"),
    ],
)
def test_what_cannot_be_is_told_before_training(here, capsys, words, text):
    words = ["data=table", f"data.root={table(here)}", "data.multi_label=true", "model=softmax", *words.split()]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith(f"cnntrain: error: {text}")


def test_words_on_sets_say_what_they_are_for(here, capsys):
    assert cli.main(["data=table", f"data.root={table(here)}", "data.columns.separator=/"]) == 2
    assert capsys.readouterr().err.startswith("cnntrain: error: data.columns.separator: is for data.multi_label=true")
    assert cli.main(["loss=bce", "data.multi_label=true"]) == 2
    assert capsys.readouterr().err.startswith("cnntrain: error: data.multi_label: is for data=table")


def test_a_run_mixes_sets_ends_in_map_and_goes_on_with_the_same_bits(here):
    file = table(here, SETS * 4)
    words = ["data=table", f"data.root={file}", "data.multi_label=true", "loss=bce", "data.image_size=16"]
    words += ["model=softmax", "augment=[mixup,cutmix]", "schedule=constant", "data.batch_size=4", "data.val=8"]
    words += ["trainer.threads=1", "trainer.tensorboard=false", "trainer.epochs=3"]
    assert cli.main([*words, "out=a"]) == 0
    assert cli.main([*words, "trainer.max_steps=8", "out=b"]) == 0
    assert cli.main(["resume", "b", "trainer.max_steps=null"]) == 0
    one, other = (json.loads(Path(run, "results.json").read_text()) for run in ("a", "b"))
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one["val"].keys() == {"map", "loss"}
    assert 0 <= one["val"]["map"] <= 1
    progress = checkpoint.load(Path("a/checkpoints/best"))["progress"]
    assert len(progress["thresholds"]) == 3
    assert progress["best_map"] == one["val"]["map"]
    assert progress["best_top1"] == -1


def test_a_split_without_any_label_is_told(here):
    pile(here, 8)
    rows = [f"{place}.png,{'a|b' if place < 6 else ''},{'train' if place < 6 else 'val'}" for place in range(8)]
    data = build(write(here / "labels.csv", "file,labels,split", *rows), multi_label=True)
    assert "val: no image has a label, so that its mAP of 0 tells nothing" in "".join(data.warnings)


def test_training_images_of_which_none_has_a_label_are_refused(here):
    pile(here, 8)
    rows = [f"{place}.png,{'a|b' if place == 7 else ''},{'test' if place == 7 else 'train'}" for place in range(8)]
    with pytest.raises(DataError, match="data: no training image has a label"):
        build(write(here / "labels.csv", "file,labels,split", *rows), multi_label=True)


def test_a_skipped_image_is_replaced_by_one_of_the_same_labels_and_by_no_other(here):
    options = {"multi_label": True, "val": 0, "mean": [0.5], "std": [0.5], "workers": 0}
    file = table(here, ["a", "a|b", "b", "", "a|b", "b"])
    good = {name: image for image, name in zip(*pixels_of(build(file, **options).train), strict=True)}
    (here / "1.png").write_bytes(b"")
    train = build(file, on_bad_image=OnBadImage.skip, **options).train
    for image, name in zip(*pixels_of(train), strict=True):
        assert torch.equal(image, good["4.png" if name == "1.png" else name])
    (here / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"3.png: none of the images with its labels, and no others, .* take its row"):
        pixels_of(build(file, on_bad_image=OnBadImage.skip, **options).train)


def pixels_of(loader):
    """The images of a split, and their names."""
    batches = list(loader.batches())
    places = torch.cat([batch.indices for batch in batches]).tolist()
    return torch.cat([batch.images for batch in batches]), [Path(loader.name(place)).name for place in places]


def test_the_splits_of_a_run_are_read_again(here):
    file = table(here)
    rows = [f"{place}.png,{'train' if place < 10 else 'val' if place < 13 else 'test'}" for place in range(16)]
    data = build(file, multi_label=True, split_file=str(write(here / "splits.csv", "name,split", *rows)))
    known = [{name for name in "abc" if name in cell} for cell in SETS * 2]
    for loader, start, end in ((data.train, 0, 10), (data.val, 10, 13), (data.test, 13, 16)):
        found = dict(zip(names(loader), loader.labels.tolist(), strict=True))
        for place in range(start, end):
            assert {"abc"[label] for label, has in enumerate(found[f"{place}.png"]) if has} == known[place]
    write(here / "splits.csv", "name,split", "0.png,train", "3.png,train", "2.png,val")
    with pytest.raises(DataErrors, match="class 'b' is in val and not in train"):
        build(file, multi_label=True, split_file=str(here / "splits.csv"))


def test_empty_cells_beside_several_labels_tell_of_sets(here):
    with pytest.raises(DataErrors, match="for images with several labels or none"):
        build(table(here))


def test_check_takes_its_steps_and_preview_its_pictures_of_sets(here, capsys):
    words = ["data=table", f"data.root={table(here)}", "data.multi_label=true", "loss=bce", "model=softmax"]
    words += ["data.image_size=16", "data.batch_size=4", "trainer.threads=1"]
    assert cli.main(["check", *words]) == 0
    assert "check passed" in capsys.readouterr().out
    assert cli.main(["preview", *words]) == 0
