"""Free memory, who holds the rest, and the peak of a job."""

import os
import sys

import pytest
import torch

from cnntrain.runtime import device_memory, host_memory

CPU = torch.device("cpu")


def test_free_memory_is_half_of_all_where_the_system_does_not_tell(monkeypatch, tmp_path):
    def sysconf(name):  # as on macOS
        return {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 16384}[name]

    monkeypatch.setattr(os, "sysconf", sysconf)
    monkeypatch.setattr(host_memory, "PROC", tmp_path)
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path)
    assert device_memory.free_memory(CPU) == 500 * 16384


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
    assert device_memory.free_memory(CPU) == free


def test_what_torch_holds_and_does_not_use_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 << 30)
    assert device_memory.free_memory(torch.device("cuda")) == 62 << 30


def test_who_holds_the_memory_of_a_card_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 10 << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 80 << 30))
    others = ", other processes 69.0 GiB (nvidia-smi lists them)"
    assert device_memory.memory_holders() == f"this process holds 10.0 GiB of the GPU's 80.0 GiB{others}"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (69 << 30, 80 << 30))
    assert device_memory.memory_holders() == "this process holds 10.0 GiB of the GPU's 80.0 GiB"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_of_one_job_is_not_that_of_the_next():
    device_memory.reset_peak_memory(CPU)
    before = device_memory.peak_memory(CPU)
    large = torch.ones(200 << 20, dtype=torch.uint8)
    assert device_memory.peak_memory(CPU) > before + (150 << 20)
    del large
    device_memory.reset_peak_memory(CPU)
    assert device_memory.peak_memory(CPU) < before + (100 << 20)


def test_processes_share_the_memory_of_their_machine(started):
    memory = device_memory.free_memory(CPU)
    started(1, 2)
    assert device_memory.free_memory(CPU) < memory * 0.75
