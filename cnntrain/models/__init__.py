"""The networks: our own small ones, torchvision's by name, and the user's by `pkg.module:function`.

Every network maps float (N, channels, S, S) to logits (N, classes).
"""

from typing import TYPE_CHECKING

from cnntrain.errors import ConfigError
from cnntrain.faults import unknown_arguments
from cnntrain.settings.model import ModelSettings
from cnntrain.settings.nets import OWN_NETS

if TYPE_CHECKING:
    from torch import nn


def build_model(
    settings: ModelSettings, *, classes: int, channels: int, image_size: int
) -> tuple["nn.Module", list[str]]:
    """The network of `settings` for `classes` classes of square images, and a line on each thing changed for them.

    Weights are drawn from torch's global generator. Inside `with torch.device("meta")` only shapes are made.

    Raises:
        ConfigError: an unknown name or argument, a stem that does not fit, or images too small for the network.
    """
    name = settings.name
    sizes = {"classes": classes, "channels": channels, "image_size": image_size}
    if name in OWN_NETS or ":" in name:
        wrong = [f"model.{key}: must be {rule} (given {value})" for key, value, rule in settings.faults()]
        if found := unknown_arguments(settings) + wrong:
            raise ConfigError("\n".join(found))
        if name in OWN_NETS:
            from cnntrain.models.small import build_small

            return build_small(name, settings.args, **sizes), []
        from cnntrain.models.foreign import build_foreign

        return build_foreign(name, settings.args, **sizes), []
    from cnntrain.models.library import build_library

    return build_library(name, settings.args, settings.stem, **sizes)
