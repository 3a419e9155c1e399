"""Seeds, precision and the choice of the device."""

import pytest
import torch

from cnntrain import device as machine
from cnntrain.errors import ConfigError
from cnntrain.settings.trainer import Precision

CPU = torch.device("cpu")


def test_a_generator_depends_on_all_its_parts_and_nothing_else():
    draws = {parts: torch.rand(2, generator=machine.generator(CPU, *parts)) for parts in [(0, 1), (1, 0), (0, 0, 1)]}
    torch.manual_seed(7)
    assert torch.equal(draws[0, 1], torch.rand(2, generator=machine.generator(CPU, 0, 1)))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 3


def test_the_random_state_comes_back():
    machine.seed_everything(1, deterministic=False)
    state = machine.rng_state(CPU)
    first = torch.rand(3)
    torch.rand(10)
    machine.restore_rng_state(state, CPU)
    assert torch.equal(first, torch.rand(3))


def test_auto_precision_on_a_cpu_is_fp32_and_slow_choices_warn():
    assert machine.choose_precision(Precision.auto, CPU) == (Precision.fp32, [])
    assert "slow" in machine.choose_precision(Precision.fp16, CPU)[1][0]
    assert "no effect" in machine.choose_precision(Precision.tf32, CPU)[1][0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_a_config_error():
    with pytest.raises(ConfigError, match=r"trainer.device: cuda is not there, no CUDA found; use"):
        machine.choose_device("cuda")
