"""Seeds, precision and the choice of the device."""

import os
import sys

import pytest
import torch

from cnntrain.config.schema.trainer import Precision
from cnntrain.errors import ConfigError
from cnntrain.runtime import device as machine
from cnntrain.runtime import host_memory
from cnntrain.runtime.world import World

CPU = torch.device("cpu")


def test_a_generator_depends_on_all_its_parts_and_nothing_else():
    draws = {parts: torch.rand(2, generator=machine.generator(CPU, *parts)) for parts in [(0, 1), (1, 0), (0, 0, 1)]}
    torch.manual_seed(7)
    assert torch.equal(draws[0, 1], torch.rand(2, generator=machine.generator(CPU, 0, 1)))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 3


def test_the_random_state_comes_back():
    machine.seed_everything(1)
    state = machine.rng_state(CPU)
    first = torch.rand(3)
    torch.rand(10)
    machine.restore_rng_state(state, CPU)
    assert torch.equal(first, torch.rand(3))


def test_torch_is_told_of_algorithms_only_where_that_changes_something(monkeypatch):
    told = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", told.append)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    machine.use_repeatable(False)
    assert not told  # torch would import its compiler
    assert torch.backends.cudnn.benchmark
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    machine.use_repeatable(True)
    assert told == [True]
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_workspace_of_cublas_that_does_not_repeat_is_refused_where_cuda_is_there(monkeypatch):
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    machine.use_repeatable(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"trainer\.deterministic: .* \(given :0:0\)"):
        machine.use_repeatable(True)


def test_auto_precision_on_a_cpu_is_fp32_and_slow_choices_warn():
    assert machine.choose_precision(Precision.auto, CPU) == (Precision.fp32, [])
    assert "slow" in machine.choose_precision(Precision.fp16, CPU)[1][0]
    assert "no effect" in machine.choose_precision(Precision.tf32, CPU)[1][0]


def test_bf16_warns_where_the_hardware_lacks_it_and_is_known_to(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert "emulates" in machine.choose_precision(Precision.bf16, torch.device("cuda"))[1][0]
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "Path", lambda path: cpuinfo)
    assert machine.choose_precision(Precision.bf16, CPU)[1] == []  # a Mac has no such file
    cpuinfo.write_text("flags\t: fma avx2 avx512f\n")
    assert "no bf16 units" in machine.choose_precision(Precision.bf16, CPU)[1][0]
    cpuinfo.write_text("Features\t: fp asimd i8mm bf16\n")
    assert machine.choose_precision(Precision.bf16, CPU)[1] == []


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "3200000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_cores_are_no_more_than_the_quota_of_the_container(monkeypatch, tmp_path, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert machine.available_cores() == cores


def test_threads_follow_the_setting_then_the_environment_then_the_cores(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(machine, "available_cores", lambda: 8)
    for threads, wish in ((3, "5"), (None, "5"), (None, "4,2"), (None, ""), (None, "many"), (None, "0")):
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
        machine.set_threads(threads)
    assert chosen == [3, 5, 4, 8, 8, 8]


def test_free_memory_is_half_of_all_where_the_system_does_not_tell(monkeypatch, tmp_path):
    def sysconf(name):  # as on macOS
        return {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 16384}[name]

    monkeypatch.setattr(os, "sysconf", sysconf)
    monkeypatch.setattr(host_memory, "PROC", tmp_path)
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path)
    assert machine.free_memory(CPU) == 500 * 16384


@pytest.mark.parametrize(
    ("folder", "files", "free"),
    [
        (".", {"memory.max": "5000\n", "memory.current": "3000\n"}, 2400),
        (".", {"memory.max": "max\n", "memory.current": "3000\n"}, 7 << 10),
        ("memory", {"memory.limit_in_bytes": "5000\n", "memory.usage_in_bytes": "4900\n"}, 500),
        (".", {}, 7 << 10),
    ],
)
def test_free_memory_ends_at_the_limit_of_the_container(monkeypatch, tmp_path, folder, files, free):
    monkeypatch.setattr(host_memory, "PROC", tmp_path)
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path)
    (tmp_path / "memory").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 7 kB\n")
    for name, text in files.items():
        (tmp_path / folder / name).write_text(text)
    (tmp_path / folder / "memory.stat").write_text("anon 1000\ninactive_file 400\n")
    assert machine.free_memory(CPU) == free


def test_what_torch_holds_and_does_not_use_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 << 30)
    assert machine.free_memory(torch.device("cuda")) == 62 << 30


def test_who_holds_the_memory_of_a_card_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 10 << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 80 << 30))
    others = ", other processes 69.0 GiB (nvidia-smi lists them)"
    assert machine.memory_holders() == f"this process holds 10.0 GiB of the GPU's 80.0 GiB{others}"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (69 << 30, 80 << 30))
    assert machine.memory_holders() == "this process holds 10.0 GiB of the GPU's 80.0 GiB"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_of_one_job_is_not_that_of_the_next():
    machine.reset_peak_memory(CPU)
    before = machine.peak_memory(CPU)
    large = torch.ones(200 << 20, dtype=torch.uint8)
    assert machine.peak_memory(CPU) > before + (150 << 20)
    del large
    machine.reset_peak_memory(CPU)
    assert machine.peak_memory(CPU) < before + (100 << 20)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_a_config_error():
    with pytest.raises(ConfigError, match=r"trainer.device: cuda is not there, no CUDA found; use"):
        machine.choose_device("cuda")


def test_processes_share_the_cores_and_the_memory_of_their_machine(started):
    cores, memory = machine.available_cores(), machine.free_memory(CPU)
    started(1, 2)
    assert machine.available_cores() == max(1, cores // 2)
    assert machine.free_memory(CPU) < memory * 0.75


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
        backend, device = machine.exchange_backend("auto", World(local_rank, 2, local_rank, 2))
        assert (backend, device) == ("cpu:gloo,cuda:nccl", torch.device("cuda:0"))
    assert machine.exchange_backend("cpu", World(0, 2, 0, 2)) == ("gloo", None)
    told = "NCCL error: ncclInvalidUsage. Last error: Duplicate GPU detected : rank 0 and rank 1 both on 1b000"
    with pytest.raises(ConfigError, match=r"several processes were given the same GPU"), World(0, 2).answered():
        raise RuntimeError(told)
