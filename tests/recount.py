"""Count every network of `cnntrain models` again, on shapes alone; write catalogue.csv, print what entries should say.

    python tests/recount.py

A network of ours has its counts in its entry (config/schema/networks.py): begin with 0 and 0. For another file of
conf/model/ add `name,0,0,1000,3,224,2031,arXiv 3101.00001` to catalogue.csv and run this.
"""

import csv
from dataclasses import astuple, fields, replace

import torch
import yaml
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.networks import NETWORKS
from cnntrain.models.build import build_model
from cnntrain.models.catalogue import FILE, Figures, catalogue, stored


def settings_of(name: str) -> ModelSettings:
    """What `model=NAME` chooses."""
    file = conf_dir() / "model" / f"{name}.yaml"
    schema = OmegaConf.structured(ModelSettings)
    return OmegaConf.to_object(OmegaConf.merge(schema, yaml.safe_load(file.read_text(encoding="utf-8"))))


def recount(figures: Figures) -> Figures:
    """The figures with the counts of the network as it is now, by torch's own counter."""
    classes, channels, size = figures.classes, figures.channels, figures.image_size
    with torch.device("meta"):
        settings = replace(settings_of(figures.name), aux_weight=0.0)
        model, notes = build_model(settings, classes=classes, channels=channels, image_size=size)
        images = torch.empty(1, channels, size, size)
    assert not notes, f"{figures.name} is not as published: {notes}"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(images)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return replace(figures, parameters=parameters, macs=counter.get_total_flops() // 2)


def main() -> None:
    for name, figures in catalogue().items():
        if name in NETWORKS and (now := recount(figures)) != figures:
            print(f"{name}: parameters={now.parameters:_}, macs={now.macs:_}")
    rows = sorted((recount(figures) for figures in stored().values()), key=lambda figures: figures.name)
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(item.name for item in fields(Figures))
        writer.writerows(astuple(figures) for figures in rows)


if __name__ == "__main__":
    main()
