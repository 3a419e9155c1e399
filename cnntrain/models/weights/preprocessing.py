"""Images prepared as the weights to start from know them."""

from dataclasses import replace
from statistics import fmean

from cnntrain.config.schema.data import CropMode
from cnntrain.config.schema.settings import Settings
from cnntrain.models.weights.pretrained import preprocessing

FILLED = ("image_size", "channels", "mean", "std", "interpolation", "crop", "crop_mode")


def follow_weights(settings: Settings) -> tuple[Settings, list[str]]:
    """Settings whose images are prepared as the weights know them, where the user says nothing; and lines on that."""
    data = settings.data
    missing = [key for key in FILLED if getattr(data, key) is None]
    if not missing or not (settings.model.pretrained or settings.model.weights):
        return settings, []
    published = preprocessing(settings.model)
    if published is None:
        return settings, ["the weights do not say how their images were prepared: as the data set's own are"]
    notes = []
    values = {key: getattr(published, key) for key in missing}
    if "crop" in values:
        values["crop"] = published.crop_at(data.eval_size or data.image_size or published.image_size)
    if not data.has_files:
        if values.pop("image_size", None):
            notes.append(
                f"images keep their own size; the weights know {published.image_size} pixels (data.image_size)"
            )
        for key in ("crop", "crop_mode"):
            values.pop(key, None)  # they are seen whole
    if data.channels == 1:
        values |= {key: [fmean(values[key])] for key in ("mean", "std") if key in values}
    words = {
        "image_size": f"{published.image_size} pixels",
        "interpolation": published.interpolation.name,
        "crop": f"crop {published.crop:.3g}",
        "crop_mode": published.crop_mode.name,
        "mean": "mean and std",
    }
    if published.crop_mode is CropMode.center:
        del words["crop_mode"]
    if facts := ", ".join(words[key] for key in words if key in values):
        notes.insert(0, f"images as {published.source} knows them: {facts}")
    return replace(settings, data=replace(data, **values)), notes
