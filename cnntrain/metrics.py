"""Running sums that stay on the device until they are read. (Per-class measures in `eval` are torchmetrics'.)"""

import torch
from torch import Tensor


class Window:
    """Loss, top-1 and top-5 over the images since the last reset.

    `add` queues work on the device and waits for nothing; `read` waits.
    """

    def __init__(self, device: torch.device, *, top5: bool = False) -> None:
        # float64 counts images exactly and sums a million losses without drift; mps has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(3, dtype=dtype, device=device)
        self.images = 0
        self.top5 = top5

    @torch.no_grad()
    def add(self, loss_sum: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a micro-batch: the summed loss (), logits (N, C) and labels (N,)."""
        hits = logits.argmax(1).eq(labels).sum()
        if self.top5:
            # With fewer than five classes every label is among the best five.
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices
            hits5 = best.eq(labels[:, None]).sum()
        else:
            hits5 = hits
        self.sums += torch.stack([loss_sum.to(self.sums.dtype), hits.to(self.sums.dtype), hits5.to(self.sums.dtype)])
        self.images += len(labels)

    def read(self) -> dict[str, float]:
        """Means over the window: `loss`, `top1` and (when counted) `top5`, accuracies as fractions."""
        loss, top1, top5 = (value / max(self.images, 1) for value in self.sums.tolist())
        return {"loss": loss, "top1": top1} | ({"top5": top5} if self.top5 else {})

    def merge(self, other: "Window") -> None:
        """Count in what another window holds."""
        self.sums += other.sums
        self.images += other.images

    def reset(self) -> None:
        """Start again from nothing."""
        self.sums.zero_()
        self.images = 0

    def state(self) -> dict[str, object]:
        """The sums as plain numbers, for a checkpoint."""
        return {"sums": self.sums.tolist(), "images": self.images}

    def restore(self, state: dict[str, object]) -> None:
        """Go on from what `state` saved."""
        self.sums.copy_(torch.tensor(state["sums"], dtype=self.sums.dtype))
        self.images = int(state["images"])  # type: ignore[call-overload]
