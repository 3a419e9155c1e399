"""What a training does that starts from the weights of another: the new head, and cached features."""

import time
from dataclasses import replace

from torch import Tensor

from cnntrain.augment.build import Augment
from cnntrain.config.schema.finetune import Mode
from cnntrain.finetune.cached_features import cache, reason_not_to_cache
from cnntrain.finetune.tuning import Tuning
from cnntrain.models.head import find_head, head_paths
from cnntrain.models.weights.load import Weights, load_weights_into
from cnntrain.training.job import TrainJob
from cnntrain.training.state import TrainState


def start_from_weights(job: TrainJob, weights: Weights | None) -> TrainJob:
    """Fill a new network with weights that its settings name; the job comes back with notes of what was loaded.

    The head stays new, unless the weights are those of a run on the same classes.
    """
    if weights is None:
        return job
    settings = job.settings.model
    new_head = weights.classes != job.data.classes if settings.new_head is None else settings.new_head
    new_paths = head_paths(job.model, job.settings.finetune.head) if new_head else []
    frozen_names = set(dict(job.model.named_parameters())) - set(_learner_names(job.tuning)) if job.tuning else ()
    notes = load_weights_into(
        job.model,
        weights,
        new=new_paths,
        allow_missing=settings.allow_missing,
        allow_unused=settings.allow_unused,
        frozen=frozen_names,
    )
    return replace(job, notes=job.notes + notes)


def _learner_names(tuning: Tuning) -> list[str]:
    """Names of the parameters that ever learn."""
    return [name for names in tuning.learner_names() for name in names]


def may_cache(job: TrainJob) -> bool:
    """Whether the head will train on cached features, as far as the settings can tell."""
    settings = job.settings
    if job.tuning is None or settings.finetune.mode is not Mode.A or settings.finetune.cache_features is False:
        return False
    head = find_head(job.model, settings.finetune.head)
    return reason_not_to_cache(settings, job.data.train, head, _learner_names(job.tuning)) is None


def use_features(job: TrainJob, run: TrainState) -> TrainJob:
    """The training of the head alone on cached features, where the settings allow it and nothing but the head changes.

    Elsewhere, and for all that is done with images, the job stays what it is.
    """
    if job.tuning is None:
        return job
    start = time.perf_counter()
    head = find_head(job.model, job.settings.finetune.head)
    loaders = {"train": job.data.train, "val": job.data.val, "probe": job.data.probe}
    features = cache(
        job.settings,
        job.model,
        head,
        {name: loader for name, loader in loaders.items() if loader},
        learners=_learner_names(job.tuning),
        normalize=job.normalize,
        device=job.device,
        precision=job.precision,
        report=job.report,
        stop=job.stop,
    )
    if features is None:
        return job
    run.call(head)
    run.progress.seconds += time.perf_counter() - start  # what training costs begins here
    data = replace(job.data, train=features["train"], val=features.get("val"), probe=features.get("probe"))
    return replace(job, data=data, augment=Augment([], identity), normalize=identity)


def identity(features: Tensor) -> Tensor:
    """Features are ready for the head."""
    return features
