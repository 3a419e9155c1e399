"""Steps that the loss scaler skips, as a gradient in 16 bits overflowed (arXiv 1710.03740): they leave no trace."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cnntrain.runtime.flat import flattened, write_back

SMALLEST_SCALE = 2.0**-24  # of the loss: with less, the smallest numbers of 16 bits stand for gradients of millions


class SkippedSteps:
    """Puts back what the forward passes of a skipped step have written, such as statistics of batch norms.

    The optimizer passes over such a step by itself. Which steps are skipped is known to the device alone: all of this
    is queued in each step, and the host waits for nothing.
    """

    def __init__(self, model: nn.Module, scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
        self._scaler, self._optimizer = scaler, optimizer
        dtypes = dict.fromkeys(buffer.dtype for buffer in model.buffers())
        self._buffers = [[buffer for buffer in model.buffers() if buffer.dtype == dtype] for dtype in dtypes]
        self._kept: list[Tensor] = []  # for each dtype, all of them as one

    @torch.no_grad()
    def keep(self) -> None:
        """Remember what a step finds; before its first forward pass."""
        self._kept = [flattened(buffers) for buffers in self._buffers]

    @torch.no_grad()
    def undo(self) -> Tensor:
        """Put it back where the step is skipped; between the scaler's `step` and its `update`.

        Returns:
            (), float32: 1 where it is skipped, else 0.
        """
        (skipped,) = self._scaler._found_inf_per_device(self._optimizer).values()
        is_skipped = skipped > 0
        for buffers, kept in zip(self._buffers, self._kept, strict=True):
            write_back(torch.where(is_skipped, kept, flattened(buffers)), buffers)
        return skipped
