"""A state in plain containers: what a checkpoint may hold, its values, and the digest of them."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


def _detached(tensor: torch.Tensor, place: str) -> torch.Tensor:
    return tensor.detach()


def plain(value: Any, place: str, copy: Callable[[torch.Tensor, str], torch.Tensor] = _detached) -> Any:
    """A copy in plain containers; exact types, as a NumPy float is a float that pickles as code.

    Args:
        place: of the value, such as `state.model`.
        copy: what to take for a tensor at a place.

    Raises:
        TypeError: it holds anything else, named by its place.
    """
    if type(value) in (str, int, float, bool, type(None)):
        return value
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return copy(value, place)
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        return {key: plain(part, f"{place}.{key}", copy) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(part, f"{place}.{i}", copy) for i, part in enumerate(value))
    raise TypeError(f"{place}: a checkpoint holds plain containers and tensors, not {type(value).__name__}")


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """All values that are no containers, each with its dotted place."""
    if not isinstance(value, (dict, list, tuple)):
        yield place, value
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield from leaves(part, f"{place}.{key}" if place else str(key))


def fingerprint(state: dict[str, Any]) -> str:
    """sha256 over names, dtypes, shapes and bytes of all tensors (and over other values): equal only if each bit is.

    Takes a module's `state_dict()` or any nested plain state; the device and the memory layout make no difference.
    """
    digest = hashlib.sha256()
    for place, leaf in sorted(leaves(plain(state, "state")), key=lambda item: item[0]):
        if isinstance(leaf, torch.Tensor):
            digest.update(f"{place} {leaf.dtype} {tuple(leaf.shape)}\n".encode())
            raw = leaf.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(raw.data)
        else:
            digest.update(f"{place} {leaf!r}\n".encode())
    return digest.hexdigest()
