"""The weight of a training image is how often it is shown."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tables import build, label, names, pile, write

from cnntrain import cli
from cnntrain.config.schema.data import Sampling
from cnntrain.data.sampler import BatchSampler, balance_weights, draw_by_weight
from cnntrain.errors import DataError, DataErrors

some_weights = st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 7.3]), min_size=1, max_size=40).filter(any)


def drawn(weights, seed) -> torch.Tensor:
    return draw_by_weight(weights, torch.Generator().manual_seed(seed)).bincount(minlength=len(weights))


@given(some_weights, st.integers(0, 2**31))
def test_an_epoch_has_as_many_images_as_ever_and_each_its_due_up_to_one(values, seed):
    weights = torch.tensor(values, dtype=torch.float64)
    turns = drawn(weights, seed)
    assert int(turns.sum()) == len(values)
    assert ((turns - weights * len(values) / weights.sum()).abs() < 1 + 1e-9).all()
    assert (turns[weights == 0] == 0).all()


def test_over_many_epochs_each_image_is_shown_by_its_weight():
    weights = torch.tensor([0.0, 0.3, 1.0, 1.0, 2.7], dtype=torch.float64)
    total = sum(drawn(weights, seed) for seed in range(2000))
    assert (total / 2000).tolist() == pytest.approx(weights.tolist(), abs=0.03)


def test_balanced_classes_are_drawn_equally_often_and_by_weight_within():
    labels = torch.tensor([0] * 6 + [1] * 2)
    weights = torch.tensor([1, 1, 1, 1, 1, 5, 3, 1], dtype=torch.float64)
    due = balance_weights(weights, labels)
    assert due.tolist() == pytest.approx([0.1] * 5 + [0.5, 0.75, 0.25])
    assert balance_weights(torch.tensor([0.0, 0.0, 2.0]).double(), torch.tensor([0, 0, 1])).tolist() == [0, 0, 1]
    sampler = BatchSampler(labels, batch_size=8, seed=0, train=True, sampling=Sampling.balanced).weigh(weights)
    counts = sum(labels[sampler.order(epoch)].bincount(minlength=2) for epoch in range(200))
    assert (counts / 200).tolist() == pytest.approx([4, 4], abs=0.15)


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    labels, weights = torch.arange(30) % 3, torch.rand(30, dtype=torch.float64)
    plain = BatchSampler(labels, batch_size=5, seed=3, train=True)
    before = plain.order(2)
    first, again = plain.weigh(weights), BatchSampler(labels, batch_size=7, seed=3, train=True).weigh(weights).cut(5)
    assert first.order(2).equal(again.order(2))
    assert not first.order(2).equal(first.order(3))
    assert plain.order(2).equal(before)
    assert first.in_order().order(0).equal(torch.arange(30))


# ---- by a table ----


@pytest.fixture
def table(here):
    """Sixteen pictures; those before the eighth weigh nothing."""
    rows = [f"{i}.png,{label(i)},{0 if i < 8 else i / 4}" for i in range(len(pile(here, 16)))]
    return write(here / "labels.csv", "file,label,weight", *rows)


def test_a_column_of_weights_is_for_the_training_images_alone(table):
    data = build(table, val=0.5, columns={"weight": "weight"})
    shown = {names(data.train)[index] for batch in data.train.batches(0) for index in batch.indices.tolist()}
    assert min(int(Path(name).stem) for name in shown) >= 8
    assert sum(len(batch.labels) for batch in data.val.batches()) == 8
    assert any(note.startswith("sampling: by weight, from 0 to ") for note in data.notes)


def test_a_column_called_weight_is_not_taken_for_one_unasked(table):
    data = build(table)
    assert data.train.sampler.weights is None
    write(table, table.read_text().replace("weight", "sample_weight").rstrip())
    assert build(table).train.sampler.weights is not None


def test_a_weighted_run_goes_on_with_the_same_bits(table):
    words = ["data=table", "data.root=labels.csv", "data.columns.weight=weight", "data.image_size=16", "augment=none"]
    words += [
        "schedule=constant",
        "model=softmax",
        "data.batch_size=4",
        "trainer.threads=1",
        "trainer.tensorboard=false",
        "data.val=0",
    ]
    assert cli.main([*words, "trainer.epochs=3", "out=a"]) == 0
    assert cli.main([*words, "trainer.epochs=3", "trainer.max_steps=6", "out=b"]) == 0
    assert cli.main(["resume", "b", "trainer.max_steps=null"]) == 0
    one, other = (json.loads(Path(run, "results.json").read_text())["weights_sha256"] for run in ("a", "b"))
    assert one == other
    assert cli.main([*words, "data.columns.weight=", "trainer.epochs=3", "out=c"]) == 0
    assert json.loads(Path("c/results.json").read_text())["weights_sha256"] != one


def test_weights_that_are_none_are_faults(table):
    header, *rows = table.read_text().splitlines()
    rows[:5] = ["0.png,cat,-1", "1.png,dog,heavy", "2.png,cat,nan", "3.png,dog,", "4.png,cat,1e308"]
    write(table, header, *rows)
    with pytest.raises(DataErrors) as caught:
        build(table, columns={"weight": "weight"})
    assert [line.removeprefix(f"{table}: ") for line in caught.value.lines()] == [
        "row 2: '-1' is no weight; give a number from 0 to 1e+12",
        "row 3: 'heavy' is no weight; give a number from 0 to 1e+12",
        "row 4: 'nan' is no weight; give a number from 0 to 1e+12",
        "row 5: no weight, as 'weight' is empty; give it one, or take the row out",
        "row 6: '1e308' is no weight; give a number from 0 to 1e+12",
    ]
    write(table, header, *(f"{i}.png,{label(i)},0" for i in range(16)))
    with pytest.raises(DataError, match=r"data\.columns\.weight: no training image has a weight above 0"):
        build(table, columns={"weight": "weight"})
