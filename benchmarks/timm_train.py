"""An epoch of photos with validation, by cnntrain and by timm's train.py: processor seconds of whole commands, in turn.

    python benchmarks/timm_train.py script=train.py data=DIR [rounds=1] [batch=64] [size=128]

train.py is not in timm's package: take it out of its repository, at the version that is installed. DIR holds train/
and val/ with a folder for each class. Both train ResNet-18 from scratch with random resized crops, flips and SGD, in as
many threads, and score all of val/ at the end; timm gets one worker process, which decodes beside the training as our
threads do. Processor seconds are those of the process and its children, so that other work disturbs them less.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

WORDS = dict(word.split("=", 1) for word in sys.argv[1:])
THREADS = os.environ.get("OMP_NUM_THREADS", "1")


def run(line: list[str], folder: str) -> tuple[float, float]:
    """Processor seconds and seconds of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run([sys.executable, *line], cwd=folder, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(line)}\n{ended.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - start


def main() -> None:
    data, script = os.path.abspath(WORDS["data"]), os.path.abspath(WORDS["script"])
    batch, size = WORDS.get("batch", "64"), WORDS.get("size", "128")
    classes = len(next(os.walk(os.path.join(data, "train")))[1])
    ours = ["-m", "cnntrain", "model=resnet18", "model.stem=imagenet", "data=imagefolder", f"data.root={data}"]
    ours += [f"data.image_size={size}", f"data.batch_size={batch}", "trainer.epochs=1", f"trainer.threads={THREADS}"]
    ours += ["trainer.device=cpu", "augment=[resized_crop,hflip]", "trainer.probe=0", "data.workers=1"]
    theirs = [script, "--data-dir", data, "--model", "resnet18", "--num-classes", str(classes), "--img-size", size]
    theirs += ["--batch-size", batch, "--epochs", "1", "--warmup-epochs", "0", "--device", "cpu", "--workers", "1"]
    theirs += ["--color-jitter", "0", "--lr", "0.05", "--channels-last", "--checkpoint-hist", "1", "--output", "timm"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(int(WORDS.get("rounds", 1))):
            row = {"cnntrain": run([*ours, f"out=ours{turn}"], folder), "timm": run(theirs, folder)}
            rows.append(row)
            for name, (spent, seconds) in row.items():
                print(f"round {turn + 1}, {name}: {spent:.1f} processor seconds, {seconds:.1f} s", flush=True)
    ratios = [row["timm"][0] / row["cnntrain"][0] for row in rows]
    print(f"timm / cnntrain: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
