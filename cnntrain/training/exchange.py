"""What the processes of a run exchange in a step: gradients, and what their batch norms have seen.

Gradients go through torch's DistributedDataParallel (arXiv 2006.15704), which sends those of the last layers, a bucket
at a time, while those of the first are still computed. After the first backward pass it would sort its buckets anew, by
the order in which gradients came: a sum over three or more processes depends on where in its bucket a number lies, so
that a resumed run, which begins with the first sorting again, would end with other bits. With find_unused_parameters
and without a static graph torch never does that (reducer.hpp, should_rebuild_buckets), whatever the network leaves out
in a step.
"""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cnntrain.config.schema.model import NO_SYNC_BN
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import GradExchange
from cnntrain.errors import ConfigError
from cnntrain.finetune.batch_norms import keeps_statistics
from cnntrain.runtime.device_memory import shares_memory
from cnntrain.runtime.world import World

# Buffers are never sent: all processes hold the same, and the mean of the statistics is taken after each step. torch
# has renamed the argument that says so.
_FORWARD = "forward_sync_buffers"
_NO_BUFFERS = {
    _FORWARD if _FORWARD in inspect.signature(DistributedDataParallel).parameters else "broadcast_buffers": False
}


def synchronize_norms(model: nn.Module, device: torch.device, world: World) -> nn.Module:
    """Let the batch norms of a network normalise by the images of all processes, as model.sync_bn says.

    Raises:
        ConfigError: torch cannot do that on this device.
    """
    if world.size == 1:
        return model
    if shares_memory(device):
        raise ConfigError(NO_SYNC_BN.format(device.type))
    if any(type(module).__module__.startswith("timm.") for module in model.modules()):
        from timm.layers import convert_sync_batchnorm  # which keeps the activations of timm's own batch norms

        return cast(nn.Module, convert_sync_batchnorm(model))
    return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))


def note_idle(settings: Settings, model: nn.Module, world: World) -> list[str]:
    """What the settings say of several processes, where there is one, or of batch norms, where there are none."""
    form, alone = settings.trainer.grad_exchange, "one process trains alone" if world.size == 1 else ""
    has_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    reasons = {
        "model.sync_bn=true": settings.model.sync_bn and (alone if has_norms else "the network has no batch norms"),
        f"trainer.grad_exchange={form.value}": form is not GradExchange.fp32 and alone,
    }
    return [f"{word} has no effect, as {reason}" for word, reason in reasons.items() if reason]


class Exchange:
    """The exchange of one training, whose `wrap` makes the module that the loop calls.

    Of one process alone nothing here does anything.
    """

    def __init__(self, world: World, form: GradExchange) -> None:
        self._world, self._form = world, form
        self._module: nn.Module | None = None
        self._wrapper: DistributedDataParallel | None = None
        self._learners: list[nn.Parameter] = []

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as the loop is to call it: its gradients become the mean of those of all processes.

        Raises:
            ResourceError: another process has ended before it answered: torch compares the shapes of all of them.
        """
        if self._world.size == 1:
            return module
        if self._wrapper:
            self._wrapper._remove_autograd_hooks()  # else parameters would be sent by this one too
        self._module, self._learners = module, _learners(module)
        with self._world.answered():
            self._wrapper = self._wrapped(module) if self._learners else None
        return self._wrapper or module

    def is_stale(self) -> bool:
        """Whether other parameters learn by now than when the module was wrapped."""
        if self._module is None:
            return False
        now = _learners(self._module)
        return len(now) != len(self._learners) or any(a is not b for a, b in zip(now, self._learners, strict=True))

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        """Forward and backward pass of a micro-batch; only that of the last one of a step sends anything.

        Raises:
            ResourceError: another process has ended before it answered.
        """
        holds = self._wrapper.no_sync() if self._wrapper and not is_last else nullcontext()
        with holds, self._world.answered():
            yield

    def average_norms(self) -> None:
        """Give all processes the mean of what their batch norms have seen."""
        if self._world.size > 1 and self._module:
            norms = [module for module in self._module.modules() if module.training and keeps_statistics(module)]
            alone = [norm for norm in norms if not isinstance(norm, nn.SyncBatchNorm)]  # which have seen the same
            self._world.mean_([part for norm in alone for part in (norm.running_mean, norm.running_var)])

    def _wrapped(self, module: nn.Module) -> DistributedDataParallel:
        # Of weights with a size of 1 the layout is not unique, and a copy is made: nothing that a user could mend.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        wrapper = DistributedDataParallel(
            module,
            init_sync=False,  # all processes hold the same weights
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
            **_NO_BUFFERS,  # type: ignore[arg-type]
        )
        if self._form is GradExchange.bf16:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            wrapper.register_comm_hook(None, bf16_compress_hook)
        return wrapper


def _learners(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
