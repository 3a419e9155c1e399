"""Two stages of gpu.py: what compiling a network costs and brings, and what repeatable algorithms cost."""

import contextlib
import io
import signal
import time
from unittest import mock

from gpu_tools import CIFAR, LITTLE, NET, RUNS, TINY, built, command, each, wait

SMALL_NET = "model=lenet5" if TINY else "model=airbench"
MODES = ("false", "true", "reduce-overhead")
STEPS = 3 if TINY else 30


def per_second(images, step):
    """Images/s of a step, repeated when it is warm."""
    for _ in range(4):
        step()
    wait()
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    wait()
    return round(STEPS * images / (time.perf_counter() - begin))


def pace(line):
    """A config on one batch: seconds of its first step; images/s of the loop's step, the bare step and validation."""
    from torch._dynamo.utils import counters

    from cnntrain.runtime.precision import autocast
    from cnntrain.training import loop

    with contextlib.redirect_stdout(io.StringIO()):
        counters.clear()
        job, run = built(f"{line} trainer.epochs=100")
        batch = next(job.loader(0).batches())
        inputs = job.augment(batch.images, job.context(0, 0, batch.indices))
        run.start_epoch()

        def step():
            loop.train_step(run, job, [batch], batch.total)
            run.progress.step, run.progress.batch = 1, 0

        def bare():
            with autocast(run.precision, run.device):
                loss = job.loss(run.forward(inputs), batch.labels)
            run.scaler.scale(loss / batch.total).backward()
            run.scaler.step(run.optimizer)
            run.scaler.update()
            run.optimizer.zero_grad(set_to_none=True)

        begin = time.perf_counter()
        step()
        wait()
        found = {"first step s": round(time.perf_counter() - begin, 1)}
        found |= {"loop": per_second(batch.total, step), "bare": per_second(batch.total, bare)}
        begin = time.perf_counter()
        loop.validate(run, job, job.data.val)
        found["first validation s"] = round(time.perf_counter() - begin, 1)
        begin = time.perf_counter()
        loop.validate(run, job, job.data.val)
        skipped = counters["inductor"]["cudagraph_skips"]
        found |= {"graphs": counters["stats"]["unique_graphs"], "skipped by CUDA graphs": skipped}
        return found | {"validation": round(job.data.val.images / (time.perf_counter() - begin))}


def stopped(line):
    """A run that is stopped in its 8th step and resumed, beside an unbroken one: the same bits?"""
    from cnntrain.training import loop

    name = f"compiled-{abs(hash(line)) % 10**6}"
    whole = command(line, name=f"{name}-whole")
    with mock.patch.object(loop, "asked_for", side_effect=[*[0] * 7, signal.SIGTERM, *[0] * 999]):
        cut = command(line, name=f"{name}-cut")
    on = command(f"resume {RUNS}/{name}-cut", name=f"{name}-cut")
    same = whole.get("weights_sha256") == on.get("weights_sha256") is not None
    return {"exits": [whole["exit"], cut["exit"], on["exit"]], "same bits": same, "last": whole["last"] + on["last"]}


def compiled():
    """trainer.compile: each mode beside the plain network, and whether a compiled run is resumed with the same bits."""
    small = f"{SMALL_NET} {CIFAR} data.limit=4000 data.batch_size=1024"
    large = f"{NET} {CIFAR} data.limit=4000 data.batch_size=512"
    short = f"{SMALL_NET} {LITTLE} data.batch_size=250 trainer.epochs=2 trainer.compile=reduce-overhead seed=1"
    each("compiled", {f"small {mode}": f"{small} trainer.compile={mode}" for mode in MODES}, pace)
    each("compiled", {"resumed": f"{short} trainer.accumulate=2 trainer.ema=0.9"}, stopped)
    slow = {f"large {mode}": f"{large} trainer.compile={mode}" for mode in (MODES[::2] if not TINY else MODES[:1])}
    if not TINY:
        slow["small max-autotune"] = f"{small} trainer.compile=max-autotune"
    return each("compiled", slow, pace)


def repeatable():
    """trainer.deterministic: what it costs, and whether each family and augmentation can be trained with it."""
    large = f"{CIFAR} data.limit=4000 data.batch_size=512"
    paced = ("lenet5",) if TINY else ("airbench", "resnet9", "resnet18")
    answers = ("false", "true")
    paces = {
        f"{net} {fixed}": f"model={net} {large} trainer.deterministic={fixed}" for net in paced for fixed in answers
    }
    nets = [
        "alexnet",
        "vgg11_bn",
        "inception_v1",
        "inception_v4",
        "densenet121",
        "efficientnet_b0",
        "xception",
        "nasnet",
    ]
    short = f"{LITTLE} data.batch_size=32 trainer.max_steps=2 trainer.deterministic=true"
    cases = {net: f"model={net} {short}" for net in nets if not TINY}
    every = "[flip_crop,randaugment,color_jitter,blur,equalize,autocontrast,random_erasing,mixup,cutmix]"
    cases["all augmentations"] = f"{NET} {short} augment={every}"
    cases["jsd"] = f"{NET} {short} augment=[flip_crop,augmix] augment.augmix.jsd=12"
    return each("repeatable", paces, pace) | each("repeatable", cases, command)
