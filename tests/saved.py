"""Run folders with checkpoints, for tests of what becomes of them."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from states import whole
from torch import nn

from cnntrain.storage import checkpoint, manifest


def state_at(step: int, run_id: str = "run") -> dict[str, Any]:
    """The state of a small net after `step` steps of SGD with momentum."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(step):
        optimizer.zero_grad()
        net(torch.randn(8, 1, 4, 4)).square().mean().backward()
        optimizer.step()
    return whole(
        model=net.state_dict(),
        optimizer=optimizer.state_dict(),
        progress={"step": step, "epoch": step // 2, "best_top1": 0.5},
        about={"run_id": run_id},
    )


def run_folder(home: Path) -> Path:
    """The folder of a run with `last` at step 2, `previous` at step 1 and no `best`."""
    folder = home / "run"
    folder.mkdir()
    (folder / "environment.json").write_text('{"run_id": "run"}')
    checkpoint.save(folder, state_at(1))
    checkpoint.save(folder, state_at(2))
    return folder


def newest_step(run: Path) -> tuple[int, list[str]]:
    """The step of the newest whole checkpoint, and the warnings on the way."""
    lines: list[str] = []
    found = checkpoint.newest(run, lines.append)
    assert found is not None
    return found[1]["progress"]["step"], lines


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def reseal(folder: Path) -> None:
    """Give a folder a manifest that fits its state file, as a forger would."""
    data = (folder / "state.pt").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    manifest.write(folder, run_id="run", step=2, epoch=1, size=len(data), sha256=digest)
