"""What a folder of a million files costs until the first step: listed anew, and by its kept list.

    python benchmarks/index.py [files=1300000] [classes=1000] [folder=DIR]

Makes class folders of hard links to one small image each, and trains one step on them in processes of their own, as
`cnntrain train` does. Prints seconds to find the files, processor seconds of the process, and its peak of memory above
that of the same run on 2,000 files.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

RUN = ["train", "data=imagefolder", "data.image_size=32", "data.loader=stream", "data.val=100", "model=lenet5"]
RUN += ["trainer.max_steps=1", "trainer.tensorboard=false", "trainer.report=false", "data.workers=1"]
SETTLED = 3600  # seconds since when the folders are unchanged: the list of one that has just changed is not kept


def make(root: Path, files: int, classes: int) -> None:
    """A folder of class folders, of so many files in all."""
    from PIL import Image

    past = time.time() - SETTLED
    for number in range(classes):
        folder = root / f"n{number:08d}"
        folder.mkdir(parents=True)
        first = folder / f"n{number:08d}_0.JPEG"
        Image.new("RGB", (8, 8), (number % 256, number // 256 * 60 % 256, 99)).save(first)
        for index in range(1, files // classes):
            os.link(first, folder / f"n{number:08d}_{index}.JPEG")
        os.utime(folder, (past, past))
    os.utime(root, (past, past))


def train(words: list[str]) -> None:
    """One command in this process, and what it cost, as JSON on the last line."""
    from cnntrain import cli

    build_folder: Any = import_module("cnntrain.data.build_folder")
    seconds = []
    find = build_folder.find_source

    def timed(*args):
        start = time.perf_counter()
        found = find(*args)
        seconds.append(time.perf_counter() - start)
        return found

    build_folder.find_source = timed
    code = cli.main(words)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print()
    print(json.dumps({"find": sum(seconds), "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1e3}))
    sys.exit(code)


def measure(words: list[str], cache: Path) -> dict[str, float]:
    """The cost of one command in a process of its own."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--", *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Make the folders, measure, and remove them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    given = dict(word.split("=", 1) for word in parser.parse_args().words)
    files, classes = int(given.get("files", 1_300_000)), int(given.get("classes", 1000))
    home = Path(tempfile.mkdtemp(dir=given.get("folder")))
    try:
        make(home / "few", 2 * classes, classes)
        make(home / "many", files, classes)
        rows = [("2 files a class", home / "few", ["train", "few"])]
        rows += [
            (f"{files:,} files, {how}", home / "many", [how, name]) for how, name in (("listed", "a"), ("kept", "b"))
        ]
        base = 0.0
        for title, root, (_, name) in rows:
            cost = measure([*RUN, f"data.root={root}", f"out={home / name}"], home / "cache")
            base = base or cost["peak"]
            tell(title, cost, base)
        for title, words in (("resume", ["trainer.max_steps=2"]), ("eval", [])):
            tell(f"{files:,} files, {title}", measure([title, str(home / "b"), *words], home / "cache"), base)
    finally:
        shutil.rmtree(home)


def tell(title: str, cost: dict[str, float], base: float) -> None:
    """One line."""
    print(f"{title:32} found in {cost['find']:5.2f} s  cpu {cost['cpu']:5.1f} s  peak +{cost['peak'] - base:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        train(sys.argv[2:])
    main()
