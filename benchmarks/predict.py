"""What `cnntrain predict` costs beside the network and the decoding, in turn, in one process.

    python benchmarks/predict.py [rounds=3] [images=2000] [cnntrain overrides]

The overrides train a network for one step: which classes it finds does not matter here. Three ways to the classes of
the same JPEG files, those of `data.root`:

- predict: `cnntrain predict RUN images=[...] out=FILE.csv` from the call to the written file.
- loop: what one would write by hand: the network is loaded, the same threads decode, and of each micro-batch the five
  best classes are kept.
- network: that loop without loading and decoding, over the same micro-batches, which lie in memory.

Printed are images/s (medians of the rounds) and the shares of both limits (medians of the ratios): by the clock,
and by the processor time of all threads, which other work on the machine changes less.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor

from cnntrain import cli
from cnntrain.commands import predict
from cnntrain.config.schema.run_commands import PredictArgs
from cnntrain.data.unlabelled import FileDecoder, find_files, stream
from cnntrain.runtime import device as machine
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.reporter import Silence
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job


def loop(job: Job, batches: Iterable[Tensor]) -> None:
    """Find the five best classes of uint8 batches (N, C, S, S)."""
    found = []
    job.model.eval()
    with torch.no_grad():
        for images in batches:
            with autocast(job.precision, job.device):
                logits = job.model(job.normalize(images.to(job.device)))
            found.append(logits.float().softmax(1).topk(min(5, len(job.data.classes))))
    torch.cat([one.values for one in found]).cpu()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    start = time.perf_counter(), time.process_time()
    with redirect_stdout(StringIO()):
        work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    words = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith(("rounds=", "images=")))
    rounds, count = int(words.get("rounds", 3)), int(words.get("images", 2000))
    overrides = [word for word in sys.argv[1:] if not word.startswith(("rounds=", "images="))]
    with tempfile.TemporaryDirectory() as home:
        run = Path(home) / "run"
        with redirect_stdout(StringIO()):
            assert cli.main([*overrides, "trainer.max_steps=1", "trainer.tensorboard=false", f"out={run}"]) == 0
        _, _, job = load_job(run, [], Silence(), images=False)
        data, settings = job.data, job.settings.data
        paths, _ = find_files([Path(settings.root)])
        files = tuple(paths[index] for index in range(min(count, len(paths))))
        args = PredictArgs(run=run, images=files, out=(Path(home) / "all.csv",))
        decoder = FileDecoder(find_files(files)[0], data.view(data.eval_size), data.channels, settings.on_bad_image)
        loader = stream(decoder, data.batch_size, settings, job.device)
        ready = [batch.images for batch in loader.batches()]
        loop(job, ready[:3])
        ways: dict[str, Callable[[], object]] = {
            "predict": lambda: predict.run(args),
            "loop": lambda: loop(
                load_job(run, [], Silence(), images=False)[2], (batch.images for batch in loader.batches())
            ),
            "network": lambda: loop(job, ready),
        }
        rows = []
        for turn in range(rounds):
            order = list(ways)[:: -1 if turn % 2 else 1]
            rows.append({way: timed(ways[way]) for way in order})
            rates = "  ".join(f"{way} {len(files) / rows[-1][way][0]:,.1f}" for way in ways)
            print(f"round {turn + 1}: {rates} images/s", flush=True)
    print(
        f"{job.settings.model.heading}, {data.eval_size} px, {len(files):,} files, batch {data.batch_size}, "
        f"{machine.describe_device(job.device)}, {job.precision.value}, torch {torch.__version__}"
    )
    for way in ways:
        print(f"{way}: {len(files) / statistics.median(row[way][0] for row in rows):,.1f} images/s")
    for way in ("loop", "network"):
        for number, clock in enumerate(("the clock", "processor time")):
            shares = [row[way][number] / row["predict"][number] for row in rows]
            spread = f"{statistics.median(shares):.1%} (from {min(shares):.1%} to {max(shares):.1%})"
            print(f"share of the {way} by {clock}: {spread}")


if __name__ == "__main__":
    main()
