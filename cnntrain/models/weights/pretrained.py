"""The weights that torchvision and timm publish for a network, and how its images were prepared."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.paths import expand_path, need_weights
from cnntrain.config.schema.data import CropMode, Interpolation
from cnntrain.config.schema.model import Library, ModelSettings
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.data.view import EVAL_SHARE
from cnntrain.errors import CheckpointError, ConfigError, UnsafeError
from cnntrain.models.libraries import ALIASES, LibraryNetwork
from cnntrain.models.weights.download import damage_error, file_of_address, file_of_hub, quiet
from cnntrain.models.weights.files import content_of, is_run
from cnntrain.storage.checkpoint import read_tensors
from cnntrain.text import nearest, printable

Say = Callable[[str], None]

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for, in this order


@dataclass(frozen=True)
class Preprocessing:
    """How the images were prepared that a network was trained on.

    Attributes:
        mean: per channel, of pixels in 0..1; `std` likewise.
        image_size: pixels a side.
        crop: the part of the short side that is seen in validation; above 1, black lies around.
        crop_mode: how a picture becomes a square.
        channels: of the images, 1 or 3.
        source: who says so, in words.
        cuts: the length of a resized side is cut to a whole number of pixels, as timm does it, and not rounded.
    """

    mean: list[float]
    std: list[float]
    image_size: int
    interpolation: Interpolation
    crop: float
    channels: int
    source: str
    crop_mode: CropMode = CropMode.center
    cuts: bool = False

    def crop_at(self, size: int) -> float:
        """`crop` for images of `size` pixels, whose rounded quotient is the length that these weights' own view has."""
        return size / math.floor(size / self.crop) if self.cuts else self.crop


def preprocessing(settings: ModelSettings) -> Preprocessing | None:
    """How the images were prepared that the weights of the settings were trained on, without a download.

    Of a file that says nothing about it: what the library says of this network. None without weights, and for networks
    that no library has.

    Raises:
        CheckpointError, UnsafeError: the file cannot be read.
        ConfigError: no library has the network.
    """
    if settings.weights is not None:
        path = expand_path(settings.weights)
        need_weights(path)
        content = {} if path.suffix == ".safetensors" else content_of(path)
        if is_run(content):
            return _of_run(content["about"], printable(settings.weights))
    elif not settings.pretrained:
        return None
    if settings.entry is not None:
        return None
    if LibraryNetwork(settings.name, settings.library).library is Library.timm:
        return _of_timm(_timm_config(settings.name))
    return _of_torchvision(settings)


def library_tensors(settings: ModelSettings, say: Say) -> tuple[dict[str, Tensor], str]:
    """The library's weights for a network, downloaded where they are not there yet, and whose they are in words.

    Args:
        say: takes a line before a download.

    Raises:
        ConfigError: the library has none, or they cannot be downloaded or read.
        UnsafeError: the file in torch's cache holds code.
    """
    if entry := settings.entry:
        whose = "a function of yours" if entry is NETWORKS.user else "one of our own networks"
        raise ConfigError(
            f"model.pretrained: {settings.name} is {whose}, for which no library has weights; "
            "give a file, model.weights=FILE, or choose another network, such as model=resnet18"
        )
    library = LibraryNetwork(settings.name, settings.library).library
    found = _from_torchvision(settings, say) if library is Library.torchvision else _from_timm(settings, say)
    if found is None:
        names = _torchvision_names() if library is Library.torchvision else _timm_names()
        raise ConfigError(
            f"model.pretrained: {library.name} has no weights for {settings.name}; give a file, model.weights=FILE, "
            f"or choose another network, such as model.name={nearest(settings.name, names) or 'resnet18'}"
        )
    return found


def _torchvision_names() -> list[str]:
    from torchvision import models

    return [name for name in models.list_models(module=models) if _torchvision_weights(name)]


def _torchvision_weights(name: str) -> Any:
    from torchvision import models

    return getattr(models.get_model_weights(name), "DEFAULT", None)


def _from_torchvision(settings: ModelSettings, say: Say) -> tuple[dict[str, Tensor], str] | None:
    weights = _torchvision_weights(settings.name)
    if weights is None:
        return None
    path = file_of_address(weights.url, say)
    if settings.name == "googlenet" and settings.aux_weight > 0:
        say("torchvision publishes googlenet with auxiliary classifiers that were never trained")
    try:
        return read_tensors(path, "remove the file, and it is downloaded anew"), f"torchvision's {weights.name}"
    except UnsafeError as error:
        raise UnsafeError(f"model.pretrained: {error}") from error
    except CheckpointError as error:
        raise damage_error(path, error) from error


def _of_torchvision(settings: ModelSettings) -> Preprocessing | None:
    weights = _torchvision_weights(settings.name)
    if weights is None:
        return None
    transforms = weights.transforms()
    mean, std, size = list(transforms.mean), list(transforms.std), transforms.crop_size[0]
    if settings.name in ("googlenet", "inception_v3") and not settings.args.get("transform_input"):
        # These were trained on images in -1..1. Built with their weights, torchvision's networks turn images normalised
        # by ImageNet's mean and std into such themselves (transform_input); built as here, they do not.
        mean, std = [0.5] * len(mean), [0.5] * len(std)
    return Preprocessing(
        mean,
        std,
        image_size=size,
        interpolation=Interpolation(transforms.interpolation.value),
        crop=size / transforms.resize_size[0],
        channels=len(mean),
        source=f"torchvision's {weights.name}",
    )


def _timm_names() -> list[str]:
    import timm

    return sorted({name.partition(".")[0] for name in timm.list_models(pretrained=True)})


def _timm_config(name: str) -> Any:
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(ALIASES.get(name, name))


def _timm_source(config: Any) -> str:
    return "timm's " + ".".join(part for part in (config.architecture, config.tag) if part)


def _from_timm(settings: ModelSettings, say: Say) -> tuple[dict[str, Tensor], str] | None:
    config = _timm_config(settings.name)
    if config is None or not config.has_weights:
        return None
    if config.hf_hub_id:
        named = config.hf_hub_filename
        path = file_of_hub(config.hf_hub_id, [named] if named else _HUB_FILES, say)
        custom = bool(named) and config.custom_load == "hf"
    else:
        url, *name = config.url if isinstance(config.url, (list, tuple)) else [config.url]
        path, custom = file_of_address(url, say, *name), bool(config.custom_load)
    import timm

    place = {"file": str(path), "custom_load": custom}
    try:  # by way of timm's own network, which knows the names that old files have
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), quiet():
            own = ALIASES.get(settings.name, settings.name)
            model = timm.create_model(own, pretrained=True, pretrained_cfg_overlay=place)
    except Exception as error:  # a damaged file can fail with anything
        raise damage_error(path, error) from error
    return model.state_dict(), _timm_source(config)


def _of_timm(config: Any) -> Preprocessing | None:
    if config is None:
        return None
    channels, *_, size = config.input_size
    bilinear = config.interpolation == "bilinear"  # some names ask for kinds that few tools have
    return Preprocessing(
        list(config.mean),
        list(config.std),
        image_size=size,
        interpolation=Interpolation.bilinear if bilinear else Interpolation.bicubic,
        crop=config.crop_pct or EVAL_SHARE,
        channels=channels,
        source=_timm_source(config),
        crop_mode=CropMode(config.crop_mode or "center"),
        cuts=True,
    )


def _of_run(about: Mapping[str, Any], source: str) -> Preprocessing:
    return Preprocessing(
        list(about["mean"]),
        list(about["std"]),
        image_size=about["image_size"],
        interpolation=Interpolation(about.get("interpolation", "bilinear")),  # all that older checkpoints knew
        crop=about.get("crop", EVAL_SHARE),
        crop_mode=CropMode(about.get("crop_mode", "center")),
        channels=about["channels"],
        source=source,
    )
