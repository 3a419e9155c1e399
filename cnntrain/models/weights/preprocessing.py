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
    known = preprocessing(settings.model)
    if known is None:
        return settings, ["the weights do not say how their images were prepared: as the data set's own are"]
    notes = []
    filled = {key: getattr(known, key) for key in missing}
    if "crop" in filled:
        filled["crop"] = known.crop_at(data.eval_size or data.image_size or known.image_size)
    if data.name != "imagefolder":
        if filled.pop("image_size", None):
            notes.append(f"images keep their own size; the weights know {known.image_size} pixels (data.image_size)")
        for key in ("crop", "crop_mode"):
            filled.pop(key, None)  # they are seen whole
    if data.channels == 1:
        filled |= {key: [fmean(filled[key])] for key in ("mean", "std") if key in filled}
    words = {
        "image_size": f"{known.image_size} pixels",
        "interpolation": known.interpolation.name,
        "crop": f"crop {known.crop:.3g}",
        "crop_mode": known.crop_mode.name,
        "mean": "mean and std",
    }
    if known.crop_mode is CropMode.center:
        del words["crop_mode"]
    if told := ", ".join(words[key] for key in words if key in filled):
        notes.insert(0, f"images as {known.source} knows them: {told}")
    return replace(settings, data=replace(data, **filled)), notes
