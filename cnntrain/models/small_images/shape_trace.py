"""Which layers a network runs, in which order and on which sizes of map, found without arithmetic."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from cnntrain.text import one_line

SIZE_FAULTS = (RuntimeError, ValueError, AssertionError, IndexError)  # what layers raise on maps that do not suit them
_SEEN = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Linear)
_SKIPPED = (nn.BatchNorm2d, nn.ReLU, nn.SiLU, nn.Hardswish, nn.GELU)  # they keep every shape, and take most of the time


@dataclass
class Visit:
    """One run of one layer."""

    path: str
    layer: Any
    shape: tuple[int, ...]  # of the input
    side: int  # of the input map, its shorter side; 0 for a linear layer
    out: int = 0  # of the output map; 0 where there is none

    def is_pool(self) -> bool:
        return isinstance(self.layer, (nn.MaxPool2d, nn.AvgPool2d))

    def stride(self) -> int:
        return largest(getattr(self.layer, "stride", 1))

    def is_adaptive(self) -> bool:
        return isinstance(self.layer, nn.AdaptiveAvgPool2d)

    def kernel(self) -> int:
        return largest(getattr(self.layer, "kernel_size", 1))

    def lacks_pixels(self) -> bool:
        """Whether the map with its padding is smaller than the kernel."""
        padding = getattr(self.layer, "padding", 0)
        border = 0 if isinstance(padding, str) else largest(padding)
        return self.side > 0 and self.out == 0 and self.side + 2 * border < self.kernel()


@dataclass
class Trace:
    """What happened to two images on their way through a network."""

    visits: list[Visit] = field(default_factory=list)
    fault: str = ""  # why they did not get through; empty where they did

    def strided(self) -> list[Visit]:
        """The layers that make the map smaller by their stride."""
        return [visit for visit in self.visits if visit.stride() > 1]

    def last_map(self) -> int:
        """The side of the last feature map; 0 where the images did not get through.

        It is what the last adaptive pool sees. Without one behind all kernels above 1x1, it is the smallest map that
        such a kernel gives, where it does not swallow the whole map.
        """
        if self.fault:
            return 0
        tail = [visit for visit in self.visits if visit.kernel() > 1 or visit.is_adaptive()]
        if tail and tail[-1].is_adaptive():
            return tail[-1].side
        return min((visit.out for visit in tail if visit.out > 1 or visit.kernel() != visit.side), default=0)


def trace(model: nn.Module, *, channels: int, classes: int, image_size: int, training: bool = False) -> Trace:
    """Send the shapes of two images through a network on the meta device, in one mode.

    The network must give logits (2, classes); in training mode also a tuple of them, those of auxiliary heads last.
    """
    shapes = Trace()

    def enter(path: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        shapes.visits.append(Visit(path, layer, tuple(inputs[0].shape), _side(inputs[0])))

    def leave(layer: nn.Module, output: torch.Tensor) -> None:
        last = next(visit for visit in reversed(shapes.visits) if visit.layer is layer)
        last.out = _side(output)

    bypassed = [layer for layer in model.modules() if isinstance(layer, _SKIPPED)]
    for layer in bypassed:
        layer.forward = lambda inputs: inputs
    hooks = []
    for path, layer in model.named_modules():
        if isinstance(layer, _SEEN):
            hooks.append(layer.register_forward_pre_hook(lambda layer, inputs, path=path: enter(path, layer, inputs)))
            hooks.append(layer.register_forward_hook(lambda layer, inputs, output: leave(layer, output)))
    try:
        with torch.no_grad():
            output = model.train(training)(torch.empty(2, channels, image_size, image_size, device="meta"))
        shapes.fault = _wrong_output(output, classes, training)
    except SIZE_FAULTS as error:
        shapes.fault = one_line(error)
    finally:
        for hook in hooks:
            hook.remove()
        for layer in bypassed:
            del layer.forward
    return shapes


def largest(size: int | tuple[int, ...]) -> int:
    """The larger of two sides, or the one for both."""
    return size if isinstance(size, int) else max(size)


def _side(maps: torch.Tensor) -> int:
    return min(maps.shape[-2:]) if maps.ndim == 4 else 0


def _wrong_output(output: Any, classes: int, training: bool) -> str:
    heads = output if training and isinstance(output, tuple) else (output,)
    outputs = [tuple(head.shape) if isinstance(head, torch.Tensor) else type(head).__name__ for head in heads]
    return "" if set(outputs) == {(2, classes)} else f"it gives {outputs[0]} instead of {(2, classes)} logits"
