"""The choice of the device, by one process and by several."""

import pytest
import torch

from cnntrain.errors import ConfigError
from cnntrain.runtime import device as machine
from cnntrain.runtime.world import World

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_a_config_error():
    with pytest.raises(ConfigError, match=r"trainer.device: cuda is not there, no CUDA found; use"):
        machine.choose_device("cuda")


def test_a_single_device_is_refused_for_several_processes(started):
    assert machine.choose_device("cpu", World(1, 2, 1, 2)) == CPU
    for name in ("cuda:0", "mps"):
        with pytest.raises(ConfigError, match=rf"trainer.device: {name} is a single device, and 2 processes"):
            machine.choose_device(name, World(1, 2, 1, 2))


def test_each_process_takes_the_gpu_of_its_place(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert machine.choose_device("auto", World(3, 4, 1, 2)) == torch.device("cuda:1")
    assert chosen == [1]
    with pytest.raises(ConfigError, match=r"4 processes on this machine, and 2 CUDA device\(s\); start as many"):
        machine.choose_device("cuda", World(0, 4, 0, 4))


def test_a_process_takes_the_only_gpu_that_it_sees(monkeypatch):
    """As with --gpus-per-task=1 of Slurm; where several see the same one, NCCL says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    for local_rank in range(2):
        backend, device = machine.exchange_backend("auto", False, World(local_rank, 2, local_rank, 2))
        assert (backend, device) == ("cpu:gloo,cuda:nccl", torch.device("cuda:0"))
    assert machine.exchange_backend("cpu", False, World(0, 2, 0, 2)) == ("gloo", None)
    told = "NCCL error: ncclInvalidUsage. Last error: Duplicate GPU detected : rank 0 and rank 1 both on 1b000"
    with pytest.raises(ConfigError, match=r"several processes were given the same GPU"), World(0, 2).answered():
        raise RuntimeError(told)
