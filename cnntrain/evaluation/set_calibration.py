"""Whether the probabilities of labels are as high as the labels are frequent, and the temperature that makes them so.

A label by itself is a choice of two classes, with its logit and 0 for logits: what holds for classes holds for it.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cnntrain.evaluation.calibration import Fit, Reliability, TemperatureFit

MOST = 1 << 16  # decisions at once


def fit_temperature(logits: Tensor, labels: Tensor, indices: Tensor) -> Fit | None:
    """The temperature of the lowest binary cross-entropy; see TemperatureFit.

    Args:
        logits: float32 (N, K) as the network gives them; on the host.
        labels: bool (N, K).
        indices: int64 (N,), of the images: whether one helps is tried on those of even and of odd numbers.
    """
    fit, images = TemperatureFit(), len(labels)
    every = (logits.flatten(), labels.flatten(), indices.repeat_interleave(labels.shape[1]))
    for part, own, image in zip(*(values.split(MOST) for values in every), strict=True):
        fit.add(torch.stack([part, torch.zeros_like(part)], dim=1), (~own).long(), image)
    return fit.fit(images)


def told_at(temperature: float, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """`loss`, the mean over images of the summed binary cross-entropy, and `ece`, see reliability, at a temperature."""
    scaled = logits.double() / temperature
    loss = functional.binary_cross_entropy_with_logits(scaled, labels.double(), reduction="sum")
    return {"loss": float(loss) / max(1, len(labels)), "ece": reliability(scaled.sigmoid(), labels).error()}


def reliability(probabilities: Tensor, labels: Tensor) -> Reliability:
    """How often labels are there, by their probability, over all labels of all images."""
    result = Reliability()
    for part, own in zip(probabilities.flatten().split(MOST), labels.flatten().split(MOST), strict=True):
        result.count(part, own)
    return result
