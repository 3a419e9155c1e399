"""A training on shards that is killed at any moment and resumed shows each sample once in an epoch."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import cnntrain

SAMPLES = [f"{number:04d}.png" for number in range(48)]  # that shard_kills.py writes


def killed(folder: Path, kills: int, epochs: int, save_every: int) -> dict[str, Any]:
    """What shard_kills.py found."""
    root = str(Path(cnntrain.__file__).parent.parent)
    program = Path(__file__).parents[1] / "shard_kills.py"
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    # Python 3.12 warns of forks where a library keeps threads; these threads are idle.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(program), str(folder)]
    numbers = [str(number) for number in (kills, epochs, save_every)]
    done = subprocess.run(
        [*command, *numbers], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "epochs", "save_every"), [(1, 4, 5), (50, 150, 7)])
def test_kills_and_resumes_show_no_sample_twice_and_lose_none(tmp_path, kills, epochs, save_every):
    found = killed(tmp_path, kills, epochs, save_every)
    whole, rows = found["whole"]["rows"], found["killed"]["rows"]
    assert len(found["killed"]["kills"]) == kills
    assert sum(steps > 0 for steps in found["killed"]["kills"]) >= kills / 2  # killed while it trained
    shown: dict[int, dict[str, Any]] = {}
    for row in rows:  # a step after the last save is taken again, with the same samples
        names = shown.setdefault(row["step"], row)["names"]
        assert row["names"] == names, row
    assert sorted(shown) == list(range(12 * epochs))
    assert len(rows) - len(shown) <= kills * save_every
    for epoch in range(epochs):
        names = Counter(name for row in shown.values() if row["epoch"] == epoch for name in row["names"])
        assert names == Counter(SAMPLES), epoch
    assert [shown[row["step"]]["names"] for row in whole] == [row["names"] for row in whole]
    assert found["killed"]["weights"] == found["whole"]["weights"]
