"""Tensors of one dtype as one: a single kernel or message costs nearly what each of many does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def flattened(tensors: Sequence["Tensor"]) -> "Tensor":
    """Their values one after the other, (total,)."""
    import torch

    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def write_back(flat: "Tensor", tensors: Sequence["Tensor"]) -> None:
    """Give the tensors, in place, the values that lie where `flattened` has put theirs."""
    import torch

    parts = flat.split([tensor.numel() for tensor in tensors])
    views = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
    torch._foreach_copy_(list(tensors), views)
