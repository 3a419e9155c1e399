"""What a run does that starts from the weights of another: their preprocessing, the new head, what learns when."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING

from cnntrain.config.schema.data import CropMode
from cnntrain.config.schema.finetune import Mode, NormPolicy
from cnntrain.config.schema.settings import Settings
from cnntrain.finetune.batch_norms import recalibrate
from cnntrain.finetune.cached_features import cache, reason_not_to_cache
from cnntrain.finetune.layer_groups import layer_groups
from cnntrain.finetune.tuning import Tuning
from cnntrain.models.head import find_head, head_paths
from cnntrain.models.weights.load import Weights, load_weights_into
from cnntrain.models.weights.pretrained import preprocessing
from cnntrain.runtime import device as machine

if TYPE_CHECKING:
    from cnntrain.report.run_report import Report
    from cnntrain.runtime.signals import Stop
    from cnntrain.training.job import Job
    from cnntrain.training.loop import Task
    from cnntrain.training.state import Run

MEASURED = 2000  # training images that recalibrated statistics are averages over, at most
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


def start_from_weights(job: "Job", weights: Weights | None) -> None:
    """Fill a new network with weights that its settings name; what was loaded goes into the job's notes.

    The head stays new, unless the weights are those of a run on the same classes.
    """
    if weights is None:
        return
    settings = job.settings.model
    new_head = weights.classes != job.data.classes if settings.new_head is None else settings.new_head
    new = head_paths(job.model, job.settings.finetune.head) if new_head else []
    frozen = set(dict(job.model.named_parameters())) - set(_learning(job)) if job.tuning else ()
    job.notes += load_weights_into(
        job.model,
        weights,
        new=new,
        allow_missing=settings.allow_missing,
        allow_unused=settings.allow_unused,
        frozen=frozen,
    )


def build_tuning(job: "Job") -> Tuning | None:
    """What of the network learns when; None where it is trained from scratch."""
    settings = job.settings.finetune
    if settings.mode is Mode.none:
        return None
    return Tuning(job.model, layer_groups(job.model, settings), settings)


def _learning(job: "Job") -> list[str]:
    """Names of the parameters that ever learn."""
    assert job.tuning is not None
    return [name for names in job.tuning.held() for name in names]


def may_cache(job: "Job") -> bool:
    """Whether the head will train on cached features, as far as the settings can tell."""
    settings, train = job.settings, job.data.train
    assert train is not None
    if settings.finetune.mode is not Mode.A or settings.finetune.cache_features is False:
        return False
    head = find_head(job.model, settings.finetune.head)
    return reason_not_to_cache(settings, train, head, _learning(job)) is None


def use_features(job: "Job", run: "Run", task: "Task", report: "Report", stop: "Stop") -> None:
    """Let the head train on cached features, where the settings allow it and nothing but the head changes."""
    if job.tuning is None:
        return
    start = time.perf_counter()
    head = find_head(job.model, job.settings.finetune.head)
    loaders = {"train": task.train, "val": task.val, "probe": task.probe}
    splits = {name: loader for name, loader in loaders.items() if loader}
    features = cache(
        job.settings,
        job.model,
        head,
        splits,
        learning=_learning(job),
        normalise=job.normalise,
        device=job.device,
        precision=job.precision,
        report=report,
        stop=stop,
    )
    if features is None:
        return
    run.call(head)
    task.train, task.val, task.probe = features["train"], features.get("val"), features.get("probe")
    task.augment, task.normalise = (lambda given, moment: given), (lambda given: given)
    run.progress.seconds += time.perf_counter() - start  # what training costs begins here


def recalibration(job: "Job", run: "Run") -> Callable[[], None] | None:
    """Measures the statistics of batch norms that learn anew before each validation, where the settings want it."""
    if job.tuning is None or job.tuning.norm is not NormPolicy.recalibrate:
        return None
    tuning, train = job.tuning, job.data.train
    assert train is not None

    def measure() -> None:
        model = run.eval_model
        with closing(train.batches()) as batches:  # shuffled: the first images of a folder are all of one class
            images = (images for images, _ in islice(batches, -(-MEASURED // train.batch_size)))
            with machine.autocast(job.precision, job.device):
                recalibrate(model, tuning.norms(), images, lambda batch: model(job.normalise(batch)))
        # Of several processes each has measured images of its own, thousands of values in every channel: the spread
        # between their means, which this leaves out, is nothing beside the variance.
        norms = map(model.get_submodule, tuning.norms())
        job.world.mean_([part for norm in norms for part in (norm.running_mean, norm.running_var)])

    return measure
