"""Storages that fail: locked, read-only, full, torn, away. One clear line, and nothing lost."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from search.data.data import Data
from search.study import storage
from search.study.storage import close_storage, open_storage, patiently, redacted, shown_url
from search.study.stored import open_study, status
from tests.launcher import Launcher
from tests.search.study.study_samples import begin, finished, make, small_data, small_graph, small_model

Parts = tuple[nn.Module, ChannelGraph, Data]


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that cannot be written, by root neither: mounted anew onto itself."""
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


SECRETS = ("hunter2", "t0p")


@pytest.fixture(scope="module")
def parts() -> Parts:
    model = small_model()
    return model, small_graph(model), small_data()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:hunter2@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql+psycopg://me@host/db?password=hunter2&sslkey=t0p", "postgresql+psycopg://me@host/db"),
        ("mysql://u:hun%40ter2@h:1/d", "mysql://u:***@h:1/d"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("journal:///a.log", "journal:///a.log"),
        ("no url", "(not a URL)"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    if "://" in url:
        assert redacted(f"secateur work --storage '{url}' x") == f"secateur work --storage '{shown}' x"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense://me:hunter2@host/db",
        "postgresql+psycopg://me:hunter2@127.0.0.1:1/db",
        "postgresql+psycopg://me:hunter2@127.0.0.1:1/db?password=t0p",
        "mysql+nodriver://me:hunter2@host/db",
        "hunter2",
    ],
)
def test_what_cannot_be_opened_says_so_without_the_password(url: str) -> None:
    with pytest.raises(SecateurError, match=r"storage .* (cannot be opened|needs a driver)") as caught:
        open_storage(url)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.__suppress_context__


def test_a_storage_that_is_not_there_is_not_made_by_a_look(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/no.db", f"journal:///{tmp_path}/no.log"):
        with pytest.raises(SecateurError, match="cannot be opened: it does not exist"):
            status(url)
    assert not list(tmp_path.iterdir())


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path, parts: Parts) -> None:
    url = f"sqlite:///{tmp_path}/s.db?timeout=0.2"
    study = make(url, tmp_path, parts)
    study.search(5, progress=False)
    with sqlite3.connect(tmp_path / "s.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SecateurError, match=r"sqlite:///.*s\.db cannot be used: database is locked"):
            study.search(6, progress=False)
        other.rollback()
    other.close()
    study.search(9, progress=False)
    assert len(study.candidates()) == 9


def test_a_database_that_cannot_be_written_is_named(tmp_path: Path, parts: Parts) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, parts)
    study.search(3, progress=False)
    with pytest.raises(SecateurError, match="cannot be opened: unable to open database file"):
        make(f"sqlite:///{tmp_path}/none/s.db", tmp_path, parts)
    read_only = f"sqlite:///file:{tmp_path}/s.db?mode=ro&uri=true"
    with pytest.raises(SecateurError, match="cannot be used: attempt to write a readonly database"):
        make(read_only, tmp_path, parts).search(4, progress=False)
    assert len(make(f"sqlite:///{tmp_path}/s.db", tmp_path, parts).candidates()) == 3


@pytest.mark.parametrize("kind", ["sqlite:///{}/s.db", "journal:///{}/s.log"])
def test_a_full_disk_loses_nothing(tmp_path: Path, parts: Parts, kind: str, launcher: Launcher) -> None:
    """RLIMIT_FSIZE stands for the full disk: a file cannot grow any more."""
    url = kind.format(tmp_path)
    make(url, tmp_path, parts).search(5, progress=False)
    path = next(path for path in tmp_path.iterdir() if path.suffix in (".db", ".log"))
    limit = path.stat().st_size + 6_000
    process = begin(launcher, url, tmp_path, "--trials", "500", "--room", str(limit))
    assert process.wait() != 0
    said = process.errors
    assert "SecateurError: storage " in said
    assert "finished trials are kept" in said
    study = make(url, tmp_path, parts)  # with room again
    kept = finished(study)
    assert 5 <= len(kept) < 500
    study.search(len(kept) + 3, progress=False)
    assert finished(study)[: len(kept)] == kept
    whole = make(f"sqlite:///{tmp_path}/whole.db", tmp_path, parts)
    whole.search(len(kept) + 3, progress=False)
    assert finished(whole) == finished(study)


def test_a_database_whose_making_was_killed_gets_its_indexes(tmp_path: Path, parts: Parts) -> None:
    """Without the unique one on names, Optuna would make a second study of the same name at each opening."""
    url = f"sqlite:///{tmp_path}/s.db"
    make(url, tmp_path, parts)
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as database:
        known = "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'ix_%' ORDER BY name"
        before = database.execute(known).fetchall()
        assert len(before) == 2
        for (name,) in before:
            database.execute(f"DROP INDEX {name}")
        database.commit()
    make(url, tmp_path, parts)
    make(url, tmp_path, parts).search(2, progress=False)
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as database:
        assert database.execute(known).fetchall() == before
        assert database.execute("SELECT count(*) FROM studies").fetchall() == [(1,)]


def test_looking_writes_nothing_whatever_the_file(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("Chapter 1\n\nIt was a dark and stormy night")
    before = thesis.read_bytes()
    for url, reason in ((f"journal:///{thesis}", "is no journal"), (f"sqlite:///{thesis}", "file is not a database")):
        for look in (status, open_study, open_storage):
            with pytest.raises(SecateurError, match=reason):
                look(url)
    assert thesis.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"thesis.txt", "thesis.txt.lock"}
    other = tmp_path / "notes.db"
    with contextlib.closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    before = other.read_bytes()
    with pytest.raises(SecateurError, match="holds no studies of Optuna"):
        status(f"sqlite:///{other}")
    assert other.read_bytes() == before


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file under a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["sqlite:///{}/s.db", "journal:///{}/s.db"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_study_on_a_read_only_mount_is_looked_at(tmp_path: Path, parts: Parts, kind: str, killed: bool) -> None:
    """A copy that cannot be written, of a study that was closed, or whose process was killed with its log written."""
    home, mount = tmp_path / "home", tmp_path / "mount"
    home.mkdir()
    study = make(kind.format(home), home, parts)
    study.search(6, progress=False)
    if not killed:
        close_storage(study.store.storage)
    shutil.copytree(home, mount)
    if killed and kind.startswith("journal"):
        with (mount / "s.db").open("ab") as file:
            file.write(b'{"op_code": 4, "worker')
    for path in mount.iterdir():
        if path.name.endswith(("-shm", ".lock")):
            path.unlink()
    before = contents(mount)
    with read_only(mount):
        looked = open_study(kind.format(mount))
        assert looked.status().trials == {"scored": 6}
        assert [one.id for one in looked.front().candidates] == [one.id for one in study.front().candidates]
    assert contents(mount) == before


def test_half_a_line_at_the_end_of_a_journal_is_cut_off(tmp_path: Path, parts: Parts) -> None:
    url = f"journal:///{tmp_path}/s.log"
    study = make(url, tmp_path, parts)
    study.search(6, progress=False)
    before = finished(study)
    with (tmp_path / "s.log").open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    study = make(url, tmp_path, parts)
    assert finished(study) == before
    study.search(8, progress=False)
    assert finished(make(url, tmp_path, parts))[:6] == before


def test_a_server_that_comes_back_is_waited_for(monkeypatch: Any) -> None:
    waits: list[float] = []
    monkeypatch.setattr(storage, "pause", waits.append)
    away = sqlalchemy.exc.OperationalError("select", {}, ConnectionError("server closed the connection"))
    calls = 0

    def action() -> str:
        nonlocal calls
        calls += 1
        if calls < 8:
            raise StorageInternalError("commit") from away
        return "done"

    url = "postgresql+psycopg://me:hunter2@host/db"
    with pytest.warns(UserWarning, match="is away .*; trying again") as told:
        assert patiently(url, action) == "done"
    assert len(told) == 1
    assert "hunter2" not in str(told[0].message)
    assert waits == sorted(waits)
    assert len(waits) == 7
    assert waits[-1] > 10 * waits[0]


def test_what_happened_before_the_connection_broke_does_not_happen_twice(monkeypatch: Any) -> None:
    monkeypatch.setattr(storage, "pause", lambda seconds: None)
    written: list[int] = []

    def action() -> str:
        written.append(1)
        raise sqlalchemy.exc.OperationalError("commit", {}, ConnectionError("gone"))

    with pytest.warns(UserWarning, match="is away"):
        assert patiently("postgresql://host/db", action, lambda: "there" if written else None) == "there"
    assert len(written) == 1


def test_patience_ends(monkeypatch: Any) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.05)

    def action() -> None:
        raise sqlalchemy.exc.OperationalError("select", {}, ConnectionError("server is down"))

    with (
        pytest.warns(UserWarning, match="is away"),
        pytest.raises(SecateurError, match="cannot be used: server is down; finished trials are kept"),
    ):
        patiently("postgresql://host/db", action)


def test_nothing_of_a_storage_is_unpickled(launcher: Launcher) -> None:
    code = "import search.study.study, sys; print({'optuna.storages.journal._redis', 'redis'} <= set(sys.modules))"
    assert launcher.printed(code).strip() == "False"
