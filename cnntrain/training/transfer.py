"""What a run does that starts from the weights of another: their preprocessing, the new head, what learns when."""

import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from cnntrain.config.schema.finetune import Mode, NormPolicy
from cnntrain.finetune.batch_norms import recalibrate
from cnntrain.finetune.cached_features import cache, reason_not_to_cache
from cnntrain.models.head import find_head, head_paths
from cnntrain.models.weights.load import Weights, load_weights_into
from cnntrain.runtime import device as machine

if TYPE_CHECKING:
    from cnntrain.runtime.reporter import Reporter
    from cnntrain.runtime.signals import Stop
    from cnntrain.training.job import Job
    from cnntrain.training.loop import Task
    from cnntrain.training.state import Run

MEASURED = 2000  # training images that recalibrated statistics are averages over, at most


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


def use_features(job: "Job", run: "Run", task: "Task", report: "Reporter", stop: "Stop") -> None:
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
            images = (batch.images for batch in islice(batches, -(-MEASURED // train.batch_size)))
            with machine.autocast(job.precision, job.device):
                recalibrate(model, tuning.norms(), images, lambda batch: model(job.normalise(batch)))
        # Of several processes each has measured images of its own, thousands of values in every channel: the spread
        # between their means, which this leaves out, is nothing beside the variance.
        norms = map(model.get_submodule, tuning.norms())
        job.world.mean_([part for norm in norms for part in (norm.running_mean, norm.running_var)])

    return measure
