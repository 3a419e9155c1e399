"""Features of images without any training: their parts' likeness to small patches of others (Coates and Ng, 2011)."""

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 6  # pixels of a patch
COUNT = 200  # patches that parts of images are compared with
DRAWN = 50_000  # patches from which it is learned how to whiten them
STRIDE = 2  # pixels between parts
LEVELS = 10.0  # added to the variance of a part, in squared levels: noise is not enlarged
FLOOR = 0.1  # added to the variances of whitened directions
MARGIN = 0.25  # likeness that counts as none
WIDE = 40  # pixels of an image, from which on its thirds are described in place of its halves


class Patches:
    """A description of images by their own patches, in whitened contrast; nothing of it depends on labels.

    Args:
        images: uint8 (N, C, S, S), some of those that will be described.
        seed: of the patches that are drawn.
    """

    def __init__(self, images: Tensor, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        count, side = len(images), images.shape[2]
        self._side = min(SIDE, side)
        self._grid = 3 if side >= WIDE else 2
        places = torch.randint(count, (DRAWN,), generator=random).sort().values
        rows, columns = (torch.randint(side - self._side + 1, (DRAWN,), generator=random) for _ in range(2))
        steps = torch.arange(self._side)
        # uint8 (DRAWN, side, side, C)
        drawn = images.movedim(1, 3)[
            places[:, None, None], (rows[:, None] + steps)[:, :, None], (columns[:, None] + steps)[:, None]
        ]
        parts = _even_out(drawn.movedim(3, 1).float().flatten(1))
        self._mean = parts.mean(0)
        variances, directions = torch.linalg.eigh((parts - self._mean).T @ (parts - self._mean) / len(parts))
        whiten = directions * (variances.clamp_min(0) + FLOOR).rsqrt() @ directions.T
        chosen = (parts - self._mean)[torch.randperm(DRAWN, generator=random)[: 4 * COUNT]] @ whiten
        lengths = chosen.norm(dim=1)
        chosen = chosen[lengths > 0.1 * lengths.median()][:COUNT]  # even parts show nothing
        self._filters = whiten @ functional.normalize(chosen).T

    def __call__(self, images: Tensor) -> Tensor:
        """float32 (N, D) of uint8 (N, C, S, S): of each half or third of a side the mean likeness to each patch."""
        parts = _even_out(functional.unfold(images.float(), self._side, stride=STRIDE).mT)
        likeness = (parts - self._mean) @ self._filters
        likeness = torch.cat([(likeness - MARGIN).relu_(), (-likeness - MARGIN).relu_()], 2)
        places = round(likeness.shape[1] ** 0.5)
        maps = likeness.mT.unflatten(2, (places, places))
        return functional.adaptive_avg_pool2d(maps, min(self._grid, places)).flatten(1)


def _even_out(parts: Tensor) -> Tensor:
    """Parts of images (..., D) without their mean and contrast."""
    parts = parts - parts.mean(-1, keepdim=True)
    return parts / (parts.square().mean(-1, keepdim=True) + LEVELS).sqrt()
