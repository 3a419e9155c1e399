"""Running sums and counts that stay on the device until they are read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cnntrain.runtime.world import ALONE, World


def has_top5(classes: int) -> bool:
    """Whether top-5 tells anything: of five classes or fewer, every label is among the best five."""
    return classes > 5


class RunningScores:
    """Loss, top-1 and top-5 over the images since the last reset; of images with sets of labels the loss alone.

    `add` queues work on the device and waits for nothing; `read` waits. Each process of `world` counts what it is
    given; what is read counts all of it, and all processes must read together.
    """

    def __init__(
        self, device: torch.device, *, top5: bool = False, multi_label: bool = False, world: World = ALONE
    ) -> None:
        # float64 counts images exactly and sums a million losses without drift; mps has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(3, dtype=dtype, device=device)
        self.images = 0
        self.top5, self.multi_label, self.world = top5, multi_label, world

    @torch.no_grad()
    def add(self, loss_sum: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a micro-batch.

        Args:
            loss_sum: (), over its images.
            logits: (N, K).
            targets: labels, int64 (N,), or probabilities, float32 (N, K), of mixed images: a prediction then earns the
                share that its class has in the image. Of sets only their number counts.
        """
        self.sums[0].add_(loss_sum)
        self.images += len(targets)
        if self.multi_label:
            return
        top1 = self._hits(logits.argmax(1, keepdim=True), targets)
        if self.top5:
            self.sums[1].add_(top1)
            self.sums[2].add_(self._hits(logits.topk(5).indices, targets))
        else:
            self.sums[1:].add_(top1)

    def _hits(self, guesses: Tensor, targets: Tensor) -> Tensor:
        """How much of the targets the guesses, int64 (N, k), hit: a number of images, ()."""
        if targets.ndim == 1:
            return guesses.eq(targets.unsqueeze(1)).sum()
        return targets.gather(1, guesses).sum(dtype=self.sums.dtype)

    def read(self) -> dict[str, float]:
        """Means over them: `loss`, `top1` and (when counted) `top5`, accuracies as fractions."""
        sums, images = self.totals()
        loss, top1, top5 = (value / max(images, 1) for value in sums)
        scores = {} if self.multi_label else {"top1": top1}
        return {"loss": loss, **scores} | ({"top5": top5} if self.top5 else {})

    def totals(self) -> tuple[list[float], int]:
        """The sums of loss, top-1 and top-5, and the images, of all processes."""
        if self.world.size == 1:
            return self.sums.tolist(), self.images
        totals = torch.tensor([*self.sums.tolist(), self.images], dtype=torch.float64)
        self.world.sum_([totals])
        *sums, images = totals.tolist()
        return sums, int(images)

    def merge(self, other: "RunningScores") -> None:
        """Count in what another one holds."""
        self.sums += other.sums
        self.images += other.images

    def reset(self) -> None:
        """Start again from nothing."""
        self.sums.zero_()
        self.images = 0

    def state(self) -> dict[str, object]:
        """The sums as plain numbers, for a checkpoint."""
        sums, images = self.totals()
        return {"sums": sums, "images": images}

    def restore(self, state: dict[str, object]) -> None:
        """Go on from what `state` saved: the first process with all of it, the others from nothing."""
        self.reset()
        if not self.world.is_first:
            return
        self.sums.copy_(torch.tensor(state["sums"], dtype=self.sums.dtype))
        self.images = int(state["images"])  # type: ignore[call-overload]


class ConfusionCounts:
    """How many images of each true class (rows) were given each class (columns): int64 (K, K) on the device."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a micro-batch: logits (N, K), labels int64 (N,)."""
        cells = labels * len(self.matrix) + logits.argmax(1)
        self.matrix.view(-1).index_add_(0, cells, torch.ones_like(cells))

    def by_class(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 of each class, 0 where there is nothing to divide by, and its images."""
        matrix = self.matrix.cpu()
        hits, images, guesses = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        columns = {
            "precision": hits / guesses.clamp_min(1),
            "recall": hits / images.clamp_min(1),
            "f1": 2 * hits / (images + guesses).clamp_min(1),
            "images": images,
        }
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return {name: dict(zip(columns, row, strict=True)) for name, row in zip(names, rows, strict=True)}
