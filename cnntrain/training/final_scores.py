"""The end of a run: what its best epoch is worth, on images that chose nothing."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from cnntrain.data.loaders import Loader
from cnntrain.runtime.device_memory import peak_memory
from cnntrain.storage import checkpoint
from cnntrain.storage.atomic import write_atomic
from cnntrain.storage.plain import fingerprint
from cnntrain.storage.spreadsheet import cell
from cnntrain.training.job import TrainJob
from cnntrain.training.load_state import load_weights
from cnntrain.training.scoring import need_finite
from cnntrain.training.state import TrainState


def score(job: TrainJob, run: TrainState, folder: Path) -> dict[str, Any]:
    """Scores of the best epoch: validation as measured then, the test split once, now.

    Without validation images, the best epoch is the last one. Without test images, the job's listener hears the best
    epoch's answers to the validation images, where it has not heard them in that epoch.
    """
    progress, data, listener = run.progress, job.data, job.listener
    weights = fingerprint(run.model.state_dict())  # of the last step, before the best epoch comes back
    loader, scores = data.test or data.val, None
    if loader and (data.test or (listener and listener.epoch != progress.best_epoch)):
        load_weights(run.eval_model, run.world.share(best_weights(folder) if run.world.is_first else {}))
        scores = _score_best(job, run, loader)
    splits = {"train": data.train, **data.scored_splits}
    return {
        "status": "done",
        "best_epoch": progress.best_epoch,
        "val": progress.best_scores if data.val else None,
        "test": scores if data.test else None,
        "images": {name: len(loader.labels) for name, loader in splits.items()},
        "images_per_second": round(run.images_per_second(), 1),
        "train_seconds": round(progress.seconds, 2),  # training and validation, without the start and the test
        "phase_seconds": {phase: round(seconds, 2) for phase, seconds in run.spent.total().items()},
        "parameters": job.parameters,
        "trainable_parameters": job.tuning.parameters if job.tuning else job.parameters,
        "peak_memory_bytes": peak_memory(job.device),
        "checkpoint": str(folder / "checkpoints" / "best"),
        "weights_sha256": weights,
    }


def _score_best(job: TrainJob, run: TrainState, loader: Loader) -> dict[str, float]:
    """Scores of the best epoch on the split of a loader, to which the job's listener hears the answers.

    Raises:
        NonFiniteError: the loss is no number.
    """
    is_test = loader is job.data.test
    job.report.validating(len(loader), phase="testing" if is_test else "validating")
    scorer = job.scorer(run.eval_model, most=run.progress.micro_batch)
    hearing = job.listener.hearing(run.eval_model, run.progress.best_epoch) if job.listener else nullcontext()
    with hearing as watch:
        scores = scorer.score(loader, watch=watch, stop=job.stop, advance=job.report.advance)
    need_finite(scores["loss"], f"the loss on the {'test' if is_test else 'validation'} images", run.precision)
    return scores


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the run's best epoch, averaged where the run averages them."""
    state = checkpoint.load(folder / "checkpoints" / "best")
    weights: dict[str, torch.Tensor] = state["ema"]["model"] if state["ema"] else state["model"]
    return weights


def list_bad_images(job: TrainJob, folder: Path) -> int:
    """How many images were skipped (data.on_bad_image=skip); bad_images.tsv names them with the reason."""
    loaders = [loader for loader in (job.data.train, job.data.val, job.data.test) if loader]
    parts = job.world.gather([entry for loader in loaders for entry in loader.bad_files])
    images = sorted({entry for entries in parts for entry in entries})
    if images and job.world.is_first:
        path = folder / "bad_images.tsv"
        write_atomic(path, "".join(f"{cell(name)}\t{cell(reason)}\n" for name, reason in images))
        line = f"{len(images)} bad images were skipped, others stood in for them; {path} names them"
        job.report.warn(f"1 bad image was skipped, another stood in; {path} names it" if len(images) == 1 else line)
    return len(images)
