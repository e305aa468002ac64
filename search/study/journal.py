"""Journal files of Optuna: locked so that a kill leaves no lock behind, repaired before use, or only looked at."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from backbones.errors import SecateurError

MOST_A_LINE = 2**24


class FileLock(BaseJournalFileLock):
    """A lock that the system takes back when its holder dies, so a kill leaves nothing that others would wait for.

    Args:
        path: the file that is locked; it stands beside the journal file that it protects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()
        self._handle = -1

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._threads.acquire()
        try:
            self._handle = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._handle, fcntl.LOCK_EX)
        except BaseException:
            self._threads.release()
            raise
        return True

    def release(self) -> None:
        """Gives it back."""
        os.close(self._handle)
        self._threads.release()


class JournalReader(BaseJournalBackend):
    """A journal file that is read and never written; half a line at its end is left alone, and not read.

    Args:
        path: of the file.

    Raises:
        SecateurError: when the file is no journal of Optuna's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_journal(path)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The whole lines from a number on."""
        with self.path.open("rb") as file:
            for line in islice(file, log_number_from, None):
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Not for a reader."""
        raise PermissionError(errno.EROFS, "it was opened to look at only")


def repaired_journal(path: Path) -> JournalFileBackend:
    """A journal file; half a line at its end, left by a full disk or a power cut, is cut off first."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    if path.exists():
        check_journal(path)
    lock.acquire()
    try:
        if path.exists() and path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock_obj=lock)


def check_journal(path: Path) -> None:
    """Raises SecateurError unless a file is empty or begins as the journals of Optuna do."""
    with path.open("rb") as file:
        first = file.readline(MOST_A_LINE)
    try:
        proved = "op_code" in json.loads(first)
    except (ValueError, TypeError):
        proved = first.startswith(b'{"op_code":') and not first.endswith(b"\n")  # half a line
    if first and not proved:
        raise SecateurError(f"{path} is no journal of a study (its first line is none of Optuna's); name another file")
