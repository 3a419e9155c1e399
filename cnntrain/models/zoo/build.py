"""Our own networks by name, each after its paper."""

from typing import Any

from torch import nn

from cnntrain.config.schema.networks import NETWORKS
from cnntrain.errors import ConfigError


def build_own(
    name: str, args: dict[str, Any], *, classes: int, channels: int, image_size: int, aux: bool = False
) -> nn.Module:
    """The network `name` of NETWORKS, from float (N, channels, S, S) to logits (N, classes).

    Args:
        args: of the network, as config/schema/network_args.py has them; they must be without faults.
        aux: with auxiliary classifiers: in training mode the network gives a tuple, the logits and those of each.

    Raises:
        ConfigError: images too small, or auxiliary classifiers for a network that has none.
    """
    entry = NETWORKS[name]
    if aux and not entry.has_auxiliary:
        other = next(one.name for one in NETWORKS.values() if one.has_auxiliary)
        raise ConfigError(
            f"model.aux_weight: {name} has no auxiliary classifiers; set model.aux_weight=0 or choose a network that "
            f"has them, such as model={other}"
        )
    sizes: dict[str, Any] = {"classes": classes, "channels": channels}
    if entry.is_sized:
        sizes["image_size"] = image_size
    if entry.has_auxiliary:
        sizes["aux"] = aux
    network: nn.Module = entry.build(entry.settings(**args), **sizes)
    return network
