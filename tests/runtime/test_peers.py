"""A process that ends without a word is missed by all others at once; one that says goodbye is not."""

import socket
import threading
import time
from functools import partial

import pytest

from cnntrain.runtime import peers
from cnntrain.runtime.peers import Peers


class Store:
    """What processes share, in one."""

    def __init__(self):
        self.values = {}

    def set(self, key, value):
        self.values[key] = value.encode()

    def get(self, key):
        return self.values[key]


class Processes:
    """Three of them, each in threads of its own, and which were ended when."""

    def __init__(self):
        self.store, self.ended = Store(), {}
        self.peers = [self.start(0)]
        self.port, self.word = self.store.get(peers.KEY).split()

    def start(self, rank):
        return Peers(rank, 3, "127.0.0.1", self.store, partial(self.end, rank))

    def meet(self):
        self.peers += [self.start(1), self.start(2)]
        self.begin = time.monotonic()
        while [len(one._peers) for one in self.peers] != [2, 1, 1]:
            assert time.monotonic() - self.begin < 10
            time.sleep(0.01)
        return self

    def end(self, rank):
        self.ended[rank] = time.monotonic() - self.begin

    def kill(self, rank):
        """Its connections break, as the kernel closes them, without a goodbye."""
        self.peers[rank].leave(together=False)


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(peers, "GRACE", 0.3)
    started = Processes()
    yield started
    for one in started.peers:
        one.leave(together=True)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_killed_process_ends_all_others(processes, lost):
    processes.meet().kill(lost)
    time.sleep(1.5)
    assert set(processes.ended) == {0, 1, 2} - {lost}
    assert min(processes.ended.values()) >= 0.3


def test_a_process_that_has_lost_another_may_leave_by_itself(processes):
    processes.meet().kill(2)
    processes.peers[0].leave(together=False)
    processes.peers[1].leave(together=False)
    time.sleep(0.6)
    assert processes.ended == {}


def test_processes_that_leave_together_end_none(processes):
    processes.meet()
    for rank in (1, 0, 2):
        processes.peers[rank].leave(together=True)
        time.sleep(0.2)
    time.sleep(0.5)
    assert processes.ended == {}
    assert not [thread for thread in threading.enumerate() if thread.name == "peers" and thread.is_alive()]


def test_a_stranger_is_not_let_in(processes):
    with socket.create_connection(("127.0.0.1", int(processes.port))) as stranger:
        stranger.sendall(b"x" * len(processes.word))
        processes.meet()
    time.sleep(0.5)
    assert processes.ended == {}
