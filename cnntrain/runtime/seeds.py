"""Random numbers: seeds, generators of one purpose each, and the state of the global ones."""

import hashlib
import random
from typing import Any

import torch


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several whole numbers; neighbouring inputs give unrelated seeds."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: torch.device, *parts: int) -> torch.Generator:
    """A random generator on `device` that depends on `parts` and on nothing else."""
    return torch.Generator(device).manual_seed(mix_seed(*parts))


def seed_everything(seed: int) -> None:
    """Seed the global generators: initial weights, dropout."""
    random.seed(seed)
    torch.manual_seed(seed)


def seed_streams(*parts: int) -> None:
    """Seed the global generators alone, from whole numbers."""
    random.seed(mix_seed(*parts))
    torch.manual_seed(mix_seed(*parts))


def rng_state(device: torch.device) -> dict[str, Any]:
    """The global generators as plain containers and tensors."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(numbers), gauss], "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Set what `rng_state` saved; a device other than the saved one keeps its own stream."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
