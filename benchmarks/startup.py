"""What it takes to start: help and faults beside a bare Hydra app without torch, the first step beside importing torch.

    python benchmarks/startup.py [runs=7]

Each is a process of its own, the peer and ours in turn; printed are the medians and the median of the pairs' ratios.
The first step of `cnntrain` is done when its row stands in metrics.csv, the whole of it when the process has ended;
importing torch and hydra is what no program in its place can do without.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

BARE = """
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    pass

main()
"""
IMPORTS = "import torch, hydra"
LINES = (
    "--help",
    "--version",
    "models",
    "trainer.epoch=50",
    "trainer.epoch=5 optimizer.lr=fast model=resnet81 data.batch_sze=3 trainer.precision=half",
)


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=False)
    return time.perf_counter() - start


def first_step(folder: Path) -> tuple[float, float]:
    """Seconds until the first step of the bare command is done, and until the process has ended after it."""
    words = ["trainer.max_steps=1", "trainer.log_every=1", f"out={folder}"]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "cnntrain", *words], stdout=subprocess.DEVNULL)
    rows = folder / "metrics.csv"
    while process.poll() is None and not (rows.exists() and "\nstep," in rows.read_text()):
        time.sleep(0.002)
    step = time.perf_counter() - start
    process.wait()
    return step, time.perf_counter() - start


def compare(name: str, pairs: Sequence[tuple[float, float]], peer: str) -> None:
    """Print our times beside the peer's; the first pair warms the file cache, and counts for nothing."""
    ours, theirs = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    ratio = statistics.median(our / their for our, their in pairs[1:])
    print(f"{ours:.3f} s, {peer} {theirs:.3f} s, ratio {ratio:.2f}: {name}", flush=True)


def main() -> None:
    runs = int(dict(word.split("=") for word in sys.argv[1:]).get("runs", 7))
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        for line in LINES:
            pairs = [
                (seconds(["-m", "cnntrain", *line.split()]), seconds([str(bare), "--help"])) for _ in range(runs + 1)
            ]
            compare(f"cnntrain {line}", pairs, "bare app")
        starts = [(*first_step(Path(folder) / str(run)), seconds(["-c", IMPORTS])) for run in range(runs + 1)]
    compare("the first step of cnntrain", [(step, peer) for step, _, peer in starts], IMPORTS)
    compare("cnntrain trainer.max_steps=1", [(whole, peer) for _, whole, peer in starts], IMPORTS)


if __name__ == "__main__":
    main()
