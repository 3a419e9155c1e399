"""benchmarks/gpu.py, tried on the CPU: a GPU is rarely at hand, and its minutes are few."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_gpu_program_runs_its_stages_and_goes_on_behind_those_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    words = ["device=cpu", "tiny=true", "only=env,equal,start", f"out={tmp_path / 'out'}"]

    def run(budget: int) -> str:
        line = [sys.executable, str(GPU), f"budget={budget}", *words]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    assert "equal: left out" in run(budget=9)
    assert "env:" not in run(budget=120).partition("{")[0]
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert {stage: "fault" in part for stage, part in found.items()} == {"env": False, "equal": False, "start": False}
    assert found["start"]["cpu"]["exit"] == 0
    assert max(part["most"] for part in found["equal"].values()) == 0
