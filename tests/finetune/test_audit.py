"""The audit says of each layer group what will be done, within 80 columns, for few groups and for many."""

from dataclasses import replace

import pytest
from rich.cells import cell_len
from tuned import make_net, make_tuning

from cnntrain.config.schema.finetune import Mode, NormPolicy
from cnntrain.finetune.audit import GroupRow, audit
from cnntrain.report.audit import markdown, total, tree


def rows(**settings):
    return audit(make_tuning(make_net(), **settings), lr=0.1, weight_decay=0.01)


def test_rows_of_a_frozen_encoder():
    found = rows(mode=Mode.A)
    assert [(row.name, row.parameters, row.trainable, row.lr, row.weight_decay, row.norm) for row in found] == [
        ("stem", 174, "no", None, None, "frozen"),
        ("blocks.0", 336, "no", None, None, "frozen"),
        ("blocks.1", 336, "no", None, None, "frozen"),
        ("head", 21, "yes", 0.1, 0.01, "-"),
    ]
    assert [row.layers for row in found][:2] == [("conv1", "bn1"), ("blocks.0.conv", "blocks.0.bn")]


def test_rows_show_when_a_group_opens_its_rate_and_its_norms():
    found = rows(mode=Mode.C, lr_decay=0.5, wd_decay=0.1, unfreeze=[3, 6])
    assert [row.trainable for row in found] == ["no", "from epoch 6", "from epoch 3", "yes"]
    assert [row.lr for row in found] == [None, 0.025, 0.05, 0.1]
    assert [row.weight_decay for row in found] == [None, pytest.approx(0.0001), pytest.approx(0.001), 0.01]
    assert [row.norm for row in found] == ["frozen", "batch statistics", "batch statistics", "-"]


@pytest.mark.parametrize(
    ("settings", "norms"),
    [
        ({"norm": NormPolicy.frozen}, ["frozen"] * 3 + ["-"]),
        ({"norm": NormPolicy.recalibrate}, ["recalibrated"] * 3 + ["-"]),
        ({"freeze": ["bn1"]}, ["frozen"] + ["batch statistics"] * 2 + ["-"]),
    ],
)
def test_rows_show_the_policy_of_norms(settings, norms):
    assert [row.norm for row in rows(mode=Mode.B, **settings)] == norms


def test_rows_count_what_freeze_takes():
    stem, low, high, head = rows(mode=Mode.B, freeze=["conv1", "blocks.0.bn", "blocks.1"])
    assert (stem.trainable, stem.learnable) == ("12 of 174", 12)
    assert (low.trainable, low.learnable) == ("all but 12", 324)
    assert (high.trainable, high.learnable) == ("no", 0)
    assert total([stem, low, high, head]) == "trainable 357 of 867 parameters (41.2%)"
    assert rows(mode=Mode.C, head_epochs=2, freeze=["conv1"])[0].trainable == "12 from epoch 3"


def many(count, prefix="layer"):
    layers = tuple(f"{prefix}.9.sub.conv{index}" for index in range(30))
    row = GroupRow(f"{prefix}.9", layers, 123_456_789, 23_456_789, 12, 1.05e-05, 1.25e-05, "recalibrated")
    return [replace(row, name=f"{prefix}.{index}") for index in range(count)]


@pytest.mark.parametrize("count", [1, 5, 16, 17, 60])
@pytest.mark.parametrize("prefix", ["layer", "features.a_long_name_of_a_module.denseblock"])
def test_a_tree_keeps_its_columns_within_80(count, prefix):
    lines = [line for line, _ in tree(many(count, prefix), 80)]
    assert max(map(cell_len, lines)) <= 80
    head, *others, last = lines
    groups = [line for line in others if line.startswith(("├─", "└─"))]
    assert len(groups) == count
    assert {cell_len(line) for line in groups} == {len(head)}
    assert len(others) == (2 * count if count <= 16 else count)  # of many groups the layers are counted only
    assert last.startswith("trainable ")


def test_a_tree_of_a_frozen_encoder():
    assert [line for line, _ in tree(rows(mode=Mode.A), 80)] == [
        "layer group  parameters  trainable   lr  decay  batch norm",
        "├─ stem             174         no    -      -      frozen",
        "│    conv1, bn1",
        "├─ blocks.0         336         no    -      -      frozen",
        "│    conv, bn",
        "├─ blocks.1         336         no    -      -      frozen",
        "│    conv, bn",
        "└─ head              21        yes  0.1   0.01           -",
        "     classifier.1",
        "trainable 21 of 867 parameters (2.4%)",
    ]


def test_the_text_for_tensorboard_is_a_table_with_a_row_for_each_group():
    lines = markdown([*rows(mode=Mode.C, unfreeze=[2]), *many(1, "conv1|bn1")]).splitlines()
    assert lines[0] == "| layer group | layers | parameters | trainable | learning rate | weight decay | batch norm |"
    assert lines[4] == "| `blocks.1` | `conv, bn` | 336 | from epoch 2 | 0.1 | 0.01 | batch statistics |"
    assert "`conv1/bn1.0`" in lines[6]
    assert {line.count("|") for line in lines[:-2]} == {8}
    assert lines[-1].startswith("trainable ")
