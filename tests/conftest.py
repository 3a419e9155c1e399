"""What all tests share."""

import signal

import pytest

# A shell starts the background jobs of a script with Ctrl-C ignored; the tests send it to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of whoever runs the tests must not decide what they prove."""
    for name in ("CNNTRAIN_DATA", "HYDRA_FULL_ERROR", "COMP_LINE"):
        monkeypatch.delenv(name, raising=False)
