"""Stages of gpu.py on several processes: what one GPU can tell of NCCL, and two processes that share it over gloo."""

import os
import statistics
import sys
import time
import warnings
from unittest import mock

from gpu_tools import DEVICE, HERE, LITTLE, NET, ON, RUNS, TINY, built, each, outcome, wait

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def nccl():
    """Our exchange over NCCL with one process: devices, dtypes, objects; what torch's wrapper adds to a step."""
    import torch
    import torch.distributed as dist

    from cnntrain.runtime import device as machine
    from cnntrain.runtime.world import ALONE, World

    backend, place = machine.exchange_backend("cuda:0" if DEVICE == "cuda" else DEVICE, False, ALONE)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        start = time.perf_counter()
        dist.init_process_group(backend, rank=0, world_size=1, device_id=place)
        joined = time.perf_counter() - start
        world = World(0, 2, 0, 1)  # says two, so that nothing is skipped: the sums are those of one
        tensors = [
            torch.randn(64, 3, 7, 7, device=DEVICE).to(memory_format=torch.channels_last),
            torch.randn(10, device=DEVICE),
            torch.ones(3, dtype=torch.int64, device=DEVICE),
        ]
        before = [t.clone() for t in tensors]
        world.sum_(tensors)
        world.copy_(tensors)
        objects, flags = world.share({"a": 1}), []
        for _ in range(200):
            start = time.perf_counter()
            world.most(0, 0)
            flags.append(time.perf_counter() - start)
        steps = _steps(world)
        dist.destroy_process_group()
    return {
        "backend": backend,
        "seconds to join": round(joined, 2),
        "sums kept": all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True)),
        "objects": str(objects),
        "us per flag": round(statistics.median(flags) * 1e6),
        "ms per step": steps,
        "warned": sorted({str(w.message)[:120] for w in told}),
    }


def _steps(world):
    """Milliseconds of a step on one batch in memory: bare, and exchanged with one process in each form."""
    import torch
    from torch.nn.modules._functions import SyncBatchNorm

    from cnntrain.config.schema.trainer import GradExchange
    from cnntrain.runtime.precision import autocast
    from cnntrain.training.exchange import Exchange

    job, run = built(f"{NET} {LITTLE} data.batch_size={32 if TINY else 512}")
    batch = next(job.loader(0).batches())
    inputs = job.augment(batch.images, job.context(0, 0, batch.indices))
    model = run.model.train()

    def step(forward, exchange):
        with exchange.micro_batch(is_last=True):
            with autocast(run.precision, run.device):
                loss = job.loss(forward(inputs), batch.labels)
            (loss / len(batch.labels)).backward()
        exchange.average_norms()
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)

    def synchronized(norm, given):
        group = torch.distributed.group.WORLD
        numbers = (norm.running_mean, norm.running_var, norm.eps, norm.momentum)
        return SyncBatchNorm.apply(given, norm.weight, norm.bias, *numbers, group, 1)

    found = {}
    cases = {"bare": None, "fp32": GradExchange.fp32, "bf16": GradExchange.bf16, "fp32, sync_bn": GradExchange.fp32}
    for name, form in cases.items():
        if "sync_bn" in name:
            if DEVICE == "cpu":
                continue
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        exchange = Exchange(world if form else job.world, form or GradExchange.fp32)
        forward, times = exchange.wrap(model), []
        with mock.patch.object(torch.nn.SyncBatchNorm, "forward", synchronized):  # as if others were there
            for turn in range(5 if TINY else 40):
                wait()
                start = time.perf_counter()
                step(forward, exchange)
                wait()
                times += [time.perf_counter() - start] if turn > 1 else []
        if exchange._wrapper:
            exchange._wrapper._remove_autograd_hooks()
        found[name] = round(statistics.median(times) * 1e3, 3)
    return found


def ranks():
    """Two processes on one GPU: over gloo they train, with batch norms over both; over NCCL they are told apart."""
    short = f"{NET} {LITTLE} {ON} trainer.epochs=1 trainer.max_steps=12 trainer.probe=0"
    script, sync = str(HERE / "gpu_ranks.py"), "" if DEVICE == "cpu" else "model.sync_bn=true"
    cases = {
        "fp32": f"gloo {short} trainer.deterministic=true",
        "fp32 again": f"gloo {short} trainer.deterministic=true",
        "bf16, sync_bn" if sync else "bf16": f"gloo {short} trainer.grad_exchange=bf16 {sync}",
        "one GPU for two over nccl" if sync else "own launcher": f"plain {short} trainer.devices=2",
    }

    def run(line):
        kind, *words = line.split()
        folder = RUNS / f"ranks-{abs(hash(line)) % 10**6}-{time.time():.0f}"
        own = [sys.executable, "-m", "cnntrain"] if kind == "plain" else [*TORCHRUN, script]
        start = time.perf_counter()
        ended = outcome(*own, *words, f"hydra.run.dir={folder}")
        results = folder / "results.json"
        text = results.read_text() if results.exists() else ""
        told = [line for line in ended.stderr.splitlines() if line.startswith("cnntrain: error")]
        print_of = text.partition('"weights_sha256": "')[2][:12]
        return {
            "exit": ended.returncode,
            "seconds": round(time.perf_counter() - start, 1),
            "told": told,
            "bits": print_of,
        }

    return each("ranks", cases, run)


if __name__ == "__main__":  # one of the processes of `ranks`
    from cnntrain import cli
    from cnntrain.runtime import device

    def over_gloo(name, world):
        device.choose_device(name, world)
        return "gloo", None

    with mock.patch.object(device, "exchange_backend", over_gloo):
        sys.exit(cli.main(sys.argv[1:]))
