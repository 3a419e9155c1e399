"""What help, lists and config faults cost beside a bare Hydra app that does nothing and imports no torch.

    python benchmarks/startup.py [runs=7]

Each is a whole process, the bare app and ours in turn; printed are the medians and the median of the pairs' ratios.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    pass

main()
"""
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


def main() -> None:
    runs = int(dict(word.split("=") for word in sys.argv[1:]).get("runs", 7))
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        for line in LINES:
            pairs = [
                (seconds(["-m", "cnntrain", *line.split()]), seconds([str(bare), "--help"])) for _ in range(runs + 1)
            ][1:]  # the first pair warms the file cache
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(our / their for our, their in pairs)
            print(f"{ours:.3f} s, bare app {theirs:.3f} s, ratio {ratio:.2f}: cnntrain {line}")


if __name__ == "__main__":
    main()
