"""A headless Chromium that tests drive: over a pipe, by its DevTools protocol, without a library for it."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 20.0  # seconds


class Browser:
    """One page."""

    def __init__(self, process: "subprocess.Popen[bytes]", to: int, of: int) -> None:
        self._process, self._to, self._of = process, to, of
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = ""
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What a command of the protocol answers."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if getattr(self, "_session", ""):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found["error"]
                answer: dict[str, Any] = found["result"]
                return answer
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._of, 2**16)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, patience: float = PATIENCE) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + patience
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"waited {patience} s for {script}"
            time.sleep(0.05)  # between two looks
        return value

    def open(self, address: str, width: int = 1100, height: int = 1400, *, dark: bool = False) -> None:
        """Go to an address in a window of so many pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Draw with the mouse."""
        for index, (x, y) in enumerate(points):
            kind = "mouseMoved" if index else "mousePressed"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        x, y = points[-1]
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """A key, by its name in the events of the page."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, file: Path) -> None:
        """The whole page as a PNG file."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def faults(self) -> list[str]:
        """What the page has complained of: exceptions, and what its console says of errors."""
        self.run("1")
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            entry = event["params"].get("entry", {}) if event["method"] == "Log.entryAdded" else {}
            if entry.get("level") == "error" and entry["source"] != "network":  # an answer of 400 is no fault
                found.append(entry["text"])
        return found


@contextlib.contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `home`, which ends with the block."""
    assert PROGRAM
    down, to = os.pipe()
    of, up = os.pipe()

    def hand_over() -> None:
        os.dup2(os.dup(down), 10)
        os.dup2(os.dup(up), 11)
        os.dup2(10, 3)
        os.dup2(11, 4)

    words = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    process = subprocess.Popen(
        [PROGRAM, *words, f"--user-data-dir={home}"],
        preexec_fn=hand_over,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(down)
    os.close(up)
    try:
        yield Browser(process, to, of)
    finally:
        process.kill()
        process.wait()
        os.close(to)
        os.close(of)
