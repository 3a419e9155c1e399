"""How many kernels a piece of work would launch on a GPU, counted on the CPU by watching the operations of torch."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from cnntrain.augment import batch_context, geometry

# They give memory or its shape, and compute nothing.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "detach", "lift_fresh"}
# Of the others, those that are more than one kernel on CUDA.
_SEVERAL = {"constant_pad_nd": 2, "convolution_backward": 2, "topk": 2}


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        is_view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        if not is_view and name not in _FREE and "::" not in name:  # others than aten's are marks for the profiler
            self.counts[name] += _SEVERAL.get(name, 1)
        return func(*args, **(kwargs or {}))


def launches(work: Callable[[], object]) -> Counter[str]:
    """Launches by operation; `transfer` counts what is sent from the host. A foreach operation counts once."""
    transfers = 0

    def send(values: Any, device: Any) -> Any:
        nonlocal transfers
        transfers += 1
        return values.to(device)

    with ExitStack() as stack:
        for module in (batch_context, geometry):
            stack.enter_context(mock.patch.object(module, "send", send))
        for name in ("crop_places", "flips", "crop_boxes"):
            stack.enter_context(mock.patch.object(geometry, name, _on_host(getattr(geometry, name))))
        watch = stack.enter_context(_Watch())
        work()
    return watch.counts + Counter(transfer=transfers)


def _on_host(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A function that works on the host, whatever watches or replaces what is done on the device."""

    def unwatched(*args: Any) -> Any:
        with _disable_current_modes():
            return draw(*args)

    return unwatched
