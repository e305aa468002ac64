"""Who is at work on a study: each process holds a slot and raises a counter in it; a process that stops is dead.

A slot is a user attribute of the Optuna study. Others judge by their own monotonic clock how long a counter stood
still, so wall clocks may differ or jump. A process of the same machine (same boot, same process namespace) is looked up
in /proc as well, so that a search that was killed can be resumed at once.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import optuna

from backbones.errors import SecateurError
from search.study.interrupts import held_signals, pause
from search.study.storage import STORAGE_FAILURES
from search.study.trials import TrialWriter

SECONDS = 30.0
"""A counter that stands still for so long has lost its process."""
SETTLE = 0.1
"""Seconds after which a slot is looked at again, whether another process took it at the same time."""
MOMENT = 2.0
"""Seconds of waiting for another process after which it is said."""
PREFIX = "worker "
"""How the names of the user attributes begin that hold the slots."""
ALONE = "alone"
"""The slot of a search that works on its own, without other processes."""

_held: set[str] = set()
"""The tokens whose blocks this process is in."""

Mode = Literal["search", "work"]
Record = Mapping[str, Any]


def records(study: optuna.Study) -> dict[str, Record]:
    """The slots of a study that are taken: name of the slot -> what its holder last wrote."""
    return records_in(study.user_attrs)


def records_in(attributes: Mapping[str, Any]) -> dict[str, Record]:
    """The slots that are taken, as `records`, from the user attributes of a study."""
    found = attributes.items()
    return {key.removeprefix(PREFIX): value for key, value in found if key.startswith(PREFIX) and value}


def boot_and_namespace() -> str:
    """This boot of this machine and this process namespace; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_ticks(process: int) -> str:
    """When a process was started, in ticks since the boot: tells it from a later one of the same number."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class HeartbeatMonitor:
    """Tells from outside which processes are alive, by whether their counters still run.

    Args:
        seconds: a process whose counter stands still for so long is dead.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen: dict[str, tuple[int, float, bool]] = {}
        self._missed: dict[str, float] = {}

    def missing(self, token: str) -> bool:
        """Whether a token that stands in no slot has done so for long enough to be believed."""
        now = time.monotonic()
        return now - self._missed.setdefault(token, now) > self.seconds / 3

    def is_alive(self, record: Record) -> bool | None:
        """True: alive. False: dead. None: not known yet, look again later.

        Of this process: whether one of its searches still holds the slot, or was broken off without giving it back.
        """
        token, beat, now = str(record.get("token")), int(record.get("beat", 0)), time.monotonic()
        before, since, moved = self._seen.get(token, (beat, now, False))
        if before != beat:
            since, moved = now, True
        self._seen[token] = (beat, since, moved)
        if now - since > self.seconds:
            return False
        if record.get("place") and record["place"] == boot_and_namespace():
            process = int(record.get("process", 0))
            if process == os.getpid():
                return token in _held
            return start_ticks(process) == record.get("born")
        return True if moved else None


class Heartbeat:
    """Holds a slot of a study for the length of a `with` block; a thread raises the counter in it.

    Args:
        writer: the study whose user attributes hold the slots.
        mode: "search" suffers no other process on the study; any number of "work" may share it.

    Attributes:
        token: names this process in its slot and in the trials that it claims.
        slot: name of the slot: a number from "0" on, or `ALONE`.
        lost: whether another search took the study over, because this process stood still for too long.

    Raises:
        SecateurError: on entering, when another process is there and the two modes exclude each other.
    """

    def __init__(self, writer: TrialWriter, mode: Mode) -> None:
        self.writer, self.study, self.mode, self.seconds = writer, writer.study, mode, SECONDS
        self.token, self.slot = uuid.uuid4().hex[:12], ALONE
        self._monitor, self._stop = HeartbeatMonitor(self.seconds), threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="secateur heartbeat", daemon=True)
        self._beat, self.lost = 0, False
        self._awaited: tuple[frozenset[str], float] = (frozenset(), 0.0)
        self._buried: set[str] = set()

    def __enter__(self) -> Self:
        _held.add(self.token)
        try:
            self._wait_for_others()
            self._take_slot()
            with held_signals():  # a thread that is not known to have started is never stopped
                self._thread.start()
        except BaseException:  # the slot, if it is taken already, now has no holder
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with held_signals():
                self._stop.set()
                self._thread.join()
                self._quietly(lambda: self.study.set_user_attr(PREFIX + self.slot, {}) if self._is_mine() else None)
        finally:
            self._end()

    def _end(self) -> None:
        """Ends the thread, also where a signal came before its end was asked for."""
        self._stop.set()
        _held.discard(self.token)
        if self._thread.is_alive():
            with held_signals():
                self._thread.join()

    def check(self) -> None:
        """Raises SecateurError when another search took the study over because this one stood still for too long."""
        if self.lost:
            raise SecateurError(f"study {self.study.study_name!r} was taken over by another search meanwhile")

    def is_dead(self, token: str) -> bool:
        """Whether the process that wrote this token is known to be gone."""
        if token == self.token:
            return False
        if token in self._buried:
            return True
        for record in self._records().values():
            if record.get("token") == token:
                return self._monitor.is_alive(record) is False
        return self._monitor.missing(token)

    def waits(self, tokens: Iterable[str], what: str) -> None:
        """Called while others' work is waited for: says once whose, where it takes more than a moment.

        Args:
            tokens: those of the processes that are waited for.
            what: each does, "retrains".
        """
        before, since = self._awaited
        awaited, now = frozenset(tokens), time.monotonic()
        if awaited != before:
            self._awaited = (awaited, now)
        elif now - since > MOMENT:
            self._awaited = (awaited, math.inf)
            holders = {str(record.get("token")): record for record in self._records().values()}
            names = sorted(_holder(holders[one]) if one in holders else "a process that is gone" for one in awaited)
            doubtful = any(one not in holders or not self._monitor.is_alive(holders[one]) for one in awaited)
            whether = f", for up to {self.seconds:.0f} s to see whether it still works" if doubtful else ""
            warnings.warn(f"waiting for what {', '.join(names)} {what}{whether}", stacklevel=2)

    def _records(self) -> dict[str, Record]:
        return self.writer.safely(lambda: records(self.study))

    def _take_slot(self) -> None:
        """Takes a slot; of two that take the same one at the same time the last stays and the other looks further."""
        while True:
            if self.mode == "work":
                found = self._records()
                taken = {slot for slot, record in found.items() if self._monitor.is_alive(record) is not False}
                self.slot = next(str(i) for i in range(len(taken) + 1) if str(i) not in taken)
                self._buried.add(str(found.get(self.slot, {}).get("token")))  # what it claimed is free
            self.writer.safely(self._write)
            time.sleep(SETTLE)
            if self.writer.safely(self._is_mine):
                return
            if self.mode == "search":
                self._wait_for_others()

    def _wait_for_others(self) -> None:
        """Returns once no process is there that excludes this one; raises SecateurError when one is alive."""
        told = False
        while True:
            unknown = None
            for slot, record in self._records().items():
                if self.mode == "work" and slot != ALONE:
                    continue
                alive = self._monitor.is_alive(record)
                if alive:
                    raise SecateurError(self._refusal(record))
                unknown = unknown if alive is False else record
            if unknown is None:
                return
            if not told:
                warnings.warn(
                    f"waiting for up to {self.seconds:.0f} s to see whether {_holder(unknown)} still works on study "
                    f"{self.study.study_name!r}",
                    stacklevel=2,
                )
                told = True
            pause(min(1.0, self.seconds / 10))

    def _refusal(self, record: Record) -> str:
        holder = _holder(record)
        if record.get("token") in _held:
            holder = "another thread of this process"
        if record.get("mode") == "search":
            return f"study {self.study.study_name!r} is being searched by {holder}; wait for it, or end it"
        return (
            f"study {self.study.study_name!r} has workers ({holder}); join them with `secateur work`, "
            f"or end them before searching alone"
        )

    def _write(self) -> None:
        self._beat += 1
        record = {
            "token": self.token,
            "mode": self.mode,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "born": start_ticks(os.getpid()),
            "place": boot_and_namespace(),
            "beat": self._beat,
            "seen": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.study.set_user_attr(PREFIX + self.slot, record)

    def _is_mine(self) -> bool:
        record = records(self.study).get(self.slot)
        return record is not None and record.get("token") == self.token

    def _keep_beating(self) -> None:
        while not self._stop.wait(self.seconds / 6):
            self._quietly(self._beat_once)
        remove = getattr(self.study._storage, "remove_session", None)
        if remove is not None:
            remove()

    def _beat_once(self) -> None:
        """Raises the counter; a slot that was given away while this process slept is left to its new holder."""
        if self._is_mine():
            self._write()
        elif self.mode == "search":
            self.lost = True
        else:
            self._take_slot()

    def _quietly(self, action: Callable[[], None]) -> None:
        """Misses a beat rather than raise: whoever works with the storage will say what is wrong with it."""
        try:
            action()
        except (*STORAGE_FAILURES, SecateurError):
            return


def _holder(record: Record) -> str:
    return f"process {record.get('process')} on {record.get('host')}"
