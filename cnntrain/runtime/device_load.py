"""What a piece of work asks of a device: kernels, or operations where there is no accelerator to ask."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cnntrain.runtime import device as machine

# They give memory or its shape, and compute nothing.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "detach", "lift_fresh"}


class Load(NamedTuple):
    """Of a piece of work.

    Attributes:
        launches: kernels and copies; operations of torch where the host computes by itself.
        busy: seconds of the device; None: the device is the host.
    """

    launches: int
    busy: float | None


def load_of(work: Callable[[], object], device: torch.device) -> Load:
    """Do the work once, and count."""
    if not machine.is_async(device):
        with _Count() as count:
            work()
        return Load(count.operations, None)
    machine.synchronize(device)
    with profiler(device) as profile:
        work()
        machine.synchronize(device)
    # A region that has been given a name, such as the step of an optimizer, stands among the kernels in it.
    of_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [event for event in of_device if not event.is_user_annotation]
    return Load(len(kernels), sum(event.time_range.elapsed_us() for event in kernels) / 1e6)


def profiler(device: torch.device, **options: Any) -> torch.profiler.profile:
    """torch's profiler of the host and, where it works behind the host's back, of the device."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells of its starts and of absent GPUs, past our report
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if machine.is_async(device) else []
    return torch.profiler.profile(activities=kinds, acc_events=True, **options)


class _Count(TorchDispatchMode):
    """Counts operations that compute something."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        self.operations += not (is_view or func._schema.name.removeprefix("aten::") in _FREE)
        return func(*args, **(kwargs or {}))
