"""The form of a checkpoint's state: what stands where in it, whoever wrote it and whatever its manifest says.

Only types and ranges are looked at; whether it fits the network and the optimizer is found where it is put into them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.schema.data import CropMode, DataSettings, Interpolation

Check = Callable[[Any], bool]
_MOST = 2**53  # a number above it counts nothing, neither images nor seconds
_DATA = {item.name: item.metadata for item in fields(DataSettings)}  # what the settings say of their own limits


def _whole(least: int, most: int = _MOST) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _real(least: float, most: float = math.inf) -> Check:
    return lambda value: type(value) in (int, float) and least <= value <= most and math.isfinite(value)


def _seconds(value: Any) -> bool:
    return _real(0, _MOST)(value)


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, (list, tuple)) and all(map(check, value))


def _text(value: Any) -> bool:
    return type(value) is str


def _loss(value: Any) -> bool:
    return type(value) in (int, float)  # NaN or infinite, where there is none yet


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _by_text(check: Check) -> Check:
    return lambda value: _mapping(value) and all(_text(key) and check(part) for key, part in value.items())


def _tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not (value.is_quantized or value.is_meta)


def _tensor_or_none(value: Any) -> bool:
    return value is None or _tensor(value)


def _group(value: Any) -> bool:
    return _by_text(lambda part: True)(value) and _list(_whole(0))(value.get("params"))


def _entry(value: Any) -> bool:
    """What an optimizer knows of a parameter: tensors, lists of them, plain numbers and flags."""
    return _tensor_or_none(value) or type(value) in (bool, int, float) or _list(_tensor)(value)


def _entries(value: Any) -> bool:
    return _mapping(value) and all(_whole(0)(key) and _by_text(_entry)(part) for key, part in value.items())


_WINDOW = {"sums": lambda value: _list(_real(-1e300, 1e300))(value) and len(value) == 3, "images": _whole(0)}
_RNG = {"python": lambda value: _list(lambda part: True)(value) and len(value) == 3, "torch": _tensor}
# A name with "?" may be missing, as in the checkpoints of older versions; None stands for what is switched off.
FORM: dict[str, Any] = {
    "model": _by_text(_tensor),
    "ema": (None, {"model": _by_text(_tensor), "updates": _whole(0)}),
    "optimizer": {"state": _entries, "param_groups": _list(_group)},
    "scaler": _by_text(_real(0)),
    "progress": {
        **{name: _whole(0) for name in ("epoch", "batch", "step", "best_epoch")},
        **{f"{name}?": _whole(0) for name in ("images", "waited", "micro_batch")},
        "validated_step?": _whole(-1),
        "step_offset?": _whole(-_MOST),
        "seconds": _seconds,
        **{f"{name}?": _seconds for name in ("epoch_started", "train_seconds", "epoch_train_seconds")},
        **{f"{name}?": _real(-1, 1) for name in ("best_top1", "best_top5", "best_map")},
        "thresholds?": _list(_real(0, 1)),
        "best_loss?": _loss,
    },
    "plateau": {"factor": _real(0), "best": _loss, "waited": _whole(0)},
    "pace?": {
        **{name: _real(0, 1) for name in ("place", "rate")},
        "step": _whole(0),
        "first_step": _whole(-1),
        "first_seconds": _seconds,
        "is_saved": lambda value: type(value) is bool,
    },
    "spent?": {"epoch": _by_text(_seconds), "run": _by_text(_seconds)},
    "tuning?": (
        None,
        {"epoch": _whole(-1), "learning": _list(_text), "digests": _by_text(_text), "learners": _list(_list(_text))},
    ),
    "windows": {"epoch": _WINDOW, "log": _WINDOW},
    "rng": _RNG,
    "rng_others?": [_RNG],
    "about": {
        "run_id": _text,
        "config": _by_text(lambda value: True),
        "classes": lambda value: _list(_text)(value) and 0 < len(set(value)) == len(value),
        "channels": _whole(1, 3),
        "image_size": _whole(1, _DATA["image_size"]["most"]),
        "mean": _list(_real(-math.inf)),
        "std": _list(_real(1e-9)),
        "interpolation?": lambda value: value in [item.value for item in Interpolation],
        "crop?": _real(0.01, _DATA["crop"]["limits"]["<="]),
        "crop_mode?": lambda value: value in [item.value for item in CropMode],
        "data_fingerprint": _text,
        "marks?": _by_text(_text),
        "processes?": _whole(1),
    },
}


def fault(state: Mapping[str, Any]) -> str | None:
    """The first place, such as "progress.epoch", where a state has not the form that we read; None where it has it."""
    wrong = next(_wrong(state, FORM, ""), None)
    if wrong:
        return wrong
    about, progress, ema = (state.get(name) for name in ("about", "progress", "ema"))
    if about and not len(about["mean"]) == len(about["std"]) == about["channels"]:
        return "about.mean"
    if progress and progress.get("step_offset", 0) > progress["step"]:
        return "progress.step_offset"
    if progress and ema and ema["updates"] > progress["step"]:
        return "ema.updates"
    return None


def largest(state: Mapping[str, Any]) -> str | None:
    """The first place of a count so large that a run which goes on from it would soon leave the form; None: no such."""
    counts = {
        f"progress.{name}": value
        for name, value in state["progress"].items()
        if name not in ("best_loss", "thresholds")
    }
    counts["plateau.waited"] = state["plateau"]["waited"]
    for part, seconds in state.get("spent", {}).items():
        counts[f"spent.{part}"] = max(seconds.values(), default=0)
    for name, window in state["windows"].items():
        counts[f"windows.{name}.images"] = window["images"]
        counts[f"windows.{name}.sums"] = max(map(abs, window["sums"])) * 1e-200  # a loss may be as large as it likes
    return next((name for name, value in counts.items() if abs(value) > _MOST / 2), None)


def _wrong(value: Any, form: Any, place: str) -> Iterator[str]:
    """The places where a value has not the form; unknown names are a newer version's, but in the progress."""
    if isinstance(form, tuple):
        if value is not None:
            yield from _wrong(value, form[1], place)
    elif isinstance(form, list):
        parts = value if isinstance(value, (list, tuple)) else [None]
        for number, part in enumerate(parts):
            yield from _wrong(part, form[0], f"{place}.{number}")
    elif not isinstance(form, dict):
        if not form(value):
            yield place
    elif not isinstance(value, dict):
        yield place or "content"
    else:
        for name, part in form.items():
            bare = name.removesuffix("?")
            if bare in value or name == bare:
                yield from _wrong(value.get(bare), part, f"{place}.{bare}".removeprefix("."))
        if place == "progress":
            yield from (f"{place}.{name}"[:80] for name in value if not {name, f"{name}?"} & form.keys())
