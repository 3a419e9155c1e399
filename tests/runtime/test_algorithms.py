"""torch is told of repeatable algorithms, and of none where nothing changes."""

import os

import pytest
import torch

from cnntrain.errors import ConfigError
from cnntrain.runtime import algorithms


def test_torch_is_told_of_algorithms_only_where_that_changes_something(monkeypatch):
    told = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", told.append)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    algorithms.use_repeatable(False)
    assert not told  # torch would import its compiler
    assert torch.backends.cudnn.benchmark
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    algorithms.use_repeatable(True)
    assert told == [True]
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_workspace_of_cublas_that_does_not_repeat_is_refused_where_cuda_is_there(monkeypatch):
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    algorithms.use_repeatable(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"trainer\.deterministic: .* \(given :0:0\)"):
        algorithms.use_repeatable(True)
