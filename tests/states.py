"""A state of the form that checkpoints have, for tests of what becomes of the files."""

import random
from typing import Any

import torch


def whole(**parts: Any) -> dict[str, Any]:
    """A state with some parts given, and the others as small as can be; of `about`, what is given is joined."""
    version, numbers, gauss = random.Random(0).getstate()
    progress = {"epoch": 0, "batch": 0, "step": 0, "seconds": 0.0, "best_epoch": 0, **parts.pop("progress", {})}
    window = {"sums": [0.0, 0.0, 0.0], "images": 0}
    about = {"run_id": "run", "config": {}, "classes": ["cat", "dög"], "channels": 1, "image_size": 4}
    about |= {"mean": [0.5], "std": [0.5], "data_fingerprint": "0", **parts.pop("about", {})}
    state: dict[str, Any] = {
        "model": {},
        "ema": None,
        "optimizer": {"state": {}, "param_groups": []},
        "scaler": {},
        "progress": progress,
        "plateau": {"factor": 1.0, "best": 1.0, "waited": 0},
        "windows": {"epoch": window, "log": window},
        "rng": {"python": [version, list(numbers), gauss], "torch": torch.get_rng_state()},
    }
    return {**state, **parts, "about": about}
