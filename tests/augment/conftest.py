"""What the tests of augmentation share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def plain_products(monkeypatch):
    """Matrix products as sums that round each term; some libraries fuse them, which moves torchvision's pixels."""

    def bmm(left, right):
        first, *others = (a.unsqueeze(2) * b.unsqueeze(1) for a, b in zip(left.unbind(2), right.unbind(1), strict=True))
        return sum(others, first)

    monkeypatch.setattr(torch.Tensor, "bmm", bmm)
