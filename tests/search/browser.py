"""Opens a page in headless Chromium and asks it questions, with nothing but Chromium itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
)  # fmt: skip
SECONDS = 60

# The page lies in a frame of the wanted width (a window cannot be made as narrow as a phone) and posts its answer.
FRAME = """<!DOCTYPE html><link rel="icon" href="data:,"><body style="margin:0">
<iframe src="/page.html" width="{width}" height="900"></iframe>
<script>addEventListener("message", (event) => fetch("/answer", {{method: "POST", body: event.data}}));</script>"""
WATCH = """<script>window.problems = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(kind, (event) => problems.push(`${kind}: ${event.message || event.reason || event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...words) => problems.push(`${kind}: ${words.join(" ")}`);
</script>"""
PROBE = """<script>(async () => {
  while (!window.secateur || !secateur.ready) await new Promise((done) => setTimeout(done, 10));
  const ready = performance.now();
  let answer;
  try { answer = await (async () => { %s })(); } catch (error) { problems.push(String(error)); }
  parent.postMessage(JSON.stringify({answer, ready, problems}), "*");
})();</script>"""


@dataclass
class Visit:
    """What a page answered.

    Attributes:
        answer: what the probe returned.
        ready: milliseconds from navigation until all figures were drawn.
        problems: errors, warnings and refused loads.
        requests: every path that the browser asked the server for.
    """

    answer: Any = None
    ready: float = 0.0
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def visit(page: str, probe: str, *, width: int = 1000, dark: bool = False) -> Visit:
    """Draws `page` in a frame `width` pixels wide, runs the JavaScript `probe` (it returns a value) and closes."""
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium; .ci/run installs it")
        pytest.skip("no Chromium on this machine")
    seen, done = Visit(), threading.Event()
    start, _, rest = page.partition("<head>")
    body, _, end = rest.rpartition("</body>")
    watched = f"{start}<head>{WATCH}{body}{PROBE % probe}</body>{end}"
    texts = {"/": FRAME.format(width=width), "/page.html": watched}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.requests.append(self.path)
            self.send_response(200 if self.path in texts else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(texts.get(self.path, "").encode())

        def do_POST(self) -> None:
            record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.answer, seen.ready, seen.problems = record.get("answer"), record["ready"], record["problems"]
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # Blink's own names: 0 is the dark scheme, 1 the light one.
    flags = [*FLAGS, f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1200,1000"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *flags, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            assert done.wait(SECONDS), f"no answer from the page within {SECONDS} s; asked for {seen.requests}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            server.shutdown()
            server.server_close()
    return seen
