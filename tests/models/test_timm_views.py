"""What a network sees in validation is what timm's own pipeline shows it, down to the logits."""

import math
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg
from timm.models._registry import _model_pretrained_cfgs as CONFIGS
from torchvision import models

from cnntrain.augment.build import build_normalize
from cnntrain.config.schema.data import CropMode, DataSettings
from cnntrain.config.schema.model import Library, ModelSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.data.build import build_eval_data
from cnntrain.data.view import View
from cnntrain.models.weights import pretrained
from cnntrain.models.weights.preprocessing import follow_weights

SHAPES = [(300, 400), (401, 299), (256, 256), (120, 470), (90, 97)]  # height, width
NETWORKS: dict[str, dict[str, Any]] = {  # and what of its published config is changed, for kinds that only giants have
    "resnet18": {},  # 0.95
    "vit_tiny_patch16_224": {},  # 0.9
    "convnext_atto": {},  # 0.875
    "tf_mobilenetv3_small_100": {},  # 0.875, bilinear
    "xcit_nano_12_p16_224": {},  # 1
    "regnety_004": {},  # 0.965
    "mobilevit_xxs": {},  # 0.9, 256 pixels
    "tf_efficientnetv2_b3": {},  # 0.9, squash, 240 pixels
    "ghostnet_050": {"crop_mode": "border", "crop_pct": 1.0},
    "levit_128s": {"crop_mode": "border", "crop_pct": 0.91, "interpolation": "bilinear"},
    "mobilenetv3_small_050": {"crop_pct": 1.15, "input_size": (3, 192, 192)},  # as VOLO has it: black around
    "lcnet_050": {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear"},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Smooth pictures of many shapes, as JPEG and PNG files of one class folder, beside one of another class."""
    root = tmp_path_factory.mktemp("photos")
    draw = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        (root / "val" / name).mkdir(parents=True)
    for index, (height, width) in enumerate(SHAPES):
        coarse = 255 * torch.rand(1, 3, height // 12, width // 12, generator=draw)
        smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0)
        kind = "png" if index % 2 else "jpg"
        Image.fromarray(smooth.byte().numpy()).save(root / "val" / "ab"[index > 3] / f"{index}.{kind}", quality=95)
    return root


def ours(photos, name):
    """Images as validation hands them to the network, by way of the settings, and those settings."""
    data = DataSettings(name="imagefolder", root=str(photos), workers=0)
    model = ModelSettings(name=name, library=Library.timm, pretrained=True)
    settings, _ = follow_weights(replace(Settings(), data=data, model=model))
    found = build_eval_data(settings.data, seed=0, device=torch.device("cpu"), splits=("val",), say=list)
    images = torch.cat([images for images, *_ in found.val.batches()])
    return build_normalize(found.mean, found.std, channels_last=False)(images), settings.data


def theirs(photos, config):
    transform = create_transform(**resolve_data_config(pretrained_cfg=config.to_dict()))
    files = sorted((photos / "val").rglob("*.*"), key=lambda file: (file.parent.name, file.name))
    return torch.stack([transform(Image.open(file).convert("RGB")) for file in files])


@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_and_logits_equal_those_of_timms_own_pipeline(name, photos, monkeypatch):
    published = get_pretrained_cfg(name)
    assert published
    config = replace(published, **NETWORKS[name])
    monkeypatch.setattr(pretrained, "_timm_config", lambda _: config)
    mine, data = ours(photos, name)
    wanted = theirs(photos, config)
    assert mine.shape == wanted.shape
    levels = (mine - wanted).abs() * 255 * torch.tensor(data.std).view(1, 3, 1, 1)
    assert levels.max() < 2.1
    assert levels.mean() < 0.1
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    with torch.no_grad():
        logits = network(wanted)
        spread = (logits - logits.mean(0)).std()  # random networks answer all pictures nearly alike
        assert (network(mine) - logits).abs().max() < 0.05 * spread.clamp_max(1)


def test_every_config_of_timm_is_resized_to_timms_number_of_pixels():
    square = {name: config for name, config in CONFIGS.items() if config.input_size[1] == config.input_size[2]}
    assert len(square) > 3000
    rounded = 0
    for name, config in square.items():
        known = pretrained._of_timm(config)
        assert known.crop_mode.name == config.crop_mode
        short = View(known.image_size, known.crop_at(known.image_size)).short_side
        assert short == math.floor(config.input_size[-1] / config.crop_pct), name
        rounded += short != round(config.input_size[-1] / config.crop_pct)
    assert rounded > 900  # which a rounded quotient would get wrong


@pytest.mark.parametrize("size", [96, 224, 288, 333])
def test_another_size_is_resized_as_timm_does_it_too(size):
    known = pretrained._of_timm(get_pretrained_cfg("resnet18"))
    assert View(size, known.crop_at(size)).short_side == math.floor(size / 0.95)


def test_every_network_of_torchvision_is_resized_to_the_size_that_it_publishes():
    names = pretrained._torchvision_names()
    assert len(names) > 70
    for name in names:
        published = models.get_model_weights(name).DEFAULT.transforms()
        known = pretrained.preprocessing(ModelSettings(name=name, library=Library.torchvision, pretrained=True))
        assert known.crop_mode is CropMode.center
        assert View(known.image_size, known.crop_at(known.image_size)).short_side == published.resize_size[0], name
