"""Ctrl-C and SIGTERM: held back while a study is written and until a trial is whole, and never lost.

Python raises KeyboardInterrupt between any two instructions of the main thread: with a transaction half done, or with a
slot taken and its block not yet entered. So handlers are put in front of those that are there, which hold a signal back
until it can do no harm and then hand it on. Only signals that some Python function handles are held back, and only in
the main thread, where Python handles them.

A handler is installed and taken away in several steps, and each of them can be interrupted. So one that is not yet in
force, or no longer, passes signals on: left behind, it does nothing, and the next block takes it away. What a handler
raises may also come to nothing, where Python calls a finalizer: it is raised again where a search looks for it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

Handler = Callable[[int, FrameType | None], Any]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOOK = 0.1
"""Seconds after which a pause looks whether it is to end."""


class HeldSignals:
    """For the length of a `with` block signals wait: until `hand_on` is called, or the block ends.

    Args:
        most: how many are held back; with one more all are handed on at once, so that nobody waits for what hangs.
        note: written to a terminal when the first one is held back.
        stops: whether `stop_if_asked` and `pause` hand on what is held back.
    """

    def __init__(self, most: int, note: str = "", stops: bool = False) -> None:
        self.most, self.note, self.stops = most, note, stops
        self._in_force = False
        self._waiting: list[int] = []
        self._raised: type[BaseException] | None = None
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                while (left := _block(handler)) is not None and not left._in_force:
                    handler = left._before[number]
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._hold)
            self._in_force = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_force = False
        try:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        finally:
            if kind is not None and self._raised is not None and issubclass(kind, self._raised):
                self._waiting.pop(0)  # it did end the block
            self.hand_on()

    def hand_on(self) -> None:
        """Gives what was held back to whoever handled it before, which usually raises."""
        self._raised = None
        if self._waiting:
            number = self._waiting.pop(0)
            try:
                self._before[number](number, None)
            finally:
                self.hand_on()  # the others, however the first one ended

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if not self._in_force:
            self._before[number](number, frame)
            return
        self._waiting.append(number)
        if len(self._waiting) > self.most and not _at_an_edge(frame):
            try:
                self.hand_on()
            except BaseException as error:
                self._waiting, self._raised = [number], type(error)  # lest it comes to nothing
                raise
        elif len(self._waiting) == 1 and self.note and os.isatty(2):
            os.write(2, f"\n{self.note}\n".encode())  # `print` may be what was interrupted


def held_signals() -> HeldSignals:
    """For a write to a storage: signals wait for its end; a third one breaks through."""
    return HeldSignals(2)


def stop_between_trials() -> HeldSignals:
    """The first signal ends the block at its next `stop_if_asked` or `pause`, the second one at once."""
    return HeldSignals(1, "stopping after this trial; once more stops at once", stops=True)


def stop_if_asked() -> None:
    """Where a search may be stopped: raises what a signal that was held back raises, mostly KeyboardInterrupt."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            for held in _blocks(number):
                if held.stops:
                    held.hand_on()


def pause(seconds: float) -> None:
    """Sleeps, but not on when a signal asked to stop: it raises as `stop_if_asked`."""
    end = time.monotonic() + seconds
    stop_if_asked()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(LOOK, left))
        stop_if_asked()


def _block(handler: object) -> HeldSignals | None:
    """The block whose handler this is."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, HeldSignals) else None


def _blocks(number: int) -> Iterator[HeldSignals]:
    """The blocks that a signal passes, the innermost first."""
    held = _block(signal.getsignal(number))
    while held is not None:
        yield held
        held = _block(held._before[number])


def _at_an_edge(frame: FrameType | None) -> bool:
    """Whether a block is just being entered or left: an exception there would leave it in force for good."""
    while frame is not None:
        if frame.f_code in (HeldSignals.__enter__.__code__, HeldSignals.__exit__.__code__):
            return True
        frame = frame.f_back
    return False
