"""What a person sees: lines, colours on a terminal, or one JSON object for scripts; and how SIGTERM ends a run."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any

BOLD, DIM, RED, RESET = "\033[1m", "\033[2m", "\033[31m", "\033[0m"


@dataclass(frozen=True, slots=True)
class Console:
    """Where output goes.

    Attributes:
        quiet: only the final result is printed.
        as_json: nothing but one JSON object goes to standard output.
    """

    quiet: bool = False
    as_json: bool = False

    @property
    def progress(self) -> bool:
        """Whether progress bars are wanted (each still keeps silent when standard error is not a terminal)."""
        return not (self.quiet or self.as_json)

    def say(self, text: str = "") -> None:
        """A line on the way to the result."""
        if self.progress:
            print(printable(text), flush=True)

    def head(self, text: str) -> None:
        """The line above a new stage."""
        if self.progress:
            print(f"\n{paint(printable(text), BOLD, sys.stdout)}", flush=True)

    def result(self, text: str) -> None:
        """A line of the result itself: printed with --quiet too."""
        if not self.as_json:
            print(printable(text), flush=True)

    def record(self, value: Mapping[str, Any]) -> None:
        """The whole result as one JSON object, with --json."""
        if self.as_json:
            print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def printable(text: str) -> str:
    """The text without control characters, but for line breaks and tabs: a terminal would obey them."""
    return "".join(one if one in "\n\t" or one.isprintable() else " " for one in text)


def paint(text: str, code: str, stream: IO[str]) -> str:
    """`text` in a colour when `stream` is a terminal that knows colours and NO_COLOR is not set (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"{code}{text}{RESET}"


@contextmanager
def logged(console: Console) -> Iterator[None]:
    """Within the block what secateur logs, such as where decoded images are kept, is a line on standard error."""
    handler, log = logging.StreamHandler(), logging.getLogger("secateur")
    handler.setFormatter(logging.Formatter("secateur: %(message)s"))
    level = log.level
    if console.progress:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. A KeyboardInterrupt, so that whatever cleans up after Ctrl-C cleans up after this."""


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated` in the main thread; outside of it nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_terminated(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
