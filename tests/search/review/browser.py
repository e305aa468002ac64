"""Drives headless Chromium over its DevTools pipe: real pointer, real screen sizes, nothing but Chromium itself."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars",
)  # fmt: skip
SECONDS = 120
READY = "Boolean(window.secateur && secateur.ready)"


class Page:
    """One open page.

    Attributes:
        ready: milliseconds from navigation until every figure that is on the screen was drawn.
        problems: what the console said (errors, warnings, refused loads) and exceptions that nobody caught.
        requests: every address that the page asked for.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.ready = 0.0
        self.problems: list[str] = []
        self.requests: list[str] = []

    def ask(self, code: str) -> Any:
        """What the JavaScript function body `code` returns; it may await."""
        answer = self._send(
            "Runtime.evaluate", expression=f"(async () => {{ {code} }})()", awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = SECONDS) -> None:
        """Returns when the JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.ask(f"return Boolean({condition});"):
            assert time.monotonic() < until, f"{condition} did not become true within {seconds} s"
            time.sleep(0.01)

    def hover(self, x: float, y: float) -> None:
        """Moves the mouse to a place of the window, in CSS pixels."""
        self._send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Presses and releases the left button at a place of the window, in CSS pixels."""
        self.hover(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def prefer(self, *, dark: bool) -> None:
        """Switches the colour scheme that the user prefers."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._send("Emulation.setEmulatedMedia", features=scheme)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Gives the window another size."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot as PNG: of the whole page, or of what the window shows."""
        shot = self._send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def heard(self, event: dict[str, Any]) -> None:
        """Keeps what an event tells of the page."""
        told = event["params"]
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.problems.append(str(told["args"]))
        elif event["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(told["entry"]))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **parameters)


class Browser:
    """A running Chromium: JSON messages, each closed by a zero byte, over two pipes."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._count = 0
        self._pages: dict[str, Page] = {}

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; events that come before it go to their pages."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while True:
            heard = self._receive(until)
            if heard.get("id") == self._count:
                assert "error" not in heard, f"{method}: {heard['error']}"
                result: dict[str, Any] = heard["result"]
                return result
            if (page := self._pages.get(heard.get("sessionId", ""))) is not None and "method" in heard:
                page.heard(heard)

    @contextmanager
    def page(self, file: Path, *, width: int = 1000, height: int = 900, dark: bool = False) -> Iterator[Page]:
        """Opens a file and waits until its figures are drawn; a width below 500 pixels makes it a phone."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            page.resize(width, height, phone=width < 500)
            page.prefer(dark=dark)
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable", session)
            self.send("Page.navigate", session, url=file.resolve().as_uri())
            page.wait(READY)
            page.ready = page.ask("return secateur.ready;")
            yield page
        finally:
            del self._pages[session]
            self.send("Target.closeTarget", targetId=target)

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"Chromium said nothing for {SECONDS} s"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts Chromium, and ends it with all its processes; skips the test where there is none."""
    name = next((found for one in NAMES if (found := shutil.which(one))), None)
    if name is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium; .ci/run installs it")
        pytest.skip("no Chromium on this machine")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = _started(name, [*FLAGS, f"--user-data-dir={profile}", "about:blank"], theirs_in, theirs_out)
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(ours_out, ours_in)
        finally:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(ours_out)
            os.close(ours_in)


def _started(name: str, flags: list[str], read: int, write: int) -> int:
    """The process, a group of its own, that reads commands from descriptor 3 and writes answers to 4."""
    # Moved out of the way first: 3 or 4 may be one of them.
    high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (read, write)]
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        *((os.POSIX_SPAWN_OPEN, one, os.devnull, os.O_RDWR, 0) for one in (0, 1, 2)),
        *((os.POSIX_SPAWN_DUP2, one, wanted) for one, wanted in zip(high, (3, 4), strict=True)),
    ]
    try:
        return os.posix_spawn(name, [name, *flags], os.environ, file_actions=actions, setpgroup=0)
    finally:
        for one in high:
            os.close(one)
