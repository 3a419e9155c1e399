"""The average of a network's weights over its training."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cnntrain.training.load_state import load_weights


class Ema:
    """An exponential moving average of weights and buffers.

    Early on the decay is (1 + n) / (10 + n) after n steps, so that the first, random weights are soon forgotten.
    (torch's swa_utils.AveragedModel does the same sum, but makes the host wait for the device twice in each step.)
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates: int | Tensor = 0
        self.model = copy.deepcopy(model).requires_grad_(False)
        # The tensors of both networks, in the same order: all of them are changed in place and never replaced.
        self._averages, self._copies = _split(self.model)
        self._sources, self._copy_sources = _split(model)

    @torch.no_grad()
    def update(self, skipped: Tensor | None = None) -> None:
        """Take in the weights after a step.

        Args:
            skipped: (), on the device: 1 after a step that the loss scaler has skipped, which counts for nothing, else
                0; None where none ever is.
        """
        if skipped is not None:
            self._update_unless(skipped)
            return
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 1.0
        torch._foreach_lerp_(self._averages, self._sources, weight)
        if self._copies:
            torch._foreach_copy_(self._copies, self._copy_sources)
        self.updates += 1

    def _update_unless(self, skipped: Tensor) -> None:
        """The same with a weight and a count that the device alone knows: the host waits for nothing."""
        if isinstance(self.updates, int):
            self.updates = torch.tensor(self.updates, device=skipped.device)
        weight = 1 - ((1 + self.updates) / (10 + self.updates)).clamp_(max=self.decay)
        weight.masked_fill_(self.updates == 0, 1.0).mul_(1 - skipped)
        changes = torch._foreach_sub(self._sources, self._averages)
        torch._foreach_mul_(changes, weight)
        torch._foreach_add_(self._averages, changes)
        if self._copies:
            torch._foreach_copy_(self._copies, self._copy_sources)
        self.updates += skipped == 0

    def state(self) -> dict[str, Any]:
        """Averaged weights and the number of updates."""
        return {"model": self.model.state_dict(), "updates": int(self.updates)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` saved."""
        load_weights(self.model, state["model"])
        self.updates = state["updates"]


def _split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """What is averaged, and what is copied: counters, and masks of infinite values, whose average would be NaN."""
    tensors = [*model.parameters(), *model.buffers()]
    flags = [t.is_floating_point() and bool(t.isfinite().all()) for t in tensors]
    pairs = list(zip(tensors, flags, strict=True))
    return [t for t, is_averaged in pairs if is_averaged], [t for t, is_averaged in pairs if not is_averaged]
