"""A PostgreSQL server of a test's own, from Debian's binaries, on a free port; nothing of the machine's is touched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

PASSWORD = "hunter2"
_numbers = count()


def binaries() -> Path:
    """Where initdb and pg_ctl are; skips the test without them, and fails it in CI, where they must be."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    reason = "PostgreSQL is not installed (apt-get install postgresql)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Server:
    """A cluster in a folder.

    Attributes:
        folder: of its files.
        port: on 127.0.0.1.
    """

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def database(self) -> str:
        """URL of a fresh database."""
        name = f"made_{next(_numbers)}"
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.replace("/postgres", f"/{name}")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-o", options, "-w", "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def make(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:  # the server refuses to run as root
            for path in (self.folder, secret):
                shutil.chown(path, "postgres")
        self._run(
            "initdb", "-N", "-D", str(self.folder / "data"), "-U", "tester", f"--pwfile={secret}", "-A", "scram-sha-256"
        )  # -N: does not wait for the disk

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(binaries() / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # Output to a file: a server would inherit a pipe and hold it open.
        with (self.folder / "out").open("a+") as out:
            done = subprocess.run(command, stdout=out, stderr=out, cwd=self.folder, timeout=60, check=False)
            out.seek(0)
            assert done.returncode == 0, out.read()


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A fresh server for the length of a block. The folder must be reachable by the user `postgres`."""
    binaries()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(folder, port)
    server.make()
    server.start()
    try:
        yield server
    finally:
        server.stop()
