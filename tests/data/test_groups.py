"""Groups are never parted: by a validation part, by folds, or by what a table says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tables import build, label, names, pile, write

from cnntrain import cli
from cnntrain.data.group_split import group_folds, group_split
from cnntrain.data.left_columns import is_id
from cnntrain.errors import DataError, DataErrors

seeds = st.integers(0, 2**63 - 1)


@st.composite
def grouped(draw):
    """Labels of up to five classes, and groups of up to a dozen, of any size and mix."""
    count = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    groups = draw(st.lists(st.integers(-3, draw(st.integers(0, 12))), min_size=count, max_size=count))
    return torch.tensor(labels), torch.tensor(groups)


def is_whole(groups, chosen) -> bool:
    """Whether no group is parted by a mask."""
    return not set(groups[chosen].tolist()) & set(groups[~chosen].tolist())


@given(grouped(), seeds, st.integers(2, 6))
def test_folds_keep_groups_whole_and_leave_each_class_to_train_on(data, seed, folds):
    labels, groups = data
    numbers = group_folds(labels, groups, folds, seed)
    assert numbers.equal(group_folds(labels, groups, folds, seed))
    assert set(numbers.tolist()) <= set(range(-1, folds))
    for fold in range(folds):
        chosen = numbers == fold
        assert is_whole(groups, chosen)
        assert set(labels[~chosen].tolist()) == set(labels.tolist())


@given(grouped(), seeds)
def test_a_validation_part_keeps_groups_whole_and_leaves_each_class_to_train_on(data, seed):
    labels, groups = data
    for count in range(1, len(labels) + 1):
        val, train = group_split(labels, groups, count, seed)
        assert sorted(val.tolist() + train.tolist()) == list(range(len(labels)))
        assert is_whole(groups, torch.zeros(len(labels), dtype=torch.bool).index_fill(0, val, True))
        assert set(labels[train].tolist()) == set(labels.tolist())


@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.34, 0.5]))
def test_of_many_groups_sizes_and_shares_are_nearly_those_asked_for(seed, share):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 8, 400)
    groups = torch.from_numpy(np.repeat(np.arange(400), sizes))
    labels = torch.from_numpy(draw.choice(4, len(groups), p=[0.5, 0.3, 0.15, 0.05]))
    val, _ = group_split(labels, groups, round(share * len(groups)), seed)
    assert abs(len(val) / len(groups) - share) < 0.02
    parts = labels[val].bincount(minlength=4) / len(val) - labels.bincount() / len(labels)
    assert parts.abs().max() < 0.04
    folds = group_folds(labels, groups, 5, seed)
    assert folds.bincount().max() - folds.bincount().min() <= 16


def test_large_and_small_groups_validate_alike():
    groups = torch.repeat_interleave(torch.arange(100), torch.tensor([10] * 50 + [1] * 50))
    labels = torch.arange(len(groups)) % 2
    val, _ = group_split(labels, groups, 110, 0)
    sizes = groups[val].bincount(minlength=100)
    assert [int((sizes == size).sum()) for size in (10, 1)] == pytest.approx([10, 10], abs=2)


def test_groups_that_share_no_class_or_are_but_one_can_not_validate():
    labels, groups = torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 8, 8])
    assert group_folds(labels, groups, 2, 0).tolist() == [-1] * 4
    assert len(group_split(labels, groups, 2, 0)[0]) == 0
    assert len(group_split(labels, torch.zeros(4, dtype=torch.int64), 2, 0)[0]) == 0


# ---- by a table ----


@pytest.fixture
def patients(tmp_path, monkeypatch):
    """Twelve patients of four pictures each, two of each class."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [f"{i}.png,{label(i)},p{i // 4}" for i in range(len(pile(tmp_path, 48)))]
    return write(tmp_path / "labels.csv", "file,label,Patient ID", *rows)


def patients_in(loader) -> set[int]:
    return {int(name.removesuffix(".png")) // 4 for name in names(loader)}


def test_no_patient_is_trained_on_and_validated(patients):
    data = build(patients, val=0.25)
    assert len(patients_in(data.val)) == 3
    assert not patients_in(data.val) & patients_in(data.train)
    assert data.val.labels.bincount().tolist() == [6, 6]
    assert "val: 12 of the 48 training images, stratified, seed 0, 3 of 12 groups" in data.notes
    parted = build(patients, val=0.25, columns={"group": ""})
    assert patients_in(parted.val) & patients_in(parted.train)


def test_each_patient_is_in_one_fold(patients):
    folds = [patients_in(build(patients, folds=4, fold=fold).val) for fold in range(4)]
    assert sorted(patient for fold in folds for patient in fold) == list(range(12))
    with pytest.raises(DataError, match=r"data\.folds: 13 folds of 12 groups \(that hold no whole class\) leave one"):
        build(patients, folds=13)


def test_a_patient_in_two_splits_of_the_table_is_a_fault(patients):
    header, *rows = patients.read_text().splitlines()
    splits = ["test" if i in (5, 44, 45, 46, 47) else "train" for i in range(48)]
    write(patients, f"{header},split", *(f"{row},{split}" for row, split in zip(rows, splits, strict=True)))
    with pytest.raises(DataErrors) as caught:
        build(patients)
    assert caught.value.lines() == [
        f"{patients}: row 7: group 'p1' is in test here and in train in row 6; keep it in one split"
    ]


def test_a_patient_in_two_splits_of_a_file_of_splits_is_a_fault(patients, tmp_path):
    file = write(tmp_path / "mine.csv", "name,split", *(f"{i}.png,{'val' if i < 6 else 'train'}" for i in range(48)))
    with pytest.raises(DataErrors) as caught:
        build(patients, split_file=str(file))
    first = caught.value.lines()[0]
    assert first == f"{file}: row 6: 4.png is in val, and its group in train in row 8; keep the group in one split"


def test_patients_that_hold_a_whole_class_each_leave_nothing_to_validate(tmp_path):
    rows = [f"{i}.png,{label(i)},p{i % 2}" for i in range(len(pile(tmp_path, 8)))]
    with pytest.raises(DataError, match=r"data\.val: no class has images in two groups, so none can go to val"):
        build(write(tmp_path / "labels.csv", "file,label,group", *rows))


def test_other_groups_make_it_other_data(patients):
    first = build(patients).fingerprint
    patients.write_text(patients.read_text().replace("47.png,dog,p11", "47.png,dog,p10"))
    assert build(patients).fingerprint != first


def test_a_pack_that_leaves_groups_behind_says_so(patients, tmp_path, capsys):
    assert cli.main(["pack", "data=table", f"data.root={patients}", f"out={tmp_path}/packed", "data.workers=0"]) == 0
    assert "warning: groups and weights of the table stay there" in " ".join(capsys.readouterr().out.split())


def test_a_column_of_ids_that_rows_share_and_that_is_left_alone_is_told_in_one_line(tmp_path, capsys):
    pile(tmp_path, 12)
    header = "file,label,lesion_id,class_id,age,annotator_id,photo_id,sex"
    rows = [f"{i}.png,{label(i)},L{i // 2},{i % 2},{i // 3},a{i % 5},{i},{i % 2}" for i in range(12)]
    table = write(tmp_path / "labels.csv", header, *rows)
    (line,) = [note for note in build(table).notes if "alone" in note]
    advice = "data.columns.group=lesion_id keeps images of one value together"
    assert line == f"left alone: lesion_id (6 values in 12 rows); {advice}"
    for group in ("lesion_id", ""):
        assert not any("alone" in note for note in build(table, columns={"group": group}).notes)
    assert cli.main(["data=imagefolder", f"data.root={tmp_path}", "data.columns.group=lesion_id"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("classes and groups into one: data=table data.root=labels.csv")


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        (
            ("lesion_id", "LesionID", "lesionid", "Lesion No", "case", "Video Name", "study_uid", "ID", "caseNumber"),
            True,
        ),
        (("grid", "valid", "age", "class_id", "study_date", "humid", "label", "name", "notes", "rater id"), False),
    ],
)
def test_ids_are_known_by_their_names(names, is_one):
    assert [is_id(name) for name in names] == [is_one] * len(names)
