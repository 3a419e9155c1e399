"""Batch norms: which of them keep running statistics, counting their batches, and measuring these anew."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module has running statistics, which it moves in training mode and uses in evaluation mode."""
    return getattr(module, "running_mean", None) is not None


@contextmanager
def counted_together(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the batch norms among `modules` count the batch that passes them in one launch, and not in one for each.

    Only torch's own in training mode whose momentum is a number: they work without their count. An error leaves the
    counts as they were.
    """
    norms = [norm for norm in modules if norm.training and _only_counts(norm)]
    counts = [norm._buffers["num_batches_tracked"] for norm in norms]
    for norm in norms:  # straight in their dicts: nn.Module's own way takes ten times as long
        norm._buffers["num_batches_tracked"] = None
    try:
        yield
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm._buffers["num_batches_tracked"] = count
    if tracked := [count for count in counts if count is not None]:
        torch._foreach_add_(tracked, 1)


def _only_counts(module: nn.Module) -> bool:
    """Whether a module is a batch norm that counts batches and makes no use of it."""
    own = type(module).forward is _BatchNorm.forward  # SyncBatchNorm insists on its count
    return own and module.momentum is not None


@torch.no_grad()
def recalibrate(
    model: nn.Module, norms: Sequence[str], batches: Iterable[Tensor], forward: Callable[[Tensor], object]
) -> int:
    """Measure the running statistics of batch norms anew: exact averages over `batches` (arXiv 2105.07576).

    The new variance is that of all values together: the mean of the variances within batches and the variance of the
    means between them, each value of equal weight, unbiased as torch's own. (The mean of the batches' variances alone,
    which torch gives with momentum=None, lacks the second part and counts a short last batch as a whole one.) As in
    training each norm divides by the statistics of the batch, so those behind others see what they saw there. All other
    modules are in evaluation mode: no dropout. Modes, momenta and counts of batches are afterwards as before.

    Args:
        model: the plain network; a compiled one may not call the hooks that count.
        norms: paths of batch norms; others in `model` keep their statistics.
        batches: images (N, C, H, W) as `forward` takes them; a batch of one image is left out, as it may have no
            variance.
        forward: runs `model` on them, normalised and under autocast where training is.

    Returns:
        How many images were measured; 0 leaves the statistics alone, as does an error on the way.
    """
    measures = [_Measure(module) for module in map(model.get_submodule, norms) if isinstance(module, _BatchNorm)]
    modes = [(module, module.training) for module in model.modules()]
    images = 0
    try:
        model.eval()
        for measure in measures:
            measure.begin()
        for batch in batches if measures else ():
            if len(batch) > 1:
                forward(batch)
                images += len(batch)
    finally:
        for measure in measures:
            measure.end()
        for module, training in modes:
            module.training = training
    for measure in measures:
        measure.store()
    return images


class _Measure:
    """Mean and summed squares of all values that pass one batch norm, joined batch by batch (Chan et al. 1979)."""

    def __init__(self, norm: _BatchNorm) -> None:
        self._norm = norm
        self._before = {name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}
        self._momentum = norm.momentum
        self._count = 0  # of values per channel
        self._mean = torch.zeros_like(norm.running_mean)
        self._squares = torch.zeros_like(norm.running_mean)  # summed squared distances from the mean

    def begin(self) -> None:
        """From now on the norm's running statistics are those of the batch alone."""
        self._norm.training, self._norm.momentum = True, 1.0
        self._hook = self._norm.register_forward_hook(self._add)

    def end(self) -> None:
        """Undo `begin`; the statistics are those of before."""
        self._hook.remove()
        self._norm.momentum = self._momentum
        for name, value in self._before.items():
            getattr(self._norm, name).copy_(value)

    def store(self) -> None:
        """Fill the norm's statistics with what was measured."""
        if self._count > 1:
            self._norm.running_mean.copy_(self._mean)
            self._norm.running_var.copy_(self._squares / (self._count - 1))

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        count = inputs[0].numel() // self._norm.num_features
        total = self._count + count
        distance = self._norm.running_mean - self._mean
        self._mean += distance * (count / total)
        self._squares += self._norm.running_var * (count - 1) + distance**2 * (self._count * count / total)
        self._count = total
