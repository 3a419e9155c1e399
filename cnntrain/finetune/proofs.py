"""Two proofs about a network in training: what is frozen keeps each bit, and what learns receives gradients."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def digest(tensor: Tensor) -> str:
    """32 hexadecimal digits over the bytes of a tensor, the same on each device and in each memory layout."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data.data, digest_size=16).hexdigest()


def fixed_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that must not change now: parameters without a gradient, and buffers of modules in evaluation mode.

    Only what a checkpoint holds: buffers outside it are scratch space.
    """
    state = model.state_dict(keep_vars=True)
    tensors = {name: tensor for name, tensor in model.named_parameters() if not tensor.requires_grad}
    for path, module in model.named_modules():
        if not module.training:
            tensors |= {
                f"{path}.{name}" if path else name: buffer for name, buffer in module.named_buffers(recurse=False)
            }
    return {name: tensor for name, tensor in tensors.items() if name in state}


def moved_names(model: nn.Module, digests: Mapping[str, str]) -> list[str]:
    """The tensors whose bits are no longer those that were digested, or that are gone."""
    tensors = model.state_dict()
    return [name for name, value in digests.items() if name not in tensors or digest(tensors[name]) != value]


class FrozenCopy:
    """The tensors of a network that must not change now, as they are when this is made, on their own device.

    To compare them costs a pass over them and one wait for the device. The copy takes as much memory as they do, less
    than gradients and momentum would if they learned. torch.hash_tensor would take none, but is the xor of all values:
    it sees neither an even number of changed signs nor values that have changed places.

    Attributes:
        digests: of each of them, for checkpoints.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.digests = {name: digest(tensor) for name, tensor in tensors.items()}
        self._copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def moved_names(self, model: nn.Module) -> list[str]:
        """Those whose bits are no longer the same, or that are gone."""
        tensors = model.state_dict()
        there = [name for name, copy in self._copies.items() if _alike(tensors.get(name), copy)]
        moved = [_bits(tensors[name]).ne(_bits(self._copies[name])).any() for name in there]
        still = {
            name for name, flag in zip(there, torch.stack(moved).tolist() if moved else [], strict=True) if not flag
        }
        return [name for name in self._copies if name not in still]


def _alike(tensor: Tensor | None, other: Tensor) -> bool:
    return tensor is not None and (tensor.shape, tensor.dtype) == (other.shape, other.dtype)


def _bits(tensor: Tensor) -> Tensor:
    """The same memory as whole numbers, of which none is unlike itself."""
    parts = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return parts.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[parts.element_size()])


class GradientWatch:
    """Whether each of several groups of parameters has received a gradient other than zero, in any step so far.

    NaN and infinite gradients count: they are received, and reported elsewhere.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.steps = 0  # looked at
        self._owners = [name for name, parameters in groups.items() for _ in parameters]
        self._parameters = [parameter for parameters in groups.values() for parameter in parameters]
        self._has_gradient: Tensor | None = None  # (parameters,) bool on the device

    @torch.no_grad()
    def look(self) -> None:
        """Take in the gradients of a step, without waiting for the device; for nothing once all groups have one."""
        if not self._parameters:
            return
        self.steps += 1
        gradients = [parameter.grad for parameter in self._parameters]
        tensors = [gradient for gradient in gradients if gradient is not None]
        if not tensors:
            return
        largest = iter(torch._foreach_norm(tensors, torch.inf))  # the square of a small gradient would be zero
        zero = tensors[0].new_zeros(())
        has_gradient = torch.stack([zero if gradient is None else next(largest) for gradient in gradients]) != 0
        self._has_gradient = has_gradient if self._has_gradient is None else self._has_gradient | has_gradient
        if has_gradient.is_cpu:  # nothing to wait for
            self.groups_without()

    def groups_without(self) -> list[str]:
        """Groups that have received none; waits for the device."""
        has_gradient = [False] * len(self._parameters) if self._has_gradient is None else self._has_gradient.tolist()
        names_with = {name for name, one in zip(self._owners, has_gradient, strict=True) if one}
        names = [name for name in dict.fromkeys(self._owners) if name not in names_with]
        if not names:
            self._parameters, self._owners, self._has_gradient = [], [], None
        return names
