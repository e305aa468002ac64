"""Storages by URL: SQLite and journal files, PostgreSQL, MySQL.

Passwords stay inside, errors are one line, and a server that goes away for a while is waited for.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from backbones.errors import SecateurError, one_line
from search.study.interrupts import held_signals, pause
from search.study.journal import JournalReader, repaired_journal

JOURNAL = "journal:///"
DATABASE = "study.db"
"""Name of the SQLite file inside a run folder."""
RECORD = "run.json"
"""Name of the file inside a run folder that holds what is known about the run."""
PATIENCE = 300.0
"""Seconds for which a server that is away is asked again."""
BUSY = 15
"""Seconds for which SQLite waits for another process's lock, each of the five times that Optuna tries."""
RACES = 30
"""Times that a process tries to make the tables of a database while others do."""
STORAGE_KINDS = "it starts with sqlite:///, journal:///, postgresql+psycopg:// or mysql+pymysql://"
LATE_INDEXES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS ix_studies_study_name ON studies (study_name)",
    "CREATE INDEX IF NOT EXISTS ix_trials_study_id ON trials (study_id)",
)
"""Optuna makes them after their tables: a kill in between leaves a file in which names of studies are not unique."""
DRIVERS = {"postgresql": "pip install 'psycopg[binary]'", "mysql": "pip install pymysql"}

Result = TypeVar("Result")
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, AssertionError)
"""What reading values that were edited ends with."""
STORAGE_FAILURES = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, OSError)


def open_storage(url: str) -> BaseStorage:
    """The Optuna storage behind a URL, to read and to write; what is not there yet is made.

    `sqlite:///study.db` and `journal:///study.log` are files relative to the working folder (four slashes: absolute);
    `postgresql+psycopg://…` and `mysql+pymysql://…` are servers.

    Raises:
        SecateurError: when it cannot be opened; a password in the URL is not shown.
    """
    with _opening(url):
        if url.startswith(JOURNAL):
            return JournalStorage(repaired_journal(Path(url.removeprefix(JOURNAL))))
        parsed = sqlalchemy.engine.make_url(url)
        options: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            wait = {} if "timeout" in parsed.query else {"timeout": BUSY}
            options = {"connect_args": {"factory": WriteAhead, **wait}}
        elif parsed.get_backend_name() == "postgresql" and "connect_timeout" not in parsed.query:
            options["connect_args"] = {"connect_timeout": 10}
        storage = _with_tables(url, options)
        weakref.finalize(storage, storage.engine.dispose)
        if parsed.get_backend_name() == "sqlite":
            with storage.engine.begin() as connection:
                for index in LATE_INDEXES:
                    connection.execute(sqlalchemy.text(index))
        return storage


def _with_tables(url: str, options: Mapping[str, Any]) -> RDBStorage:
    """The database with its tables; of processes that make them at the same time, those that come late try again."""
    for _ in range(RACES):
        try:
            return RDBStorage(url, engine_kwargs=dict(options))
        except (sqlalchemy.exc.DBAPIError, StorageInternalError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
            if not isinstance(cause, sqlalchemy.exc.IntegrityError) and not re.search("already exists", str(cause)):
                raise
        time.sleep(random.uniform(0.02, 0.2))
    return RDBStorage(url, engine_kwargs=dict(options))


def _look_at(url: str) -> BaseStorage:
    """An existing storage, to read alone: nothing is made, repaired or migrated, and its folder may be read-only."""
    if url.startswith(JOURNAL):
        return JournalStorage(JournalReader(_existing(Path(url.removeprefix(JOURNAL)))))
    parsed = sqlalchemy.engine.make_url(url)
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        options = {"creator": partial(_connect_to_read, _existing(Path((parsed.database or "").removeprefix("file:"))))}
    elif parsed.get_backend_name() == "postgresql" and "connect_timeout" not in parsed.query:
        options = {"connect_args": {"connect_timeout": 10}}
    storage = RDBStorage(url, engine_kwargs=options, skip_table_creation=True)
    weakref.finalize(storage, storage.engine.dispose)
    return storage


@contextmanager
def _opening(url: str) -> Iterator[None]:
    """Says in one line why a storage cannot be opened."""
    try:
        yield
    except ImportError as error:
        backend = re.split(r"[+:]", url)[0]
        how = DRIVERS.get(backend, "install its driver")
        raise SecateurError(f"storage {shown_url(url)} needs a driver ({error}): {how}") from None
    except sqlalchemy.exc.NoSuchModuleError:
        raise SecateurError(f"storage {shown_url(url)} cannot be opened: unknown kind; {STORAGE_KINDS}") from None
    except SecateurError:
        raise
    except Exception as error:  # a journal that was edited fails in Optuna in any way
        raise SecateurError(f"storage {shown_url(url)} cannot be opened: {explain(error, url)}") from None


def folder_url(folder: Path) -> str:
    """URL of the database inside a run folder."""
    return f"sqlite:///{folder / DATABASE}"


def absolute_url(url: str) -> str:
    """The URL of a file with its whole path, so that it means the same in every working folder; others as they are."""
    if url.startswith(JOURNAL):
        return f"{JOURNAL}{Path(url.removeprefix(JOURNAL)).resolve()}"
    with suppress(sqlalchemy.exc.ArgumentError):
        parsed = sqlalchemy.engine.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database and not parsed.database.startswith((":", "file:")):
            whole = parsed.set(database=str(Path(parsed.database).resolve()))
            return whole.render_as_string(hide_password=False)
    return url


def folder_storage(folder: Path) -> str:
    """URL of the storage that a run folder belongs to: its own database, or what its workers were told to share.

    Raises:
        SecateurError: when the URL had a password or options, which are not kept, and is not in $SECATEUR_STORAGE.
    """
    try:
        noted = json.loads((folder / RECORD).read_text(encoding="utf-8")).get("storage")
    except (OSError, ValueError, AttributeError):
        noted = None
    if not isinstance(noted, dict):
        return folder_url(folder)
    given, shown = os.environ.get("SECATEUR_STORAGE", ""), str(noted.get("url"))
    if given and shown_url(given) == shown:
        return given
    if not noted.get("whole"):
        raise SecateurError(
            f"{folder} belongs to the study in {shown}: export SECATEUR_STORAGE with that URL, password included"
        )
    return shown


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
    if before >= optuna.logging.WARNING:
        yield
        return
    with held_signals():  # broken off, it would leave logging's lock behind
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        with held_signals():
            optuna.logging.set_verbosity(before)


@contextmanager
def existing_storage(url: str) -> Iterator[BaseStorage]:
    """An existing storage to look at, for the length of a block; nothing is written to it.

    Raises:
        SecateurError: when it is not there, cannot be opened, or holds what no study of secateur writes.
    """
    with _opening(url):
        storage = _look_at(url)
    try:
        with readable(url):
            yield storage
    finally:
        close_storage(storage)


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Says in one line that what is read within the block is nothing that a study of secateur writes."""
    try:
        yield
    except (SecateurError, *STORAGE_FAILURES):
        raise
    except UNREADABLE as error:
        raise SecateurError(
            f"storage {shown_url(url)} holds what no study writes ({type(error).__name__}: {one_line(error)}); "
            f"was it edited?"
        ) from None


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
    if re.search(r"no such table|relation .* does not exist|Table .* doesn't exist", line):
        return f"it holds no studies of Optuna ({line})"
    if (
        not isinstance(cause, (*STORAGE_FAILURES, sqlite3.Error, RuntimeError))
        and line
        and not hasattr(cause, "sqlstate")
    ):
        line = f"{type(cause).__name__}: {line}"
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
            with held_signals():
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
        pause(delay)
        delay = min(2 * delay, 5.0)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(2, "it does not exist")
    return path


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that reads a database in whatever folder.

    SQLite wants to write beside a database that is written ahead. Without such a file beside it nobody is at work on
    it, and it can be read as it lies; with one in a folder that cannot be written, a copy in memory is read.
    """
    place, ahead = f"file:{quote(str(path.resolve()))}", path.with_name(f"{path.name}-wal")
    if not ahead.exists():
        return sqlite3.connect(f"{place}?immutable=1", uri=True, check_same_thread=False)
    connection = sqlite3.connect(f"{place}?mode=ro", uri=True, timeout=BUSY, check_same_thread=False)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").close()
        return connection
    except sqlite3.OperationalError:
        connection.close()
    with tempfile.TemporaryDirectory() as folder:
        for one in (path, ahead):
            shutil.copyfile(one, Path(folder, one.name))
        copy = sqlite3.connect(Path(folder, path.name))
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        copy.backup(memory)
        copy.close()
    return memory


class WriteAhead(sqlite3.Connection):
    """A connection that writes ahead, so that readers and writers do not hold each other up or wait for the disk.

    A power cut can cost the last trials, never the database; a search that resumes makes the same ones again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with suppress(sqlite3.OperationalError):  # a file that cannot be written, a file system without shared memory
            self.execute("PRAGMA journal_mode=WAL").close()
            self.execute("PRAGMA synchronous=NORMAL").close()
