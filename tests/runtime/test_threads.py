"""Cores and threads of a process."""

import os

import pytest
import torch

from cnntrain.runtime import threads


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
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert threads.available_cores() == cores


def test_threads_follow_the_setting_then_the_environment_then_the_cores(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    for count, wish in ((3, "5"), (None, "5"), (None, "4,2"), (None, ""), (None, "many"), (None, "0")):
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
        threads.set_threads(count)
    assert chosen == [3, 5, 4, 8, 8, 8]


def test_processes_share_the_cores_of_their_machine(started):
    cores = threads.available_cores()
    started(1, 2)
    assert threads.available_cores() == max(1, cores // 2)
