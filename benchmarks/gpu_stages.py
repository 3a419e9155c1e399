"""What can only be known on a GPU, stage by stage: gpu.py runs each in a process of its own."""

import contextlib
import os
import signal
import statistics
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

from gpu_augment import augmented
from gpu_compile import compiled, repeatable
from gpu_data import decode, host
from gpu_ranks import nccl, ranks
from gpu_tools import (
    ANTS,
    CIFAR,
    DATA,
    DEVICE,
    LITE0,
    LITTLE,
    NET,
    ON,
    RUNS,
    TINY,
    WORDS,
    built,
    command,
    each,
    fresh,
    outcome,
    quiet,
    save_part,
    share,
    spread,
    wait,
)


def env():
    """The card, its driver and the software."""
    import torch

    ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm", "--format=csv,noheader"]
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpu": outcome(*ask).stdout.strip() if DEVICE != "cpu" else "",
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }


def smoke():
    """Does a short run end with code 0 in each precision and with each part that touches the device?"""
    net = f"{NET} {LITTLE} trainer.log_every=5"
    short = f"{net} trainer.max_steps=30"
    fp16 = f"{short} trainer.precision=fp16"
    cases = {precision: f"{short} trainer.precision={precision}" for precision in ("bf16", "fp32", "tf32", "fp16")}
    cases |= {
        "fp16 clip ema accumulate": f"{fp16} trainer.clip_norm=1 trainer.ema=0.9 trainer.accumulate=2",
        "fp16 adamw": f"{fp16} optimizer=adamw optimizer.lr=1e-3",
        "fp16 rmsprop": f"{fp16} optimizer=rmsprop optimizer.lr=1e-4",
        "airbench": f"model=airbench {LITTLE} trainer.max_steps=30",
        "all augmentations": f"{short} augment=[flip_crop,randaugment,color_jitter,blur,random_erasing,mixup,cutmix]",
        "jsd": f"{short} augment=[flip_crop,augmix] augment.augmix.jsd=12",
        "progressive": f"model=resnet20 {LITTLE} augment=[resized_crop,hflip,progressive] trainer.epochs=3",
        "tensorboard": f"{NET} {CIFAR} data.limit=512 trainer.max_steps=4",
        "lenet5 digits": f"model=lenet5 data=digits {ON} trainer.max_steps=200",
        "folder, decoded on the way": f"model=resnet18 {ANTS} trainer.max_steps=8",
    }
    if not TINY:
        cases["finetune C"] = f"finetune=C {LITE0} {ANTS} trainer.epochs=2"
        cases["finetune A, cached"] = f"finetune=A {LITE0} {ANTS} trainer.epochs=5"
    return each("smoke", cases, command)


def keys():
    """Does a short run end with code 0 with each key that changes what the device or the saves do?"""
    net = f"{'model=lenet5' if TINY else 'model=resnet20'} {LITTLE} trainer.log_every=5"
    short = f"{net} trainer.max_steps=24"
    fp16 = f"{short} trainer.precision=fp16 trainer.clip_norm=1 trainer.ema=0.9"
    cases = {
        "fp16 ema clip, saves": f"{fp16} trainer.save_every=6",
        "randaugment jitter mix": f"{short} augment=[flip_crop,randaugment,color_jitter,mixup,cutmix]",
        "micro_batch=auto": f"{short} trainer.micro_batch=auto trainer.accumulate=2",
        "muon": f"{short} optimizer=muon",
        "deterministic, profile": f"{net} trainer.epochs=2 trainer.deterministic=true trainer.profile=true",
        "max_time": f"{net} trainer.epochs=500 trainer.max_time=3s trainer.save_every=1s",
        "batch_size=auto": f"{short} data.batch_size=auto",
    }
    return each("keys", cases, command)


def sync():
    """Which lines of a training step make the host wait for the device? torch tells (set_sync_debug_mode)."""
    import torch

    from cnntrain.training import loop

    found = {}
    cases = {
        "recipe": "",
        "randaugment mix": "augment=[flip_crop,randaugment,mixup,cutmix]",
        "element": "augment=[flip_crop,mixup,cutmix] augment.mix.mode=element",
        "jitter blur erase": "augment=[resized_crop,alternating_flip,color_jitter,blur,random_erasing,cutout]",
        "fp16 clip": "trainer.precision=fp16 trainer.clip_norm=1 trainer.ema=0.9",
        "rmsprop fp16": "optimizer=rmsprop trainer.precision=fp16",
    }
    for name, words in cases.items():
        job, run = built(f"{NET} {LITTLE} {words}")
        batches = job.loader(0).batches()
        run.start_epoch()
        for turn in range(4):
            group = [next(batches)]
            if turn == 2 and DEVICE != "cpu":
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                run.progress.step = 1
                loop.train_step(run, job, group, group[0].total)
            if turn >= 2:
                found.setdefault(name, set()).update(
                    f"{Path(w.filename).name}:{w.lineno} {str(w.message)[:60]}" for w in told
                )
        if DEVICE != "cpu":
            torch.cuda.set_sync_debug_mode("default")
    return {name: sorted(lines) for name, lines in found.items()}


def shares():
    """What the loop keeps of the bare step, and what RandAugment costs."""
    photos = f"model=resnet50 {CIFAR} data.image_size=224 data.limit=1500 model.stem=imagenet trainer.probe=0"
    cases = {"resnet18 128": f"{NET} {LITTLE}"}
    if not TINY:
        cases |= {
            "resnet18 512": f"{NET} {LITTLE} data.batch_size=512",
            "resnet18 512 randaugment": f"{NET} {LITTLE} data.batch_size=512 augment=[flip_crop,randaugment]",
            "airbench 1024": f"model=airbench {CIFAR} data.batch_size=1024",
            "resnet20 128": f"model=resnet20 {LITTLE}",
            "lenet5 digits": f"model=lenet5 data=digits {ON} trainer.tensorboard=false",
            "resnet50 224 256": f"{photos} data.batch_size=256 augment=hflip",
            "resnet50 224 256 randaugment": f"{photos} data.batch_size=256 augment=[hflip,randaugment]",
        }
    return each("shares", cases, share)


def resume():
    """Do a stopped and resumed run and an unbroken one end with the same bits? With and without deterministic."""
    from cnntrain.training import loop

    found = {}
    for fixed in ("true", "false"):
        line = f"{NET} {LITTLE} trainer.epochs=4 trainer.deterministic={fixed} seed=1"
        whole = command(line, name=f"whole-{fixed}")
        again = command(line, name=f"again-{fixed}")
        answers = [*[0] * 7, signal.SIGTERM]  # as if it came in the 8th step
        with mock.patch.object(loop, "asked_for", side_effect=answers):
            cut = command(line, name=f"cut-{fixed}")
        on = command(f"resume {RUNS}/cut-{fixed}", name=f"cut-{fixed}")
        found[f"deterministic={fixed}"] = {
            "cut exit": cut["exit"],
            "resumed exit": on["exit"],
            "repeats": whole.get("weights_sha256") == again.get("weights_sha256") is not None,
            "same bits": whole.get("weights_sha256") == on.get("weights_sha256") is not None,
            "seconds": whole["seconds"],
        }
    return found


def recipe():
    """The headline: ResNet-18 on CIFAR-10 in as many seconds as are left for it."""
    data, epochs = (LITTLE, 1) if TINY else (CIFAR, int(WORDS.get("epochs", 30)))
    batch = 128 if TINY else 512
    cases = {
        f"{epochs} epochs of {batch}": f"{NET} {data} trainer.epochs={epochs} data.batch_size={batch}",
        "airbench 1024 x 10": f"model=airbench {data} trainer.epochs={1 if TINY else 10} data.batch_size=1024",
    }
    return each("recipe", cases, command)


def equal():
    """Policies draw on the host: the same draws must give the same bytes on either device."""
    import torch

    from cnntrain.augment.batch_context import BatchContext
    from cnntrain.augment.pieces import build_color
    from cnntrain.augment.policies import build_policies
    from cnntrain.config.compose import compose_settings

    found = {}
    images = torch.randint(
        256, (256, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).permute(0, 3, 1, 2)
    images = (
        torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1)
        .round()
        .to(torch.uint8)
        .contiguous(memory_format=torch.channels_last)
    )
    for name in (
        "randaugment",
        "trivialaugment",
        "autoaugment",
        "augmix",
        "color_jitter",
        "equalize",
        "autocontrast",
        "sharpness",
        "blur",
        "posterize",
        "solarize",
    ):
        settings = compose_settings(["data=digits", f"augment={name}"]).augment
        pieces = [*build_policies(settings), *build_color(settings, 3, 32)]
        ends = []
        for device in ("cpu", DEVICE):
            context = BatchContext(torch.device(device), 0, 0, 0, image_size=32, indices=torch.arange(256))
            result = images.to(device)
            for _, operation in pieces:
                result = operation(result, context)
            ends.append(result.cpu().int())
        off = (ends[0] - ends[1]).abs()
        found[name] = {"share of levels that differ": round((off > 0).float().mean().item(), 6), "most": int(off.max())}
    return found


def oom():
    """A batch that cannot fit: exit 7, one line. A full card: what is said then?"""
    large = "data.image_size=224 model.stem=imagenet data.limit=4000 data.batch_size=4000 trainer.max_steps=2"
    found = {} if TINY else {"huge batch": command(f"model=resnet50 {CIFAR} {large}")}
    if DEVICE != "cpu":
        import torch

        hold = torch.empty(int(torch.cuda.mem_get_info()[0] * 0.995), dtype=torch.uint8, device=DEVICE)
        found["full card"] = fresh(f"model=lenet5 data=digits trainer.max_steps=2 {ON} hydra.run.dir={RUNS}/full")
        del hold
    return found


def ladder():
    """`cnntrain bench` where the host's work counts most, the marks of phases against the clock, and a profile."""
    import csv

    cases = {
        "resnet18 512": f"{NET} {LITTLE}" + ("" if TINY else " data.batch_size=512"),
        "airbench": f"model=airbench {LITTLE} data.batch_size={16 if TINY else 1024}",
    }
    found = each("ladder", cases, share)
    line = f"{NET} {LITTLE} trainer.epochs=5 trainer.probe=0 trainer.profile=true"
    found["profile"] = command(f"{line} trainer.max_time=20s", name="profile")
    folder = RUNS / "profile"
    log = (folder / "train.log").read_text().splitlines()
    place = next((index for index, text in enumerate(log) if text.startswith("profile of a step")), len(log))
    found["profile"] |= {"list": log[place : place + 12], "trace": (folder / "trace.json.gz").exists()}
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "epoch"]
    found["phases"] = [{key: row[key] for key in row if key.startswith("seconds")} for row in rows]
    return found


def memory():
    """data.batch_size=auto and trainer.micro_batch=auto on a real card, and what torch says where it is full."""
    import torch

    from cnntrain.runtime.device_memory import memory_holders, peak_memory, release_memory
    from cnntrain.runtime.faults import fault_of
    from cnntrain.training import fit_batch
    from cnntrain.training.micro_batches import BatchTooLarge

    photos = f"model=resnet50 {LITTLE} data.image_size=224 model.stem=imagenet augment=hflip trainer.probe=0"
    job, _ = built(f"{'model=lenet5 ' + LITTLE if TINY else photos} data.limit=256")
    begin = time.perf_counter()
    size, words = fit_batch._find(job, 64 if TINY else 16384)
    seconds = time.perf_counter() - begin
    trial, tuned = fit_batch._Trial(job), list[object]()
    try:
        for _ in range(3):  # with cuDNN's search, which the run has
            trial.step(size)
            tuned.append(round(peak_memory(job.device) / 2**30, 1))
    except BatchTooLarge as error:
        tuned.append(str(error))
    del trial
    found: dict[str, object] = {}
    found["batch_size=auto"] = {"size": size, "words": words, "seconds": round(seconds, 1), "GiB": tuned}
    release_memory(job.device)
    if DEVICE == "cpu":
        return found
    del job
    release_memory(torch.device(DEVICE))
    found["left behind, GiB"] = round(torch.cuda.memory_reserved() / 2**30, 2)
    large = f"{photos} data.limit=4000 data.batch_size=3800 data.val=100 trainer.max_steps=1"
    found["micro_batch=auto"] = command(f"{large} trainer.micro_batch=auto")
    release_memory(torch.device(DEVICE))
    held, free, size = [], torch.cuda.mem_get_info()[0], 1 << 33
    small = torch.ones(64, 64, device=DEVICE), torch.ones(8, 3, 32, 32, device=DEVICE)
    while size > 1 << 20:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device=DEVICE))
        except RuntimeError as error:
            found["full card"] = {"said": f"{type(error).__name__}: {error}"[:400], "holders": memory_holders()}
            size //= 2
    for name, work in {
        "cuBLAS": lambda: small[0] @ small[0],
        "cuDNN": lambda: torch.nn.functional.conv2d(small[1], torch.ones(64, 3, 5, 5, device=DEVICE)),
        "generator": lambda: torch.randn(1 << 24, device=DEVICE),
    }.items():
        try:
            found[f"{name} on it"] = f"works, {tuple(work().shape)}"
        except RuntimeError as error:
            kind = fault.kind.value if (fault := fault_of(error)) else None
            found[f"{name} on it"] = {"said": f"{type(error).__name__}: {error}"[:300], "kind": kind}
    found["GiB held of those free"] = f"{sum(map(len, held)) / 2**30:.1f} of {free / 2**30:.1f}"
    return found


def start():
    """Seconds of the whole default command."""
    devices = dict.fromkeys((DEVICE, "cpu"))
    words = "trainer.max_steps=1 trainer.device"
    return {device: fresh(f"{words}={device} hydra.run.dir={RUNS}/start-{device}") for device in devices}


def tuning():
    """What cuDNN's search for the fastest kernels (benchmark=True) costs at first, and what it is worth later."""
    import torch

    from cnntrain.runtime.precision import autocast

    found = {}
    cases = {"resnet18 32 px": f"{NET} {LITTLE} data.batch_size=512"}
    if not TINY:
        cases["efficientnet_lite0 224 px"] = f"{LITE0} {ANTS} finetune=C"
    for name, line in cases.items():
        job, run = built(line)
        shape = (job.settings.data.batch_size or 16, job.data.channels, job.data.image_size, job.data.image_size)
        images = torch.randn(shape, device=DEVICE).contiguous(memory_format=torch.channels_last)
        for searches in (False, True):
            torch.backends.cudnn.benchmark = searches
            seconds = []
            for _ in range(25):
                wait()
                begin = time.perf_counter()
                with autocast(job.precision, run.device):
                    value = run.forward(images).logsumexp(1).mean()
                value.backward()
                run.optimizer.zero_grad(set_to_none=True)
                wait()
                seconds.append(time.perf_counter() - begin)
            ms = {"first ms": round(seconds[0] * 1e3), "later ms": round(statistics.median(seconds[5:]) * 1e3, 2)}
            found[f"{name}, search {'on' if searches else 'off'}"] = ms
    return found


def saves():
    """How long a save holds the training up: on its own thread, and beside it. Seven seconds a network."""
    from saves import measure

    turns = {"rounds": 1, "saves": 2, "steps": 1} if TINY else {"rounds": 1, "saves": 4, "steps": 30}
    cases = {"resnet18 512": f"{NET} {LITTLE} data.batch_size={64 if TINY else 512}"}
    if not TINY:
        cases["resnet50 256"] = f"model=resnet50 {LITTLE} data.batch_size=256"
    return each("saves", cases, lambda line: measure(line.split(), **turns))


def tests():
    """The fast tests where torch sees a GPU."""
    words = "-m pytest -q -n 14 -p no:cacheprovider -p no:benchmark"
    ended = outcome(sys.executable, *words.split())
    return {"exit": ended.returncode, "last": ended.stdout.splitlines()[-25:]}


def speedrun():
    """cifar10_94 over seeds, and beside it a script for the same files (race=SCRIPT): accuracy and seconds of training.

    Ours trains one network again and again, as that script does, so that compiling is paid once. words: seeds=10
    race_compile=reduce-overhead. The script is called with the folder of the images, the seeds and the mode, and its
    last line is JSON: {"top1": [...], "seconds": [...]}.
    """
    import json
    from dataclasses import replace

    import torch

    from cnntrain.config.compose import compose_settings
    from cnntrain.training import loop
    from cnntrain.training.build import build_state, build_train_job
    from cnntrain.training.tta import Views

    seeds, mode = int(WORDS.get("seeds", 1 if TINY else 10)), WORDS.get("race_compile", "reduce-overhead")
    line = f"experiment=cifar10_94 data.root={DATA} {ON} trainer.compile={'false' if DEVICE == 'cpu' else mode}"
    line += " data.limit=256 data.batch_size=64 trainer.epochs=1 model.args.widths=[8,16,16]" if TINY else ""
    network, rows = None, []
    for seed in range(-1, seeds):  # the first one warms up
        job = build_train_job(compose_settings([*line.split(), f"seed={seed + 1}"]), quiet(), splits=("train", "test"))
        network = network or job.model
        network.load_state_dict(job.model.state_dict())
        job = replace(job, model=network)
        with contextlib.ExitStack() as stack:
            if rows:  # what is compiled stays
                stack.enter_context(mock.patch.object(torch.compiler, "reset"))
            run = build_state(job)
        wait()
        start = time.perf_counter()
        loop.train(run, job)
        wait()
        trained = time.perf_counter()
        views = Views(["hflip"] if TINY else ["hflip", "shift"], 32)
        scorer = job.scorer(run.eval_part, views, forward=run.eval_forward if run.compiler else None)
        found = scorer.score(job.data.test)
        scored = time.perf_counter()
        rows.append((trained - start, scored - start, found["top1"], found["plain_top1"]))
    names = ("training, s", "with the views, s", "top1 of ten views", "top1")
    ours = {name: spread(values) for name, values in zip(names, zip(*rows[1:], strict=True), strict=True)}
    found = {"ours": ours | {"first run, s": round(rows[0][0], 2)}}
    save_part("speedrun", found)
    if Path(WORDS.get("race", "")).is_file() and not TINY:
        said = outcome(sys.executable, WORDS["race"], f"{DATA}/cifar-10-batches-py", str(seeds), mode)
        lines = said.stdout.splitlines() or [""]
        found["theirs"] = said.stderr[-300:]
        if said.returncode == 0:
            found["theirs"] = {key: spread(values) for key, values in json.loads(lines[-1]).items()}
            found["times theirs"] = round(ours["with the views, s"]["mean"] / found["theirs"]["seconds"]["mean"], 3)
    return found


# In this order, the most valuable first. Seconds that each took on an H200, kernels and caches cold.
STAGES = {env: 7, smoke: 200, keys: 40, sync: 23, shares: 75, recipe: 68, resume: 50, decode: 30, equal: 12, oom: 27}
STAGES |= {
    nccl: 15,
    memory: 60,
    ladder: 35,
    augmented: 25,
    start: 30,
    saves: 25,
    compiled: 120,
    repeatable: 60,
    tuning: 60,
}
STAGES |= {host: 12, ranks: 90, speedrun: 110, tests: 105}
