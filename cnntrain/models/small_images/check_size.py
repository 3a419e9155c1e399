"""Whether a network that was built for one image size takes others too."""

import copy

import torch
from torch import nn

from cnntrain.errors import ConfigError


def check_size(model: nn.Module, channels: int, size: int, *, name: str, key: str) -> None:
    """Try images of `size` pixels, without arithmetic.

    Args:
        model: stays as it is.
        name: of the network, for the message.
        key: the setting that asks for this size.

    Raises:
        ConfigError: the network does not take them.
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    try:
        with torch.no_grad():
            shapes(torch.zeros((2, channels, size, size), device="meta"))
    except Exception as error:  # a network can fail with anything
        raise ConfigError(
            f"{key}: {name} does not take images of {size} pixels beside those of data.image_size; "
            f"leave it out, or choose a network that ends in a global pool, such as resnet18"
        ) from error
