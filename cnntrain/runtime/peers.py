"""Whether the other processes of a run live: each holds a connection to the first one, which tells of an end at once.

An exchange over NCCL does not end where a process was killed: the GPU waits for it, and the host for the GPU. So a
thread waits for the connection to break, gives the process a few seconds to find out by itself, and then ends it.
"""

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

KEY = "peers"  # in the store: where the first process is met, and the word that lets one in
GOODBYE, LOST = b".", b"!"
WORD_BYTES = 16
GRACE = 8.0  # seconds to leave by itself, for a process that has lost another
MEETING = 60.0  # seconds to come, and to be waited for
KEEPALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}  # a machine that is gone is found in 10 seconds


class Peers:
    """The connections of this process, watched by a thread until it leaves.

    A process whose connections cannot be made is not watched.

    Args:
        rank: of this process; `size`: how many there are.
        host: where the first process is met.
        store: of key-value pairs that all processes share.
        end: ends this process; called in the thread, `GRACE` seconds after another process was lost.
    """

    def __init__(self, rank: int, size: int, host: str, store: Any, end: Callable[[], object]) -> None:
        self._size, self._end = size, end
        self._left, self._peers = threading.Event(), list[socket.socket]()
        if rank == 0:
            word = secrets.token_hex(WORD_BYTES // 2).encode()
            server = _open_server()
            store.set(KEY, f"{server.getsockname()[1]} {word.decode()}")
            meet = partial(self._receive, server, word)
        else:
            port, word = store.get(KEY).split()
            meet = partial(self._join, (host, int(port)), word)
        threading.Thread(target=self._watch, args=(meet,), name="peers", daemon=True).start()

    def leave(self, *, together: bool) -> None:
        """Watch no longer.

        Args:
            together: the others leave as well; else they are told that this process is lost to them.
        """
        self._left.set()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                if together:
                    peer.sendall(GOODBYE)
                peer.shutdown(socket.SHUT_RDWR if not together else socket.SHUT_WR)

    def _watch(self, meet: Callable[[], None]) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            try:
                meet()
            except OSError:
                return
            if self._left.is_set() or not self._wait_for_loss():
                return
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.sendall(LOST)
            if not self._left.wait(GRACE):
                self._end()

    def _close(self) -> None:
        for peer in self._peers:
            peer.close()

    def _receive(self, server: socket.socket, word: bytes) -> None:
        """As the first process, let in those that know the word."""
        ends = time.monotonic() + MEETING
        with server:
            while len(self._peers) < self._size - 1 and not self._left.is_set():
                server.settimeout(max(0.0, ends - time.monotonic()))
                peer, _ = server.accept()
                peer.settimeout(5)
                with contextlib.suppress(OSError):
                    if peer.recv(WORD_BYTES, socket.MSG_WAITALL) == word:
                        self._peers.append(_lasting(peer))
                        continue
                peer.close()

    def _join(self, place: tuple[str, int], word: bytes) -> None:
        peer = socket.create_connection(place, MEETING)
        peer.sendall(word)
        self._peers.append(_lasting(peer))

    def _wait_for_loss(self) -> bool:
        """Whether a process was lost before all of them, or this one, have left."""
        with selectors.DefaultSelector() as waiting:
            for peer in self._peers:
                waiting.register(peer, selectors.EVENT_READ)
            while waiting.get_map():
                for key, _ in waiting.select():
                    said = b""
                    with contextlib.suppress(OSError):
                        said = key.fileobj.recv(1)  # type: ignore[union-attr]
                    if self._left.is_set():
                        return False
                    if said != GOODBYE:
                        return True
                    waiting.unregister(key.fileobj)
        return False


def _open_server() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _lasting(peer: socket.socket) -> socket.socket:
    """A connection that waits for as long as the other machine answers."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer


def end_process(line: str, code: int) -> None:
    """End this process at once, whatever its other threads wait for; `line` is told on stderr."""
    with contextlib.suppress(OSError, ValueError):
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream and stream.isatty():
                os.write(stream.fileno(), b"\x1b[?25h\n")  # the cursor, which a progress bar hides
        if line and sys.__stderr__:
            os.write(sys.__stderr__.fileno(), f"cnntrain: error: {line}\n".encode())
    os._exit(code)
