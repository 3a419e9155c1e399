"""The server of the page: on this machine alone, for whoever knows its token, and of these files alone."""

import hmac
import itertools
import json
import math
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

from cnntrain.data.decode import BadImage
from cnntrain.errors import ConfigError
from cnntrain.play.change import Change
from cnntrain.play.network import Network
from cnntrain.text import one_line

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # that a browser on this machine may call it by
ASSETS = Path(__file__).parent / "assets"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
MOST_BYTES = 64 * 2**20  # of a picture
MOST_PICTURES = 64  # that are kept
REST = 20  # times as long as it took, the course of a run is not read again: of many steps that takes seconds
PATIENCE = 30  # seconds for a client that sends nothing, and for an answer that is not done when all ends
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Site:
    """What a request gets. Nothing of a request names a file.

    Args:
        network: is asked.
        progress: what the run has come to, as the page's chart takes it.
    """

    def __init__(self, network: Network, progress: Callable[[], dict[str, Any]]) -> None:
        self.token = secrets.token_urlsafe(24)
        self._network, self._progress = network, progress
        self._pictures: OrderedDict[str, Tensor] = OrderedDict()
        self._course: dict[str, Any] = {}
        self._stale = 0.0  # when it is read again
        self._numbers, self._work = itertools.count(1), threading.Lock()
        self._routes: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("GET", ""): lambda _: _file("page.html"),
            ("GET", "play.js"): lambda _: _file("play.js"),
            ("GET", "play.css"): lambda _: _file("play.css"),
            ("GET", "about"): lambda _: _json(self._network.about()),
            ("GET", "state"): self._state,
            ("GET", "look"): self._look,
            ("GET", "answers"): lambda _: _json(self._network.answers()),
            ("GET", "filters"): lambda _: _json(self._network.first_filters()),
            ("POST", "picture"): self._keep,
            ("POST", "sample"): self._sample,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """A WSGI application."""
        request = Request(environ)
        request.max_content_length = MOST_BYTES
        try:
            response = self._answer(request)
        except HTTPException as fault:
            response = _json({"error": fault.description}, status=fault.code or 500)
        except Exception as fault:  # of a network, which may be the user's own, or of a machine without memory
            response = _json({"error": f"there is no answer to this: {one_line(fault)}"}, status=500)
        response.headers.update(HEADERS)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        _need_own_host(request)
        token, _, name = request.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise Forbidden("the address lacks its token; open the one that `cnntrain play` has told")
        route = self._routes.get((request.method, name))
        if route is None:
            raise NotFound("there is no such page")
        if request.method == "POST":
            _read(request)
        with self._work:  # a large photo takes gigabytes: one at a time
            return route(request)

    def close(self) -> None:
        """Answer nothing any more, once the answer on its way is done: a thread that ends inside of torch aborts."""
        self._work.acquire(timeout=PATIENCE)

    def _state(self, _: Request) -> Response:
        if (begun := time.monotonic()) >= self._stale:
            self._course = self._progress()  # first: of a run that is done, the last save is there
            self._stale = (now := time.monotonic()) + REST * (now - begun)
        self._network.refresh()
        told = {"stamp": self._network.stamp, "weights": self._network.weights, "note": self._network.note}
        return _json({**told, **self._course})

    def _keep(self, request: Request) -> Response:
        """Take a picture from the page; later requests name it by its number."""
        try:
            return _json({"picture": self._add(self._network.view(request.get_data()))})
        except BadImage as fault:
            raise BadRequest(f"this is no picture that can be shown: {fault}") from None

    def _sample(self, request: Request) -> Response:
        samples = self._network.samples
        if not samples:
            raise NotFound("the images of the run are not there")
        sample = samples[int(_number(request, "index", 0, len(samples) - 1))]
        return _json({"picture": self._add(sample.image), "labels": list(sample.labels)})

    def _add(self, image: Tensor) -> str:
        name = str(next(self._numbers))
        self._pictures[name] = image
        while len(self._pictures) > MOST_PICTURES:
            self._pictures.popitem(last=False)
        return name

    def _look(self, request: Request) -> Response:
        image = self._pictures.get(request.args.get("picture", ""))
        if image is None:
            raise NotFound("this picture is no longer kept; give it once more")
        size = image.shape[1]
        change = Change(
            right=_number(request, "right", -size, size),
            down=_number(request, "down", -size, size),
            turn=_number(request, "turn", -180, 180),
            noise=_number(request, "noise", 0, 1),
        )
        classes = len(self._network.classes)
        label = int(_number(request, "label", 0, classes - 1)) if request.args.get("label") else None
        return _json(self._network.look(image, change, request.args.get("layer", ""), label))


def serve(site: Site, port: int) -> ThreadedWSGIServer:
    """A server that is bound to a port (0: any that is free) and waits for `serve_forever`.

    Raises:
        ConfigError: the port is in use, or not to be had.
    """
    try:
        with socket.create_server((HOST, port)) as bound:  # werkzeug would print its own advice, and leave
            return _Server(HOST, port, site, _Quiet, fd=bound.fileno())
    except OSError as error:
        fault = "is not allowed to you" if isinstance(error, PermissionError) else "is in use"
        raise ConfigError(
            f"port: {port} {fault} (given {port}); give another one, or leave it out for any free one"
        ) from error


class _Server(ThreadedWSGIServer):
    """Tells the terminal nothing of requests that are none."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class _Quiet(WSGIRequestHandler):
    """Tells the terminal of no request: the address of each holds the token."""

    timeout = PATIENCE

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


def _need_own_host(request: Request) -> None:
    """Refuse what other pages may have sent: those whose name leads to this machine, and those of other origins."""
    host, _, port = request.host.partition(":")
    if host not in NAMES or (port or "80") != request.environ["SERVER_PORT"]:
        raise Forbidden(f"this page answers as {HOST} alone")
    origin = request.headers.get("Origin")
    if origin is not None and origin not in [f"http://{name}{port and ':'}{port}" for name in NAMES]:
        raise Forbidden("this page answers itself alone")


def _read(request: Request) -> None:
    """Take in what is sent, which may be slow, before others wait for it."""
    try:
        request.get_data()
    except RequestEntityTooLarge:
        raise RequestEntityTooLarge(f"the file is larger than {MOST_BYTES // 2**20} MiB") from None


def _number(request: Request, name: str, low: float, high: float) -> float:
    """A number of the query; 0 where it is not given."""
    text = request.args.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise BadRequest(f"{name}: must be a number from {low:g} to {high:g}")
    return value


def _file(name: str) -> Response:
    path = ASSETS / name
    return Response(path.read_bytes(), content_type=TYPES[path.suffix])


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, allow_nan=False), status, content_type="application/json")
