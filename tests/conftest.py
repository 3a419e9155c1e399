"""What all tests share."""

import functools
import gc
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.config_repository import ConfigRepository, ObjectType
from hydra._internal.hydra import Hydra
from hypothesis import settings

from cnntrain.config import load as config

# A shell starts the background jobs of a script with Ctrl-C ignored; the tests send it to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What one run of a property finds, every run finds.
settings.register_profile("repeatable", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("repeatable")

# A process composes our own conf/ once; the tests do so a thousand times, which costs 150 ms each.
_fresh, _shared = config.composer, functools.cache(config.composer)
config.composer = lambda config_dir=None, config_name="train": (
    _fresh(config_dir, config_name) if config_dir else _shared(config_name=config_name)
)

# Hydra reads the files of our own conf/ again for each line that it composes, which takes a third of the time.
_OURS, _read = (str(config.conf_dir()), "hydra.conf"), ConfigRepository.load_config
_known: dict[tuple[str, str], Any] = {}


def _load_config(self: ConfigRepository, config_path: str) -> Any:
    source = self._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.path not in _OURS:
        return _read(self, config_path)
    if (place := (source.path, config_path)) not in _known:
        _known[place] = _read(self, config_path)
    return _known[place]


ConfigRepository.load_config = _load_config

# To learn whether hydra.mode is set, Hydra composes each line once more; without files of a user's only a word sets it.
_PLACES, _asked = {"pkg://hydra.conf", _OURS[0], "structured://"}, Hydra.get_mode


def _get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    places = {place.path for place in self.config_loader.get_search_path().get_path()}
    typed = any(word.lstrip("+~").startswith(("hydra.mode", "hydra.searchpath")) for word in overrides)
    return _asked(self, config_name, overrides) if typed or places != _PLACES else None


Hydra.get_mode = _get_mode


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


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of whoever runs the tests must not decide what they prove."""
    for name in ("CNNTRAIN_DATA", "HYDRA_FULL_ERROR", "COMP_LINE"):
        monkeypatch.delenv(name, raising=False)
