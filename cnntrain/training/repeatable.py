"""trainer.deterministic: whether torch has repeatable algorithms for all that a step does, before the first one."""

import copy

import torch

from cnntrain.errors import ConfigError
from cnntrain.runtime.faults import refused_setting
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.seeds import restore_rng_state, rng_state
from cnntrain.training.job import TrainJob


def check_repeatable(job: TrainJob) -> None:
    """Augment two images, and take them forward and backward through a copy of the network; nothing else changes.

    Raises:
        ConfigError: torch refuses an operation, as some have no repeatable algorithm on this device.
    """
    loader, model = job.loader(0), copy.deepcopy(job.model).train()
    indices = torch.arange(2).clamp(max=len(loader.labels) - 1)
    context, streams = job.context(0, 0, indices), rng_state(job.device)
    try:
        inputs, targets = job.augment(loader.pick(indices), context), loader.labels[indices].to(job.device)
        if job.mix:
            inputs, targets = job.mix(inputs, targets, context)
        with autocast(job.precision, job.device):
            output = model(inputs)
        _, _, objective = job.losses(output, targets)
        objective.backward()
    except RuntimeError as error:
        if line := refused_setting(error):
            raise ConfigError(line) from error
        raise
    finally:
        restore_rng_state(streams, job.device)
