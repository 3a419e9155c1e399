"""Whole runs of two processes, started by torchrun as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import free_port

from cnntrain import cli
from cnntrain.storage import checkpoint

pytestmark = pytest.mark.slow

QUICK = ["model=resnet20", "data.limit=300", "data.batch_size=16", "trainer.epochs=3", "trainer.device=cpu"]
QUICK += ["trainer.tensorboard=false", "trainer.log_every=2", "trainer.ema=0.9", "trainer.accumulate=2"]
RANDOM = ["model.drop_path=0.2", "augment=[flip_crop,mixup]"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def start(*words, restarts=0, count=2):
    script = [str(Path(__file__).parents[1] / "trained_apart.py"), "."]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    torchrun += [f"--max-restarts={restarts}"]
    line, env = [*torchrun, *script, *words], os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """What it said on stdout, and our own lines on stderr: torchrun's fill a screen."""
    out, err = process.communicate(timeout=300)
    print(err)  # for a test that fails
    return out.splitlines(), [line for line in err.splitlines() if line.startswith("cnntrain: ")]


def run(*words):
    """A run that ends well; what the first process said."""
    process = start(*words)
    out, told = finish(process)
    assert (process.returncode, [line for line in told if "is there twice" not in line]) == (0, [])
    ranks = [Path(f"rank{rank}").read_text() for rank in range(2)]
    assert ranks[0] == ranks[1]  # the same bits in both processes
    return out


def outcome(folder):
    return json.loads((Path(folder) / "results.json").read_text())


def started(process, line):
    """Wait until a line that begins so is there."""
    for said in process.stdout:
        if said.startswith(line):
            return


def test_the_first_process_draws_what_both_have_seen(here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    run(*QUICK, "trainer.tensorboard=true", "trainer.epochs=1", "hydra.run.dir=run")
    events, results = EventAccumulator("run", size_guidance={"tensors": 0}), outcome("run")
    events.Reload()
    images = results["images"]["test"]
    (curve,) = events.Tensors("pr_test/(all, micro mean)")
    assert tensor_util.make_ndarray(curve.tensor_proto)[0, 0] == images
    (text,) = events.Tensors("test/error_files/text_summary")
    wrong = round(images * (1 - results["test"]["top1"]))
    assert text.tensor_proto.string_val[0].count(b"\n") == 1 + min(24, wrong)
    assert len(events.Images("live/network")) == 1
    assert len(list(Path("run").glob("events.*"))) == 1


def test_two_processes_are_stopped_killed_and_resumed_with_the_bits_of_a_run_that_was_not(here):
    assert any(
        "15 steps of 16 x 2 images x 2 processes" in line for line in run(*QUICK, *RANDOM, "hydra.run.dir=whole")
    )

    stopped = start(*QUICK, *RANDOM, "hydra.run.dir=stopped")
    started(stopped, "epoch 1/3")
    stopped.send_signal(signal.SIGTERM)
    _, told = finish(stopped)
    assert told == ["cnntrain: stopped and saved; go on with cnntrain resume stopped"]
    assert outcome("stopped")["status"] == "interrupted"

    resumed = start("resume", "stopped")
    started(resumed, "resumed at step")
    os.kill(children(resumed)[-1], signal.SIGKILL)
    _, told = finish(resumed)
    # The process that is left misses the other one, or torchrun ends it first, at whatever it is doing.
    assert len(told) <= 1
    assert all(line.startswith(("cnntrain: error: another process of this run", "cnntrain: stopped")) for line in told)

    out = run("resume", "stopped")
    assert not any("processes:" in line for line in out)
    assert outcome("stopped")["weights_sha256"] == outcome("whole")["weights_sha256"]
    environment = json.loads(Path("stopped/environment.json").read_text())
    assert environment["processes"] == 2


@pytest.mark.parametrize("killed", [0, 1])
def test_torchrun_starts_a_run_again_that_has_lost_a_process_and_it_ends_with_the_same_bits(here, killed):
    words = [*QUICK, *RANDOM, "trainer.save_every=4"]
    run(*words, "hydra.run.dir=whole")
    process = start(*words, restarts=1)
    started(process, "epoch 2/3")
    os.kill(children(process)[killed], signal.SIGKILL)
    out, told = finish(process)
    assert process.returncode == 0, told
    assert any(line.startswith("resumed at step") for line in out)
    (folder,) = Path("outputs").glob("*/*/*")
    assert outcome(folder)["weights_sha256"] == outcome("whole")["weights_sha256"]


def children(process):
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.parametrize("killed", [0, 3])
def test_four_processes_less_one_end_soon_with_code_7_and_the_checkpoint_is_whole(here, killed):
    """Started by a Slurm that does not end the others: they must miss the lost one by themselves."""
    words = [*QUICK, "model=lenet5", "data.batch_size=8", "trainer.epochs=500", "trainer.save_every=5", "out=run"]
    place = {"SLURM_NTASKS": "4", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "cnntrain", *words]
    processes = [
        subprocess.Popen(
            line,
            env=os.environ | place | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    started(processes[0], "epoch   2/500")
    processes[killed].kill()
    begin = time.monotonic()
    codes = [process.wait(timeout=30) for process in processes]
    assert time.monotonic() - begin < 15
    assert codes == [-9 if rank == killed else 7 for rank in range(4)]
    told = "".join(process.communicate()[1] for process in processes)
    # Once, and again by the second process where it cannot know what the first one, gone with the store, has told.
    assert told.count("cnntrain: error: another process of this run has ended") in (1, 2)
    found = checkpoint.newest(Path("run"), pytest.fail)
    assert found is not None
    before = found[1]["progress"]["step"]
    assert cli.main(["resume", "run", f"trainer.max_steps={before + 3}", "trainer.threads=1"]) == 0


def test_a_run_goes_on_with_another_number_of_processes(here, capsys):
    run(*QUICK, "trainer.max_steps=7", "hydra.run.dir=run")
    assert cli.main(["resume", "run", "trainer.max_steps=9"]) == 0
    said = capsys.readouterr().out
    assert "changed: processes: 2 -> 1" in said
    assert "epoch 2 starts anew, as the images of its steps have changed" in said
    assert outcome("run")["ended"] == "max_steps"


@pytest.fixture
def pretrained(here):
    words = ["trainer.epochs=1", "trainer.threads=1", "hydra.run.dir=pre"]
    assert cli.main([*QUICK, *words]) == 0
    return ["model.weights=pre", "model.new_head=true"]


MODES = {
    "A, features cached": ["finetune=A", "trainer.ema=null"],
    "A, images": ["finetune=A", "augment=flip_crop"],
    "B, recalibrated": ["finetune=B", "finetune.norm=recalibrate", "trainer.epochs=1"],
    "C, unfreezing": ["finetune=C", "finetune.unfreeze=[2,3]", "augment=[flip_crop,mixup]"],
}


def test_every_mode_of_fine_tuning_works_with_two_processes(pretrained):
    for number, words in enumerate(MODES.values()):
        out = run(*QUICK, *pretrained, *words, f"hydra.run.dir=run{number}")
        assert any(line.startswith("trainable ") for line in out)
    assert any("stages.1 learns from now on" in line for line in out)


def test_gradual_unfreezing_resumes_with_the_same_bits(pretrained):
    words = [*QUICK, *pretrained, *MODES["C, unfreezing"]]
    run(*words, "hydra.run.dir=whole")
    stopped = start(*words, "hydra.run.dir=stopped")
    started(stopped, "epoch 2/3")
    stopped.send_signal(signal.SIGTERM)
    finish(stopped)
    run("resume", "stopped")
    assert outcome("stopped")["weights_sha256"] == outcome("whole")["weights_sha256"]


def test_faults_are_told_in_one_line_and_end_all_processes(here):
    begin = time.monotonic()
    for words, line in (
        (["data.batch_sze=3"], "cnntrain: error: data.batch_sze: no such key (given 3); did you mean data.batch_size?"),
        (["model=no_such_net"], "cnntrain: error: model"),
        (["trainer.max_steps=3", "optimizer.lr=1e30"], "cnntrain: error: step "),
        (["eval", "run"], "cnntrain: error: eval: one process does this alone; start it without torchrun"),
    ):
        process = start(*([*QUICK, *words] if words[0] != "eval" else words))
        _, told = finish(process)
        assert process.returncode != 0
        (told,) = (text for text in told if "is there twice" not in text)
        assert told.startswith(line)
    assert time.monotonic() - begin < 120


def test_a_compiled_run_of_two_processes_is_resumed_with_the_bits_of_one_that_was_not_stopped(here):
    words = [*QUICK, "model=cnn", "trainer.compile=true", "trainer.probe=0"]
    run(*words, "out=whole")
    process = start(*words, "out=cut")
    started(process, "epoch 1/3")
    process.send_signal(signal.SIGTERM)
    finish(process)
    run("resume", "cut")
    assert outcome("cut")["weights_sha256"] == outcome("whole")["weights_sha256"]
