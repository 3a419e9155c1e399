"""Signals: a flag, one line, and nothing left behind."""

import signal
import threading

import pytest

from cnntrain.runtime import signals
from cnntrain.runtime.signals import handle_signals

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@pytest.mark.parametrize(
    ("sent", "told"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGTERM"), ("SIGHUP", "SIGTERM")]
)
def test_a_signal_raises_the_flag_and_prints_one_line(sent: str, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    with handle_signals() as stop:
        assert not stop.requested
        assert stop.signum is None
        signal.raise_signal(signal.Signals[sent])
        assert stop.requested
        assert stop.signum == signal.Signals[told]
    out, err = capfd.readouterr()
    assert out == ""
    again = "; press Ctrl-C again to quit at once" if sent == "SIGINT" else ""  # where nobody has pressed anything
    assert err == f"stopping after this step{again}\n"


@pytest.mark.parametrize("first", ALL)
def test_a_second_ctrl_c_quits_at_once(first: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    with handle_signals() as stop:
        signal.raise_signal(first)
        monkeypatch.setattr(stop, "_since", stop._since - 1)  # a second ago
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_a_wrapper_doubles_counts_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert signals._SAME_PRESS_SECONDS < 0.5
    with handle_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
    assert capfd.readouterr().err.count("\n") == 1


def test_a_second_sigterm_does_not_disturb_the_save() -> None:
    with handle_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop._since -= 1
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signal.SIGTERM


def test_the_old_handlers_come_back_also_after_an_error() -> None:
    before = [signal.getsignal(signum) for signum in ALL]
    with pytest.raises(ZeroDivisionError), handle_signals():
        1 / 0  # noqa: B018
    assert [signal.getsignal(signum) for signum in ALL] == before


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(ignored: signal.Signals) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with handle_signals() as stop:
            signal.raise_signal(ignored)
            assert not stop.requested
    finally:
        signal.signal(ignored, before)


def test_outside_the_main_thread_nothing_is_caught_and_nothing_breaks() -> None:
    seen = []

    def work() -> None:
        with handle_signals() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
