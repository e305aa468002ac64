"""Ctrl-C and SIGTERM: held back while a study is written and until a trial is whole, and never lost.

Python raises KeyboardInterrupt between any two instructions of the main thread: with a transaction half done, or with a
slot taken and its block not yet entered. So handlers are put in front of those that are there, which hold a signal back
until it can do no harm and then hand it on. Only signals that some Python function handles are held back, and only in
the main thread, where Python handles them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOOK = 0.1
"""Seconds after which a pause looks whether it is to end."""


class HeldSignals:
    """For the length of a `with` block signals wait: until `hand_on` is called, or the block ends.

    Args:
        most: how many are held back; one more is handed on at once, so that nobody has to wait for what hangs.
        note: written to a terminal when the first one is held back.
    """

    def __init__(self, most: int, note: str = "") -> None:
        self.most, self.note = most, note
        self._count, self._waiting = 0, 0
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.hand_on()

    def hand_on(self) -> None:
        """Gives a signal that was held back to whoever handled it before, which usually raises."""
        if self._waiting:
            number, self._waiting, self._count = self._waiting, 0, 0  # what follows is held back while blocks are left
            self._before[number](number, None)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._waiting = number
        if self._count > self.most:
            self.hand_on()
        elif self._count == 1 and self.note and os.isatty(2):
            os.write(2, f"\n{self.note}\n".encode())  # `print` may be what was interrupted


_asked: list[HeldSignals] = []


class StopBetweenTrials(HeldSignals):
    """The first signal ends the block at its next `stop_if_asked` or `pause`, the second one at once."""

    def __init__(self) -> None:
        super().__init__(1, "stopping after this trial; once more stops at once")

    def __enter__(self) -> Self:
        super().__enter__()
        if self._before:
            _asked.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in _asked:
            _asked.remove(self)
        super().__exit__(kind, error, trace)


def held_signals() -> HeldSignals:
    """For a write to a storage: signals wait for its end; a third one breaks through."""
    return HeldSignals(2)


def stop_if_asked() -> None:
    """Where a search may be stopped: raises what a signal that was held back raises, mostly KeyboardInterrupt."""
    if threading.current_thread() is threading.main_thread():
        for held in tuple(_asked):
            held.hand_on()


def pause(seconds: float) -> None:
    """Sleeps, but not on when a signal asked to stop: it raises as `stop_if_asked`."""
    end = time.monotonic() + seconds
    stop_if_asked()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(LOOK, left))
        stop_if_asked()
