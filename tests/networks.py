"""Networks that several tests look at, without weights: they lie on the meta device."""

from pathlib import Path

import torch
import yaml
from torch import nn

from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.models.build import build_model

CONF = Path(__file__).parents[1] / "conf" / "model"
LEFT_OPEN = ("torchvision", "timm", "own")  # which network these are is for the user to say
NAMED = sorted(
    file.stem for file in CONF.glob("*.yaml") if file.stem not in LEFT_OPEN and not file.stem.startswith("for_")
)
CLASSES = 7


def conf(name, **changes):
    """The settings of a file in conf/model."""
    return ModelSettings(**(yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")) | changes))


def on_meta(settings, image_size=None):
    entry = settings.entry
    channels, native = (entry.channels, entry.image_size) if entry in NETWORKS.values() else (3, 224)
    with torch.device("meta"):
        model, _ = build_model(settings, classes=CLASSES, channels=channels, image_size=image_size or native)
    return model, torch.empty(2, channels, image_size or native, image_size or native, device="meta")


def timm_net(name):
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=CLASSES)
    side = model.default_cfg["input_size"][-1]
    return model, torch.empty(2, 3, side, side, device="meta")


def timm_families():
    """The name of one network of each file of timm, by that file."""
    import timm

    return {timm.models._registry._model_to_module[name]: name for name in reversed(timm.list_models())}


class Own(nn.Module):
    """A network as users write it, its layers in the order given."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
