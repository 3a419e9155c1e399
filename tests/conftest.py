"""What all tests share."""

import gc
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Fixtures of several files.
pytest_plugins = ["command_calls", "pages", "predicted", "runs", "set_runs"]

# A shell starts the background jobs of a script with Ctrl-C ignored, and nohup those that outlive it with SIGHUP; the
# tests send both to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What one run of a property finds, every run finds.
settings.register_profile("repeatable", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """The modules stay to the end: nobody need look through them for garbage again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Pass over what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The test runs on the CPU, and on the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """As if this process were one of several, once its rank and their number are given."""

    def start(rank: int, size: int) -> None:
        from processes import environment

        for name, value in environment(rank, size).items():
            monkeypatch.setenv(name, value)

    return start


@pytest.fixture
def plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products as sums that round each term; some libraries fuse them, which moves torchvision's pixels."""

    def bmm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        columns = zip(left.unbind(2), right.unbind(1), strict=True)
        first, *others = (a.unsqueeze(2) * b.unsqueeze(1) for a, b in columns)
        return sum(others, first)

    monkeypatch.setattr(torch.Tensor, "bmm", bmm)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of whoever runs the tests must not decide what they prove."""
    for name in ("CNNTRAIN_DATA", "HYDRA_FULL_ERROR", "COMP_LINE"):
        monkeypatch.delenv(name, raising=False)
