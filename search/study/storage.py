"""Storages by URL: SQLite and journal files, PostgreSQL, MySQL.

Passwords stay inside, errors are one line, and a server that goes away for a while is waited for.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from backbones.errors import SecateurError

JOURNAL = "journal:///"
DATABASE = "study.db"
"""Name of the SQLite file inside a run folder."""
PATIENCE = 300.0
"""Seconds for which a server that is away is asked again."""
BUSY = 15
"""Seconds for which SQLite waits for another process's lock, each of the five times that Optuna tries."""
STORAGE_KINDS = "it starts with sqlite:///, journal:///, postgresql+psycopg:// or mysql+pymysql://"
LATE_INDEXES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS ix_studies_study_name ON studies (study_name)",
    "CREATE INDEX IF NOT EXISTS ix_trials_study_id ON trials (study_id)",
)
"""Optuna makes them after their tables: a kill in between leaves a file in which names of studies are not unique."""
DRIVERS = {"postgresql": "pip install 'secateur[postgres]'", "mysql": "pip install pymysql"}

Result = TypeVar("Result")
STORAGE_FAILURES = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, OSError)


def open_storage(url: str, *, new: bool = True) -> BaseStorage:
    """The Optuna storage behind a URL.

    `sqlite:///study.db` and `journal:///study.log` are files relative to the working folder (four slashes: absolute);
    `postgresql+psycopg://…` and `mysql+pymysql://…` are servers.

    Args:
        url: the storage's URL.
        new: whether a file may be made; else it must be there.

    Raises:
        SecateurError: when it cannot be opened; a password in the URL is not shown.
    """
    try:
        if url.startswith(JOURNAL):
            path = Path(url.removeprefix(JOURNAL))
            _check_exists(path, new)
            return JournalStorage(_journal(path))
        parsed = sqlalchemy.engine.make_url(url)
        options: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            wait = {} if "timeout" in parsed.query else {"timeout": BUSY}
            options = {"connect_args": {"factory": WriteAhead, **wait}}
            _check_exists(Path(parsed.database or ""), new)
        elif parsed.get_backend_name() == "postgresql" and "connect_timeout" not in parsed.query:
            options["connect_args"] = {"connect_timeout": 10}
        storage = RDBStorage(url, engine_kwargs=options)
        weakref.finalize(storage, storage.engine.dispose)
        if parsed.get_backend_name() == "sqlite":
            with storage.engine.begin() as connection:
                for index in LATE_INDEXES:
                    connection.execute(sqlalchemy.text(index))
        return storage
    except ImportError as error:
        backend = re.split(r"[+:]", url)[0]
        how = DRIVERS.get(backend, "install its driver")
        raise SecateurError(f"storage {shown_url(url)} needs a driver ({error}): {how}") from None
    except sqlalchemy.exc.NoSuchModuleError:
        raise SecateurError(f"storage {shown_url(url)} cannot be opened: unknown kind; {STORAGE_KINDS}") from None
    except (*STORAGE_FAILURES, ValueError, RuntimeError) as error:
        raise SecateurError(f"storage {shown_url(url)} cannot be opened: {explain(error, url)}") from None


def folder_url(folder: Path) -> str:
    """URL of the database inside a run folder."""
    return f"sqlite:///{folder / DATABASE}"


def close_storage(storage: BaseStorage) -> None:
    """Closes the connections of a storage. It may be used again, with new ones."""
    backend = getattr(storage, "_backend", storage)
    if isinstance(backend, RDBStorage):
        backend.remove_session()
        backend.engine.dispose()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna's log lines off the screen inside the block; warnings and errors stay."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def existing_storage(url: str) -> Iterator[BaseStorage]:
    """An existing storage for the length of a block.

    Raises:
        SecateurError: when it is not there or cannot be opened.
    """
    storage = open_storage(url, new=False)
    try:
        yield storage
    finally:
        close_storage(storage)


def find_study(name: str, url: str, storage: BaseStorage) -> optuna.Study:
    """An existing study.

    Args:
        name: the study's name.
        url: the storage's URL, for messages.
        storage: the opened storage.

    Raises:
        SecateurError: when the storage has none of this name; those it has are named.
    """
    names = patiently(url, lambda: optuna.get_all_study_names(storage))
    if name not in names:
        has = ", ".join(map(repr, names[:5])) or "none"
        raise SecateurError(f"storage {shown_url(url)} has no study {name!r}; it has {has}")
    with quiet():
        return patiently(url, lambda: optuna.load_study(study_name=name, storage=storage))


def shown_url(url: str) -> str:
    """The URL without its password, and without options, some of which are secrets."""
    if url.startswith(JOURNAL):
        return url
    try:
        parsed = sqlalchemy.engine.make_url(url).set(query={})
        return parsed.render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "(not a URL)"


def redacted(text: str) -> str:
    """The text with what stands between a user's name and `@` in every URL replaced by `***`, and no URL options."""
    text = re.sub(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@?]*):[^\s/]*@", r"\1:***@", text)
    return re.sub(r"(\b[a-z][a-z0-9+.-]*://[^\s?']*)\?[^\s']*", r"\1", text)


def explain(error: BaseException, url: str) -> str:
    """What went wrong, in the words of the database or the system: one line without the password."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    cause = getattr(cause, "orig", None) or cause
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    line = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    try:
        password = sqlalchemy.engine.make_url(url).password
    except sqlalchemy.exc.ArgumentError:
        password = None
    return redacted(line.replace(str(password), "***") if password else line)


def passing(error: BaseException) -> bool:
    """Whether a server may be back soon: restarted, unreachable, out of connections. Never so for files."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    if isinstance(cause, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)):
        return not isinstance(getattr(cause, "orig", None), sqlite3.Error)
    return isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated


def patiently(url: str, action: Callable[[], Result], done: Callable[[], Result | None] | None = None) -> Result:
    """Does something with a storage; a server that goes away is asked again, later and later, for `PATIENCE` seconds.

    Args:
        url: the storage's URL.
        action: what to do.
        done: asked before a repetition, for actions that must not happen twice: the result if it did happen after
            all (the connection may break after the commit), else None.

    Raises:
        SecateurError: when it cannot be done; nothing that was stored is lost.
    """
    start, delay = time.monotonic(), 0.1
    again = False
    while True:
        try:
            found = done() if again and done is not None else None
            return action() if found is None else found
        except STORAGE_FAILURES as error:
            if not passing(error) or time.monotonic() - start > PATIENCE:
                raise SecateurError(
                    f"storage {shown_url(url)} cannot be used: {explain(error, url)}; "
                    f"finished trials are kept, the same command goes on from there"
                ) from None
            if not again:
                warnings.warn(f"storage {shown_url(url)} is away ({explain(error, url)}); trying again", stacklevel=2)
            again = True
        time.sleep(delay)
        delay = min(2 * delay, 5.0)


def _check_exists(path: Path, new: bool) -> None:
    if not new and not path.is_file():
        raise FileNotFoundError(2, "it does not exist")


class WriteAhead(sqlite3.Connection):
    """A connection that writes ahead, so that readers and writers do not hold each other up or wait for the disk.

    A power cut can cost the last trials, never the database; a search that resumes makes the same ones again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with suppress(sqlite3.OperationalError):  # a file that cannot be written, a file system without shared memory
            self.execute("PRAGMA journal_mode=WAL").close()
            self.execute("PRAGMA synchronous=NORMAL").close()


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


def _journal(path: Path) -> JournalFileBackend:
    """A journal file; half a line at its end, left by a full disk or a power cut, is cut off first."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    lock.acquire()
    try:
        if path.exists() and path.stat().st_size:
            with path.open("r+b") as file:
                end = _last_line(file.read())
                file.truncate(end)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock_obj=lock)


def _last_line(content: bytes) -> int:
    return content.rfind(b"\n") + 1
