"""A stage of gpu.py: what augmentation launches and costs beside a step of ResNet-18."""

import time

from gpu_tools import CIFAR, DEVICE, NET, TINY, built, each, wait

ROUNDS = 2 if TINY else 20


def _timed(work):
    """Launches on the device, milliseconds until the host is through, and until the device is; after three warm-ups."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    for turn in range(3):
        work(turn)
    wait()
    start = time.perf_counter()
    for turn in range(ROUNDS):
        work(turn)
    host = time.perf_counter() - start
    wait()
    whole = time.perf_counter() - start
    kind = ProfilerActivity.CPU if DEVICE == "cpu" else ProfilerActivity.CUDA
    with profile(activities=[kind]) as watched:
        work(0)
        wait()
    device = DeviceType.CPU if DEVICE == "cpu" else DeviceType.CUDA
    spent = [event for event in watched.events() if event.device_type == device]
    busy = sum(event.time_range.elapsed_us() for event in spent) / 1e3
    return {
        "launches": len(spent),
        "ms on the host": round(host / ROUNDS * 1e3, 2),
        "ms": round(whole / ROUNDS * 1e3, 2),
        "ms of kernels": round(busy, 2),
    }


def _case(line):
    """Augmentation and mixing of one batch again and again; of the recipe the whole step and the loss too."""
    from cnntrain.training import loop

    job, run = built(line)
    batch = next(job.loader(0).batches())
    run.start_epoch()

    def prepare(turn):
        context = job.context(0, turn, batch.indices)
        inputs = job.augment(batch.images, context)
        return job.mix(inputs, batch.labels, context) if job.mix else inputs

    def step(turn):
        loop.train_step(run, job, [batch], batch.total)

    found = {f"augment, {key}": value for key, value in _timed(prepare).items()}
    return found | {f"step, {key}": value for key, value in _timed(step).items()}


def augmented():
    """Launches and milliseconds of augmentation, and of the whole step with it."""
    size = f"data.limit={80 if TINY else 2000} data.batch_size={16 if TINY else 512} trainer.tensorboard=false"
    line = f"{NET} {CIFAR} {size} trainer.log_every=1000000"
    pieces = {
        "none": "none",
        "recipe": "for_cifar10",
        "mixup": "[flip_crop,mixup,cutmix]",
        "randaugment": "[flip_crop,randaugment]",
        "trivialaugment": "[flip_crop,trivialaugment]",
        "color_jitter": "[flip_crop,color_jitter]",
        "augmix": "[flip_crop,augmix]",
    }
    return each("augmented", {name: f"{line} augment={words}" for name, words in pieces.items()}, _case)
