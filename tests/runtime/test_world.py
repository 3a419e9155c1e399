"""Several processes take the steps of one: same batches, same gradients, the same bits in all of them."""

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image
from processes import CPU, PROCESSES, digits, free_port, make_job, make_run, one_of_several

from cnntrain import cli
from cnntrain.augment.batch_context import BatchContext
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, LoaderKind
from cnntrain.data.build import build_data
from cnntrain.data.epoch_plan import EpochPlan, images_in_epoch
from cnntrain.errors import ConfigError, DataError
from cnntrain.runtime import slurm
from cnntrain.runtime.world import ALONE, Flags, World
from cnntrain.training import loop


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each process has found, by rank."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(one_of_several, (free_port(), str(folder)), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)] + [torch.load(folder / "fault.pt")]


# ---- what two processes do ------------------------------------------------------------------------------------------


def test_processes_exchange_tensors_numbers_and_objects(results):
    for rank, found in enumerate(result["sums"] for result in results[:2]):
        assert found["sums"] == [[[3.0] * 3] * 2, [0, 1, 2], 1.0]
        assert found["copies"] == [[0.5], [True, False], 3]
        assert found["means"] == [[0.5], 2.0]
        assert found["most"] == [1, 1, 0]
        assert found["share"] == {"rank": 0}
        assert found["gather"] == [0, 1]
        assert found["once"] == (3_000_000, {0})
        assert rank == 0 or found["turn"] > results[0]["sums"]["turn"]


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(results):
    run, job = make_run(ALONE, random=False), make_job(ALONE, 8, random=False)
    loop.train(run, job)
    assert run.progress.step == 6
    for result in results[:2]:
        assert result["plain"]["progress"]["step"] == 6
        for name, weights in run.model.state_dict().items():
            torch.testing.assert_close(result["plain"]["weights"][name], weights, rtol=0, atol=1e-6)
        found = result["plain"]["progress"]
        assert found["best_loss"] == pytest.approx(run.progress.best_loss, abs=1e-6)
        assert found["images"] == run.progress.images == 90


@pytest.mark.parametrize("kind", ["plain", "mixed"])
def test_all_processes_hold_the_same_bits(results, kind):
    """With batch norm, dropout, EMA, accumulation, augmentation and mixup, each drawn apart."""
    assert results[0][kind]["print"] == results[1][kind]["print"]


def test_scores_of_shared_images_are_those_of_all(results):
    run, job = make_run(ALONE, random=False), make_job(ALONE, 8, random=False)
    alone = job.scorer(run.model).score(job.data.val)
    assert results[0]["scores"] == results[1]["scores"] == pytest.approx(alone, abs=1e-12)


def test_a_resume_at_any_step_gives_the_same_bits_in_all_processes(results):
    for result in results[:2]:
        assert len(result["resumed"]) > 1
        assert set(result["resumed"]) == {results[0]["mixed"]["print"]}


def test_a_signal_to_one_process_stops_all_at_the_same_step(results):
    assert results[0]["stop"] == results[1]["stop"] == {"signum": 15, "step": 3, "saves": 1}


def test_the_time_of_one_process_is_over_for_all(results):
    assert results[0]["time"] == results[1]["time"] == 1


def test_a_save_that_is_due_for_one_process_is_made_by_all(results):
    assert results[0]["saves"] == results[1]["saves"]
    assert results[0]["saves"][0] == 1  # behind the first step, they tell each other for the first time


def test_a_loss_that_is_not_finite_in_one_process_ends_all(results):
    assert results[0]["nan"] == results[1]["nan"] == "step 1"


def test_a_fault_of_one_process_ends_the_others_and_is_told_once(results):
    fault = results[2]
    assert fault["error"].startswith("another process of this run has ended or cannot be reached (")
    assert fault["error"].endswith("); its own message says why")
    assert not fault["told"]


def test_flags_go_round_twice_a_second_and_at_the_same_steps_everywhere(monkeypatch):
    """Two processes of unequal speed; all agree on the steps of the slower one."""
    now, told = 0.0, []

    class Pair(World):
        def most(self, *numbers):
            told.append(step)
            return [max(mine, other) for mine, other in zip(numbers, [1, 255 - int(0.5 / 0.02)], strict=True)]

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    flags, heard = Flags(Pair(0, 2)), []
    for step in range(1, 101):  # noqa: B007
        now += 0.01
        heard.append(flags.most(0))
    assert told == [1, 26, 51, 76]
    assert [number for number, (flag,) in enumerate(heard, 1) if flag] == told
    now += 30
    assert Flags(Pair(0, 2)).most(0) == [1]
    assert Flags(ALONE).most(0, 7) == [0, 7]


# ---- what each of them is given -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_are_those_of_array_split(size):
    for count in range(12):
        parts = [range(count)[slice(*World(rank, size).part(count))] for rank in range(size)]
        assert [list(part) for part in parts] == [part.tolist() for part in np.array_split(np.arange(count), size)]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("train", [True, False])
def test_every_image_of_a_micro_batch_goes_to_one_process(size, train):
    whole = digits(43, 4 * size, ALONE, train)
    parts = [digits(43, 4, World(rank, size), train) for rank in range(size)]
    for epoch in range(2):
        expected = list(whole.batches(epoch, 1))
        found = list(zip(*(part.batches(epoch, 1) for part in parts), strict=True))
        assert len(found) == len(parts[0]) - 1 <= len(expected)
        for batches, whole_batch in zip(found, expected, strict=False):
            for key in ("images", "labels", "indices"):
                assert torch.cat([getattr(batch, key) for batch in batches]).equal(getattr(whole_batch, key))
            assert {batch.total for batch in batches} == {whole_batch.total} == {len(whole_batch.labels)}
            assert not train or min(len(batch.labels) for batch in batches) > 1
    assert sum(len(labels) for part in parts for _, labels, *_ in part.batches()) == parts[0].images


@pytest.mark.parametrize("kind", [LoaderKind.stream, LoaderKind.memory])
def test_files_are_shared_out_as_images_in_memory_are(tmp_path, kind):
    """Each process decodes its own part; a batch size that is left to us fits the part too."""
    for index in range(18):
        folder = tmp_path / ("ab"[index % 2])
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * index, np.uint8)).save(folder / f"{index:02}.png")

    def data(world, **settings):
        settings = {"batch_size": 3, "val": 4, "image_size": 8, "workers": 1, "loader": kind} | settings
        chosen = DataSettings(name="imagefolder", root=str(tmp_path), mean=[0.5], std=[0.5], **settings)
        return build_data(chosen, AugmentSettings(), seed=0, device=CPU, say=list, world=world)

    whole, parts = data(ALONE, batch_size=6).train, [data(World(rank, 2)) for rank in range(2)]
    for batches, wanted in zip(
        zip(*(part.train.batches(1) for part in parts), strict=True), whole.batches(1), strict=False
    ):
        assert torch.cat([batch.images for batch in batches]).equal(wanted.images)
    assert parts[0].train.images == 12
    assert "train: 2 images are left out per epoch (too few for all processes)" in parts[0].notes
    assert [data(World(0, size), batch_size=None, limit=14).batch_size for size in (1, 2)] == [4, 4]
    with pytest.raises(DataError, match=r"2 images; it takes 2 or more for each of 2 processes to train"):
        data(World(0, 2), limit=2)


def test_a_part_of_the_images_is_shared_too_and_what_is_in_order_is_not():
    parts = [digits(43, 4, World(rank, 2)) for rank in range(2)]
    chosen = torch.arange(5, 40)
    found = [torch.cat([batch.labels for batch in part.subset(chosen).batches()]) for part in parts]
    assert sum(map(len, found)) == 35
    assert torch.cat(found).sort()[0].equal(parts[0].labels[chosen].sort()[0])
    for part in parts:
        ordered = part.in_order()
        assert (ordered.batch_size, ordered.images, len(ordered)) == (4, 43, 11)
        assert torch.cat([labels for _, labels, *_ in ordered.batches()]).equal(part.labels)


def test_an_epoch_leaves_out_a_last_micro_batch_that_is_too_small_for_all_processes():
    assert [images_in_epoch(images, 8, 2) for images in (8, 9, 10, 11, 12, 16)] == [8, 8, 8, 8, 12, 16]
    assert [images_in_epoch(images, 2, 2) for images in (8, 9, 10)] == [8, 8, 10]
    assert images_in_epoch(3, 8, 2) == 0
    plan = EpochPlan(21, batch_size=8, image_size=8, epochs=2, accumulate=2, processes=2)
    assert (plan.batches(0), plan.steps(0)) == (3, 2)
    assert [batch.total for batch in digits(21, 4, World(0, 2)).batches(1)] == [8, 8, 5]


def test_each_process_draws_numbers_of_its_own():
    def draws(rank):
        context = BatchContext(CPU, 3, 1, 2, image_size=8, indices=torch.arange(4), rank=rank)
        return [*torch.rand(3, generator=context.generator).tolist(), *context.host.random(3)]

    assert len({number for rank in range(3) for number in draws(rank)}) == 18
    context = BatchContext(CPU, 3, 1, 2, image_size=8, indices=torch.arange(4))
    assert draws(0)[:3] == torch.rand(3, generator=context.generator).tolist()


# ---- who is who -----------------------------------------------------------------------------------------------------


def test_the_environment_says_which_process_this_is(started, monkeypatch):
    assert World.here() is ALONE
    started(1, 2)
    assert World.here() == World(1, 2, 1, 2)
    assert not World.here().is_first
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ConfigError, match=r"^RANK: must be a whole number from 0 to 1 \(given 'one' in the env"):
        World.here()
    monkeypatch.delenv("MASTER_PORT")
    assert World.here() is ALONE
    started(0, 1)
    assert World.here() is ALONE


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("RANK", "x", "must be a whole number from 0 to 1 (given 'x' in the environment); start the processes with"),
        ("RANK", "5", "must be a whole number from 0 to 1 (given '5' in"),  # whom the others would wait for in vain
        ("LOCAL_RANK", "2", "must be a whole number from 0 to 1 (given '2' in"),
        ("WORLD_SIZE", "0", "must be a whole number from 1 to 99999 (given '0' in"),
        ("WORLD_SIZE", "9" * 5000, "must be a whole number from 1 to 99999 (given '9999"),
        ("LOCAL_WORLD_SIZE", "", "must be a whole number from 1 to 99999 (given '' in"),
        ("MASTER_PORT", "abc", "must be a whole number from 1 to 65535 (given 'abc' in"),
        ("MASTER_PORT", "99999", "must be a whole number from 1 to 65535 (given '99999' in"),
        ("MASTER_ADDR", " ", "is empty in the environment; start"),
    ],
)
def test_what_a_launcher_cannot_have_said_is_one_line_and_code_2(started, monkeypatch, capsys, name, value, rule):
    started(1, 2)
    monkeypatch.setenv(name, value)
    assert cli.main(["trainer.epochs=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cnntrain: error: {name}: {rule}")


TASK = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "2"}
STEP = {"SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_TASKS_PER_NODE": "4,2,1", "SLURM_STEP_NODELIST": "gpu-[07-08,11],big3"}


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("SLURM_STEP_NUM_TASKS", "x", "a whole number from 1 to 99999 (given 'x' in the environment); start the proc"),
        ("SLURM_PROCID", "x", "a whole number from 0 to 6 (given 'x' in the env"),
        ("SLURM_LOCALID", "7", "a whole number from 0 to 6 (given '7' in the env"),
        ("SLURM_STEP_TASKS_PER_NODE", "0,0", "a whole number from 1 to 99999 (given '0' in the env"),
        ("MASTER_PORT", "x", "a whole number from 1 to 65535 (given 'x' in the env"),
    ],
)
def test_what_slurm_cannot_have_said_is_told_by_the_name_of_its_variable(monkeypatch, capsys, name, value, rule):
    for key, text in (TASK | STEP | {name: value}).items():
        monkeypatch.setenv(key, text)
    assert cli.main(["trainer.epochs=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cnntrain: error: {name}: must be {rule}")


@pytest.mark.parametrize(
    ("env", "world", "place"),
    [
        (TASK | STEP, World(5, 7, 1, 2), "gpu-07:23256"),
        (TASK | STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}, World(5, 7, 1, 2), "gpu-07:23256"),
        (TASK | STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x1000000000)"}, World(5, 7, 1, 2), "gpu-07:23256"),
        (TASK | STEP | {"SLURM_NODEID": "\u00b2"}, World(5, 7, 1, 7), "127.0.0.1:23256"),
        (TASK | STEP | {"SLURM_STEP_NODELIST": "big3,gpu-[1-2]"}, World(5, 7, 1, 2), "big3:23256"),
        (TASK | STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "99"}, World(5, 7, 1, 2), "10.0.0.1:99"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"}, World(1, 2, 1, 2), "127.0.0.1:15000"),
        # srun starts one task; sbatch has one shell, whatever it was given; salloc's shell is none of its tasks.
        (TASK | STEP | {"SLURM_STEP_NUM_TASKS": "1"}, ALONE, ""),
        (TASK | {"SLURM_NTASKS": "7", "SLURM_TASKS_PER_NODE": "7"}, ALONE, ""),
        ({"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "7"}, ALONE, ""),
    ],
)
def test_srun_says_which_process_this_is(monkeypatch, env, world, place):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert World.here() == world
    if place:
        found = slurm.variables(os.environ)
        assert f"{found['MASTER_ADDR']}:{found['MASTER_PORT']}" == place


def test_torchrun_comes_before_srun(started, monkeypatch):
    for name, value in (TASK | STEP).items():
        monkeypatch.setenv(name, value)
    started(1, 2)
    assert World.here() == World(1, 2, 1, 2)
