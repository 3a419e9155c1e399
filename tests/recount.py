"""Count every network of cnntrain/models/catalogue.csv again, on shapes alone, and write the file.

    python tests/recount.py

For a new network add `name,0,0,224,2031,arXiv 3101.00001` to the file and run this.
"""

import csv
from dataclasses import astuple, replace

import torch
import yaml
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from cnntrain.config.paths import conf_dir
from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.nets import NATIVE
from cnntrain.models.build import build_model
from cnntrain.models.catalogue import COLUMNS, FILE, Entry, catalogue


def settings_of(name: str) -> ModelSettings:
    """What `model=NAME` chooses."""
    file = conf_dir() / "model" / f"{name}.yaml"
    schema = OmegaConf.structured(ModelSettings)
    return OmegaConf.to_object(OmegaConf.merge(schema, yaml.safe_load(file.read_text(encoding="utf-8"))))


def recount(entry: Entry) -> Entry:
    """The entry with the counts of the network as it is now, by torch's own counter."""
    classes, channels, image_size = NATIVE.get(entry.name, (1000, 3, entry.image_size))
    with torch.device("meta"):
        settings = replace(settings_of(entry.name), aux_weight=0.0)
        model, notes = build_model(settings, classes=classes, channels=channels, image_size=image_size)
        images = torch.empty(1, channels, image_size, image_size)
    assert not notes, f"{entry.name} is not as published: {notes}"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(images)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return replace(entry, parameters=parameters, macs=counter.get_total_flops() // 2, image_size=image_size)


def main() -> None:
    entries = sorted((recount(entry) for entry in catalogue().values()), key=lambda entry: entry.name)
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(entry) for entry in entries)


if __name__ == "__main__":
    main()
