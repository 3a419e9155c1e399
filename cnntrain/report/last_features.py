"""What enters the head of a network for some images, collected while a split is scored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnntrain.training.scoring import Answer


class LastFeatures:
    """Features, thumbnails and answers of some images.

    Args:
        chosen: bool (N,), on the host: which images of the split.
        side: of a thumbnail, pixels at most.
    """

    def __init__(self, chosen: Tensor, side: int) -> None:
        self._chosen, self._side = chosen, side
        self._seen: dict[str, list[Tensor]] = {"images": [], "features": []}  # since the last answer
        self._parts: list[tuple[Tensor, ...]] = []

    @contextmanager
    def listening(self, model: nn.Module, head: str) -> Iterator[None]:
        """Note what enters the model and its head, of each forward pass that comes to its end."""
        entered: dict[str, Tensor] = {}

        def hear(name: str, module: nn.Module) -> Any:
            return module.register_forward_pre_hook(lambda _, inputs: entered.update({name: inputs[0].detach()}))

        def keep(*_: object) -> None:
            for name, parts in self._seen.items():
                parts.append(entered.pop(name))

        handles = [hear("images", model), hear("features", model.get_submodule(head))]
        handles.append(model.register_forward_hook(keep))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add(self, answer: Answer) -> None:
        """Take the images that were answered last, however many went through the network at once."""
        seen, self._seen = self._seen, {"images": [], "features": []}
        rows = self._chosen[answer.indices].nonzero().flatten()
        if not len(rows):
            return
        on_device = rows.to(answer.labels.device)
        parts = (seen[key] for key in ("features", "images"))
        features, images = ((part[0] if len(part) == 1 else torch.cat(part))[on_device].float() for part in parts)
        if features.ndim == 3:  # tokens
            features = features.mean(1)
        if images.shape[2] > self._side:
            images = functional.interpolate(images, size=(self._side, self._side), mode="bilinear", antialias=True)
        predictions = answer.logits[on_device].argmax(1)
        found = features.flatten(2).mean(2) if features.ndim > 2 else features, images, predictions
        self._parts.append((answer.indices[rows], *(part.cpu() for part in found)))

    def read(self) -> tuple[Tensor, ...]:
        """Indices int64 (n,), features float32 (n, D), images as the model takes them, and predictions int64 (n,)."""
        return tuple(map(torch.cat, zip(*self._parts, strict=True)))
