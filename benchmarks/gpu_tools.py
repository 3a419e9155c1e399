"""What the stages of gpu.py share: the words of its command line, what is known so far, and ways to run cnntrain."""

import contextlib
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEMP = Path(tempfile.gettempdir())
KEPT = TEMP / "cnntrain-gpu.json"
WORDS = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word and not word.startswith("-"))
DEVICE, TINY = WORDS.get("device", "cuda"), WORDS.get("tiny") == "true"
DATA = WORDS.get("data", "data")
OUT = Path(WORDS.get("out") or os.environ.get("OUT") or TEMP / "cnntrain-gpu")
RUNS = TEMP / "cnntrain-gpu-runs"
ON = f"trainer.device={DEVICE}"
CIFAR = f"data=cifar10 data.root={DATA} {ON}"
LITTLE = f"{CIFAR} data.limit={512 if TINY else 4000} trainer.tensorboard=false"
NET = "model=lenet5" if TINY else "model=resnet18"
ANTS = f"data=imagefolder data.root={DATA}/hymenoptera {ON}"
LITE0 = f"model=timm model.name=tf_efficientnet_lite0 model.weights={DATA}/weights/tf_efficientnet_lite0.safetensors"


def save_part(name, value):
    """What is known so far, on disk at once, in both places."""
    known = all_kept() | {name: value}
    for file in (KEPT, OUT / "gpu.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".tmp")
        aside.write_text(json.dumps(known, indent=1))
        aside.replace(file)


def all_kept():
    """What this and earlier calls have found, by stage."""
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


def kept(name):
    """What they have found of a stage."""
    return {key: value for key, value in all_kept().get(name, {}).items() if key != "fault"}


def each(stage, cases, work):
    """What `work` finds in each case, on disk after each of them; cases that are there already are not run again."""
    found = kept(stage)
    for name, line in cases.items():
        if name in found:
            continue
        start = time.perf_counter()
        try:
            found[name] = work(line) | {"took": round(time.perf_counter() - start, 1)}
        except Exception as error:
            found[name] = {"error": repr(error)[:200]}
        save_part(stage, found)
    return found


def command(line, name=None):
    """Run a command line of cnntrain in this process: exit code, seconds, what it said last, results.json."""
    from cnntrain.cli import main

    folder = RUNS / (name or hashlib.sha256(line.encode()).hexdigest()[:8])
    said, start = io.StringIO(), time.perf_counter()
    words = line.split()
    place = [] if words[0] == "resume" else [f"hydra.run.dir={folder}"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([*words, *place])
    results = folder / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    measures = ("images_per_second", "train_seconds", "peak_memory_bytes", "weights_sha256")
    keep = {key: found[key] for key in measures if key in found}
    last = [line for line in said.getvalue().splitlines() if line.strip()][-1:] if code else []
    warned = [line for line in said.getvalue().splitlines() if "warning" in line.lower()][:3]
    top1 = {split: found[split]["top1"] for split in ("val", "test") if found.get(split)}
    seconds = round(time.perf_counter() - start, 1)
    return {"exit": code, "seconds": seconds, **top1, **keep, "last": last, "warned": warned}


def outcome(*words):
    """A command in a process of its own, run from the repository."""
    return subprocess.run(words, cwd=HERE.parent, capture_output=True, text=True)


def fresh(line):
    """A command line of cnntrain in a process of its own: exit code, seconds, what it said last."""
    start = time.perf_counter()
    ended = outcome(sys.executable, "-m", "cnntrain", *line.split())
    seconds = round(time.perf_counter() - start, 1)
    return {"exit": ended.returncode, "seconds": seconds, "last": ended.stderr.splitlines()[-1:]}


def wait():
    """Until the device has done all that was asked of it."""
    import torch

    if DEVICE.startswith("cuda"):
        torch.cuda.synchronize()


def quiet():
    """A report that nobody reads."""
    from rich.console import Console

    from cnntrain.report.run_report import Report

    return Report(None, tensorboard=False, console=Console(quiet=True))


def spread(values):
    """Mean, standard deviation and count."""
    off = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 4), "sd": round(off, 4), "runs": len(values)}


def built(line):
    """Job and run of a config."""
    from cnntrain.config.compose import compose_settings
    from cnntrain.report.run_report import Report
    from cnntrain.training.build import build_state, build_train_job

    with contextlib.redirect_stdout(io.StringIO()):
        report = Report(None, tensorboard=False)
        job = build_train_job(compose_settings(line.split()), report, splits=("train", "val"))
        return job, build_state(job)


def share(line, rounds=3, steps=20):
    """`cnntrain bench` in this process: of each part images/s, share of the bare step (of all rounds) and launches."""
    from cnntrain.cli import main

    file, said = RUNS / "bench.json", io.StringIO()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    words = [f"rounds={1 if TINY else rounds}", f"steps={3 if TINY else steps}", f"out={file}"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["bench", *line.split(), *words])
    if code:
        return {"exit": code, "last": said.getvalue().splitlines()[-2:]}
    found = json.loads(file.read_text())
    parts = {
        rung["name"]: {
            "images/s": round(rung["images_per_second"]),
            "shares": [round(value, 3) for value in rung["shares"]],
            "launches": rung.get("launches", rung.get("operations")),
        }
        for rung in found["rungs"]
    }
    rest = {"share": round(found["share"], 3), "idle": found["device_idle"], "advice": found["advice"]}
    return parts | rest | {"save ms": round(1e3 * found["save_seconds"], 1)}
