"""A classic filter as the convolution of a network, and its result as a picture."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cnntrain.config.schema.cnn import Pair
from cnntrain.config.schema.filter import Kernel, Weights
from cnntrain.errors import ResourceError
from cnntrain.models.map_sizes import Window
from cnntrain.runtime.device_memory import free_memory

CUT_OFF = 2  # percent of the values of edges that may be stronger than black and white
BYTES_A_PIXEL = 160  # of memory, in colour, with all that is drawn of it; as measured


def convolve(images: Tensor, matrices: list[Weights], window: Window, padding_mode: str) -> Tensor:
    """Each channel's cross-correlation with a kernel, as a depthwise convolution; of two kernels, their magnitude.

    Args:
        images: (N, C, H, W), floating point.
        matrices: one kernel, or two whose results a and b become sqrt(a² + b²).
        window: the kernel's size, stride, dilation, and the pixels added on each side.
        padding_mode: zeros | reflect | replicate | circular.

    Returns:
        (N, C, H', W'), dtype as `images`.
    """
    (top, bottom), (left, right) = window.borders
    padded = F.pad(images, (left, right, top, bottom), "constant" if padding_mode == "zeros" else padding_mode)
    channels = images.shape[1]
    results = []
    for matrix in matrices:
        weight = torch.tensor(matrix, dtype=images.dtype).expand(channels, 1, -1, -1)
        results.append(F.conv2d(padded, weight, stride=window.stride, dilation=window.dilation, groups=channels))
    return results[0] if len(results) == 1 else torch.stack(results).square().sum(0).sqrt()


def inner_part(result: Tensor, window: Window, size: Pair) -> Tensor:
    """What no padding entered of a result (C, H', W') on an image of `size` (height, width); else all of it."""
    ranges = []
    for axis in (0, 1):
        before, stride = window.borders[axis][0], window.stride[axis]
        reach = window.dilation[axis] * (window.kernel[axis] - 1)
        ranges.append(slice(-(-before // stride), max(0, (before + size[axis] - reach - 1) // stride + 1)))
    inner = result[:, ranges[0], ranges[1]]
    return inner if inner.numel() else result


def as_picture(result: Tensor, kernel: Kernel, inner: Tensor) -> tuple[NDArray[np.uint8], str]:
    """A result (C, H', W') as pixels, uint8 (H', W', C), and what their greys mean.

    Edges have a sign and any size: 0 becomes mid-grey, and the scale leaves out a few of the strongest. A magnitude
    begins at black. Other results are images, of which only 0 to 255 can be shown.

    Args:
        inner: the part of the result that sets the scale, free of the strong edges that zero padding makes.
    """
    values = result.permute(1, 2, 0).numpy()
    if not kernel.finds_edges:
        outside = 100 * np.mean((values < -0.5) | (values > 255.5))
        rule = f"black 0, white 255; {outside:.2g} % lie outside" if outside else "black 0, white 255"
        return values.clip(0, 255).round().astype(np.uint8), rule
    strengths = inner.abs().numpy()
    limit = float(np.percentile(strengths, 100 - CUT_OFF)) or float(strengths.max()) or 1.0
    white = f"{limit:.0f}" if limit >= 100 else f"{limit:.3g}"
    if len(kernel.matrices()) == 2:
        return (255 / limit * values).clip(0, 255).round().astype(np.uint8), f"black 0, white >= {white}"
    pixels = (127.5 + 127.5 / limit * values).clip(0, 255).round().astype(np.uint8)
    return pixels, f"black <= -{white}, mid-grey 0, white >= {white}"


def need_memory(name: str, pixels: int) -> None:
    """Refuse more pixels, of an image or of its result, than fit: the system would end this process for it, or others.

    Raises:
        ResourceError: the memory that is free does not hold them.
    """
    needed, free = BYTES_A_PIXEL * pixels, free_memory(torch.device("cpu"))
    if needed > free:
        raise ResourceError(
            f"image: {name} takes {needed / 1e9:.1f} GB of memory to filter and draw, and {free / 1e9:.1f} GB are "
            "free; give a smaller image, or less padding"
        )
