"""Several processes take the steps of one: same batches, same gradients, the same bits in all of them."""

import copy
import json
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from cnntrain import checkpoint, cli, loop, optim
from cnntrain import device as machine
from cnntrain.augment.mix import Mix
from cnntrain.augment.moment import Moment
from cnntrain.data.loaders import MemoryLoader
from cnntrain.distributed import ALONE, World, joined, tells
from cnntrain.errors import ConfigError, DataError, Interrupted, NonFiniteError, ResourceError
from cnntrain.losses import Loss
from cnntrain.plan import Plan, images_in_epoch
from cnntrain.run import Ema, Run
from cnntrain.settings.augment import AugmentSettings
from cnntrain.settings.optimizer import SgdSettings
from cnntrain.settings.pieces import MixupSettings
from cnntrain.settings.schedule import CosineSettings
from cnntrain.settings.trainer import Precision, TrainerSettings

CPU = torch.device("cpu")
PROCESSES = 2
SGD = SgdSettings(lr=0.1, weight_decay=1e-3, lr_base_batch=None, momentum=0.9, nesterov=True)


def environment(rank: int, size: int, port: int = 29500) -> dict[str, str]:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    return {name: str(value) for name, value in places.items()} | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def started(monkeypatch):
    """As if this process were one of several."""

    def start(rank, size):
        for name, value in environment(rank, size).items():
            monkeypatch.setenv(name, value)

    return start


# ---- runs of a tiny network, in one process or in several -----------------------------------------------------------


def digits(images, batch_size, world, train=True):
    found = load_digits()
    pixels = torch.tensor(found.images[:images, None] * 15, dtype=torch.uint8)
    labels = torch.tensor(found.target[:images])
    return MemoryLoader(pixels, labels, batch_size=batch_size, device=CPU, seed=1, train=train, world=world)


def make_run(world, *, random, seed=0):
    torch.manual_seed(seed)
    layers = [nn.BatchNorm2d(4), nn.Dropout(0.2)] if random else []
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))
    machine.seed_streams(7, world.rank)
    return Run(
        model=model,
        optimizer=optim.build_optimizer(SGD, model, SGD.lr, CPU),
        scaler=machine.grad_scaler(Precision.fp32, CPU),
        device=CPU,
        precision=Precision.fp32,
        seed=3,
        ema=Ema(model, 0.9),
        world=world,
    )


def make_task(world, batch_size, *, random, images=45, saved=None, stop=None, **trainer):
    trainer = TrainerSettings(**({"epochs": 2, "log_every": 2, "save_every": 1, "accumulate": 2} | trainer))
    sizes = {"batch_size": batch_size * world.size, "image_size": 8, "epochs": trainer.epochs}
    plan = Plan(images, **sizes, accumulate=trainer.accumulate, processes=world.size)

    def augment(given, moment):
        shift = torch.rand(len(given), 1, 1, 1, generator=moment.generator) if random else 0.0
        return given.float() / 255 + shift * 0.1

    def none(*given):
        pass

    report = types.SimpleNamespace(start_epoch=none, advance=none, step=none, validating=none, epoch=none, say=none)
    return loop.Task(
        train=digits(images, batch_size, world),
        val=digits(21, batch_size, world, train=False),
        probe=None,
        plan=plan,
        rates=optim.Rates(0.1, SGD, CosineSettings(), plan),
        augment=augment,
        mix=Mix(AugmentSettings(mixup=MixupSettings()), 10) if random else None,
        loss=Loss(label_smoothing=0.1),
        normalise=lambda given: given.float() / 255,
        trainer=trainer,
        schedule=CosineSettings(),
        aux_weight=0.0,
        drops=[],
        save=lambda state, best: saved.append(copy.deepcopy(state)) if saved is not None else None,
        report=report,
        stop=stop or types.SimpleNamespace(requested=False, signum=None),
    )


def prints(run):
    return checkpoint.fingerprint({"model": run.model.state_dict(), "ema": run.ema.state()})


def check_sums(world):
    tensors = [torch.full((2, 3), 1.0 + world.rank), torch.arange(3) * world.rank, torch.tensor(0.5)]
    world.sum_(tensors)
    means = [torch.tensor([float(world.rank)]), torch.tensor(2.0)]
    world.mean_(means)
    with world.in_turn():
        turn = time.monotonic()
    return {
        "sums": [tensor.tolist() for tensor in tensors],
        "means": [mean.tolist() for mean in means],
        "most": world.most(world.rank, 1 - world.rank, 0),
        "share": world.share({"rank": world.rank}),
        "gather": world.gather(world.rank),
        "turn": turn,
    }


def check_training(world, random, **trainer):
    saved = []
    run, task = make_run(world, random=random), make_task(world, 4, random=random, saved=saved, **trainer)
    ended = loop.train(run, task)
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    return {"ended": ended, "print": prints(run), "weights": weights, "progress": run.state()["progress"]}, saved


def check_resume(world, saved):
    """The prints of runs that go on from the state after each step; of two at its end, so that all the way counts."""
    found = []
    for state in saved[1:-1:3]:
        run = make_run(world, random=True, seed=99)
        run.restore(world.share(state))
        loop.train(run, make_task(world, 4, random=True))
        found.append(prints(run))
    return found


def check_stop(world):
    """Only the second process hears of the signal, while it works on the third step."""
    stop = types.SimpleNamespace(requested=False, signum=15)
    saved = []
    run, task = make_run(world, random=True), make_task(world, 4, random=True, saved=saved, stop=stop, save_every=99)

    def advance(images):
        stop.requested = world.rank == 1 and run.progress.step == 2

    task.report.advance = advance
    try:
        loop.train(run, task)
    except Interrupted as error:
        return {"signum": error.signum, "step": saved[-1]["progress"]["step"], "saves": len(saved)}
    return {}


def check_time(world):
    """Only the second process's clock is over."""
    limit = {"max_time": "0.0001s"} if world.rank == 1 else {}
    return check_training(world, False, **limit)[0]["progress"]["step"]


def check_nan(world):
    """Only the second process's images are broken."""
    run, task = make_run(world, random=False), make_task(world, 4, random=False)
    if world.rank == 1:
        task.augment = lambda given, moment: given.float() * float("nan")
    try:
        loop.train(run, task)
    except NonFiniteError as error:
        return str(error).partition(":")[0]


def check_fault(world):
    """One process fails for itself: last, as the others are left behind."""
    run, task = make_run(world, random=False), make_task(world, 4, random=False)
    if world.rank == 1:

        def augment(given, moment):
            raise DataError("one file is bad")

        task.augment = augment
    try:
        loop.train(run, task)
    except (DataError, ResourceError) as error:
        told = tells(error)
        if world.rank == 1:
            os._exit(0)  # as a process ends, without a word to the others
        return {"error": str(error), "told": told}


def one_of_several(rank: int, port: int, folder: str) -> None:
    """What each of the processes does, and leaves in a file."""
    os.environ |= environment(rank, PROCESSES, port)
    torch.set_num_threads(1)
    with joined("gloo") as world:
        plain, _ = check_training(world, False)
        mixed, saved = check_training(world, True)
        task = make_task(world, 4, random=False)
        model = make_run(world, random=False).model
        results = {
            "sums": check_sums(world),
            "plain": plain,
            "mixed": mixed,
            "scores": loop.evaluate(model, task.val, task.normalise, CPU, Precision.fp32, world=world),
            "resumed": check_resume(world, saved),
            "stop": check_stop(world),
            "time": check_time(world),
            "nan": check_nan(world),
        }
        torch.save(results, Path(folder) / f"{rank}.pt")
        if fault := check_fault(world):
            torch.save(fault, Path(folder) / "fault.pt")
        os._exit(0)


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
        assert found["means"] == [[0.5], 2.0]
        assert found["most"] == [1, 1, 0]
        assert found["share"] == {"rank": 0}
        assert found["gather"] == [0, 1]
        assert rank == 0 or found["turn"] > results[0]["sums"]["turn"]


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(results):
    run, task = make_run(ALONE, random=False), make_task(ALONE, 8, random=False)
    loop.train(run, task)
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
    run, task = make_run(ALONE, random=False), make_task(ALONE, 8, random=False)
    alone = loop.evaluate(run.model, task.val, task.normalise, CPU, Precision.fp32)
    assert results[0]["scores"] == results[1]["scores"] == pytest.approx(alone, abs=1e-12)


def test_a_resume_at_any_step_gives_the_same_bits_in_all_processes(results):
    for result in results[:2]:
        assert len(result["resumed"]) > 1
        assert set(result["resumed"]) == {results[0]["mixed"]["print"]}


def test_a_signal_to_one_process_stops_all_at_the_same_step(results):
    assert results[0]["stop"] == results[1]["stop"] == {"signum": 15, "step": 3, "saves": 1}


def test_the_time_of_one_process_is_over_for_all(results):
    assert results[0]["time"] == results[1]["time"] == 1


def test_a_loss_that_is_not_finite_in_one_process_ends_all(results):
    assert results[0]["nan"] == results[1]["nan"] == "step 1"


def test_a_fault_of_one_process_ends_the_others_and_is_told_once(results):
    fault = results[2]
    assert fault["error"].startswith("another process of this run has ended or cannot be reached (")
    assert fault["error"].endswith("); its own message says why")
    assert not fault["told"]


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
        expected = [(images, labels.tolist()) for images, labels in whole.batches(epoch, 1)]
        found = list(zip(*(part.batches(epoch, 1) for part in parts), strict=True))
        assert len(found) == len(parts[0]) - 1 <= len(expected)
        for number, (given, (images, labels)) in enumerate(zip(found, expected, strict=False), 1):
            assert torch.cat([one for one, _ in given]).equal(images)
            assert [label for _, some in given for label in some.tolist()] == labels
            rows = torch.cat([part.indices(epoch, number) for part in parts])
            assert rows.equal(whole.indices(epoch, number))
            assert not train or min(len(some) for _, some in given) > 1
    assert sum(len(labels) for part in parts for _, labels in part.batches()) == parts[0].images


def test_a_part_of_the_images_is_shared_too_and_what_is_in_order_is_not():
    parts = [digits(43, 4, World(rank, 2)) for rank in range(2)]
    chosen = torch.arange(5, 40)
    found = [torch.cat([labels for _, labels in part.part(chosen).batches()]) for part in parts]
    assert sum(map(len, found)) == 35
    assert torch.cat(found).sort()[0].equal(parts[0].labels[chosen].sort()[0])
    for part in parts:
        ordered = part.in_order()
        assert (ordered.batch_size, ordered.images, len(ordered)) == (4, 43, 11)
        assert torch.cat([labels for _, labels in ordered.batches()]).equal(part.labels)


def test_an_epoch_leaves_out_a_last_micro_batch_that_is_too_small_for_all_processes():
    assert [images_in_epoch(images, 8, 2) for images in (8, 9, 10, 11, 12, 16)] == [8, 8, 8, 8, 12, 16]
    assert [images_in_epoch(images, 2, 2) for images in (8, 9, 10)] == [8, 8, 10]
    assert images_in_epoch(3, 8, 2) == 0
    plan = Plan(21, batch_size=8, image_size=8, epochs=2, accumulate=2, processes=2)
    assert (plan.batches(0), plan.steps(0)) == (3, 2)
    assert [plan.images_in(1, batch, count) for batch, count in ((0, 1), (0, 2), (2, 1), (2, 2))] == [8, 16, 5, 5]


def test_each_process_draws_numbers_of_its_own():
    def draws(rank):
        moment = Moment(CPU, 3, 1, 2, image_size=8, indices=torch.arange(4), rank=rank)
        return [*torch.rand(3, generator=moment.generator).tolist(), *moment.host.random(3)]

    assert len({number for rank in range(3) for number in draws(rank)}) == 18
    moment = Moment(CPU, 3, 1, 2, image_size=8, indices=torch.arange(4))
    assert draws(0)[:3] == torch.rand(3, generator=moment.generator).tolist()


# ---- who is who -----------------------------------------------------------------------------------------------------


def test_the_environment_says_which_process_this_is(started, monkeypatch):
    assert World.here() is ALONE
    started(1, 2)
    assert World.here() == World(1, 2, 1, 2)
    assert not World.here().is_first
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ConfigError, match=r"RANK: 'one' in the environment is no whole number; start"):
        World.here()
    monkeypatch.delenv("MASTER_PORT")
    assert World.here() is ALONE
    started(0, 1)
    assert World.here() is ALONE


def test_processes_share_the_cores_and_the_memory_of_their_machine(started):
    cores, memory = machine.available_cores(), machine.free_memory(CPU)
    started(1, 2)
    assert machine.available_cores() == max(1, cores // 2)
    assert machine.free_memory(CPU) < memory * 0.75


def test_a_single_device_is_refused_for_several_processes(started):
    assert machine.choose_device("cpu", World(1, 2, 1, 2)) == CPU
    for name in ("cuda:0", "mps"):
        with pytest.raises(ConfigError, match=rf"trainer.device: {name} is a single device, and 2 processes"):
            machine.choose_device(name, World(1, 2, 1, 2))


def test_each_process_takes_the_gpu_of_its_place(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert machine.choose_device("auto", World(3, 4, 1, 2)) == torch.device("cuda:1")
    assert chosen == [1]
    with pytest.raises(ConfigError, match=r"4 processes on this machine, and 2 CUDA device\(s\); start as many"):
        machine.choose_device("cuda", World(0, 4, 0, 4))


def test_other_commands_and_sweeps_want_one_process(started, capsys):
    started(0, 2)
    for command in ("eval", "check", "models", "summary"):
        assert cli.main([command, "run"]) == 2
        assert capsys.readouterr().err == (
            f"cnntrain: error: {command}: one process does this alone; start it without torchrun\n"
        )
    assert cli.main(["seed=1,2", "-m"]) == 2
    assert "several processes train one network" in capsys.readouterr().err


def test_a_fault_of_the_command_line_is_told_once_on_each_machine(started, capsys):
    for rank, lines in ((0, 1), (1, 0)):
        started(rank, 2)
        assert cli.main(["data.batch_sze=3"]) == 2
        assert capsys.readouterr().err.count("did you mean data.batch_size?") == lines


# ---- whole runs -----------------------------------------------------------------------------------------------------

QUICK = ["data.limit=300", "data.batch_size=16", "trainer.epochs=3", "trainer.device=cpu", "trainer.tensorboard=false"]


def launch(here, *words, size=PROCESSES):
    """Start processes as a user does; in a session of their own, so that all can be ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command += ["-m", "cnntrain", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=here, **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finish(process):
    """Its exit code, and what our processes have said on stdout and stderr; torchrun's own words are left out."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, [line for line in err.splitlines() if line.startswith("cnntrain: ")]


def outcome(folder):
    return json.loads((folder / "results.json").read_text())
