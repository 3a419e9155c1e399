"""Which training images an epoch shows, and in which order: pure functions of the generator they draw from."""

import torch
from torch import Tensor


def shuffled(labels: Tensor, draw: torch.Generator) -> Tensor:
    """Every image once. Takes and gives int64 (N,)."""
    return torch.randperm(len(labels), generator=draw)


def balanced(labels: Tensor, draw: torch.Generator) -> Tensor:
    """As many images as there are, every class equally often and the images of a class as evenly as can be.

    Where the numbers do not divide, chance decides which classes, and which of their images, get one turn more.

    Args:
        labels: int64 (N,); a class without images is none.
        draw: on the host.

    Returns:
        Indices, int64 (N,).
    """
    order = torch.randperm(len(labels), generator=draw)
    order = order[labels[order].argsort(stable=True)]  # class by class, each in random order
    sizes = labels.bincount()
    present = sizes.nonzero().squeeze(1)
    sizes = sizes[present]
    turns = torch.full_like(sizes, len(labels) // len(sizes))
    turns[torch.randperm(len(sizes), generator=draw)[: len(labels) % len(sizes)]] += 1
    # The first of each class in that order are those with one turn more.
    place = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    repeats = (turns // sizes).repeat_interleave(sizes) + (place < (turns % sizes).repeat_interleave(sizes))
    order = order.repeat_interleave(repeats)
    return order[torch.randperm(len(order), generator=draw)]
