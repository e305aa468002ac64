"""Processes that tests can kill, signal and wait for, without the seconds that a new interpreter takes for its imports.

They are forked from an interpreter that has made a trace and a storage, and shares nothing with the tests: another
hash seed, no state of other tests. Run as a script this is that interpreter. It is started by the first test that wants
a process, and serves all that run the tests of a session, each through a fork of its own.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO


class Process:
    """A process of its own, with its output and its errors in files."""

    def __init__(self, launcher: Launcher, pid: int, out: Path, errors: Path) -> None:
        self._launcher, self.pid, self._out, self._errors = launcher, pid, out, errors

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.read_text()

    def is_running(self) -> bool:
        return self._launcher.ask({"is_running": self.pid}) == 1

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL; returns 0 when the process had ended well before."""
        self.send(signal.SIGKILL)
        return self.wait()

    def wait(self) -> int:
        """The exit code, minus the signal that ended it; once."""
        return self._launcher.ask({"wait": self.pid})

    def end(self) -> str:
        """The output, after a good end."""
        code = self.wait()
        assert code == 0, self.out + self.errors
        return self.out


class Launcher:
    """Starts processes and waits for them.

    Args:
        shared: a folder of the session's, where it is noted how the interpreter is reached.
    """

    def __init__(self, shared: Path) -> None:
        self._helper: subprocess.Popen[str] | None = None
        with (shared / "launcher").open("a+") as address:
            fcntl.flock(address, fcntl.LOCK_EX)
            address.seek(0)
            socket_path = address.read()
            if not socket_path or not self._reached(socket_path):
                command = [sys.executable, "-m", "tests.launcher"]
                self._helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                assert self._helper.stdout is not None
                socket_path = self._helper.stdout.readline().strip()
                address.truncate(0)
                address.write(socket_path)
                assert self._reached(socket_path), "the interpreter that forks processes did not start"
        self._folder = Path(tempfile.mkdtemp(prefix="secateur-launched-"))
        self._count = 0

    def _reached(self, socket_path: str) -> bool:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(socket_path)
        except OSError:
            server.close()
            return False
        self._server = server.makefile("rw")
        server.close()  # once the file is closed too
        return True

    def start(
        self, function: str, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Calls `module:function` with a list of arguments, like a `main`: it ends the process or returns its code.

        Args:
            function: its module is imported once for all processes.
            arguments: the list.
            folder: where it runs.
            environment: what differs from the tests' own.
        """
        self._count += 1
        out, errors = self._folder / f"out{self._count}", self._folder / f"errors{self._count}"
        out.touch()
        errors.touch()
        command = {"call": function, "arguments": arguments, "folder": str(folder), "environment": environment or {}}
        return Process(self, self.ask({**command, "out": str(out), "errors": str(errors)}), out, errors)

    def printed(self, code: str, folder: Path | None = None) -> str:
        """What Python code prints in another process, of one thread."""
        return self.start(f"{__name__}:run_code", code, folder=folder or self._folder).end()

    def ask(self, command: dict[str, Any]) -> int:
        self._server.write(json.dumps(command) + "\n")
        self._server.flush()
        return int(self._server.readline())

    def close(self) -> None:
        self._server.close()
        if self._helper is not None:
            self._helper.communicate()  # closes its input: it serves nobody new
        shutil.rmtree(self._folder)


def run_code(arguments: list[str]) -> None:
    """Runs Python code, as `python -c` does."""
    [code] = arguments
    exec(code, {"__name__": "__main__"})


def _serve() -> None:
    """Has everything imported, then forks itself for each process of the tests."""
    import alembic.util
    import torch

    from search.study.storage import close_storage, open_storage
    from tests.migrations import read_once
    from tests.search.study.study_samples import small_parts

    torch.set_num_threads(1)
    alembic.util.load_python_file = read_once()
    for name in ("secateur", "search.cli"):
        importlib.import_module(name)
    with suppress(ImportError):
        importlib.import_module("psycopg")
    small_parts()
    with tempfile.TemporaryDirectory() as folder:
        close_storage(open_storage(f"sqlite:///{folder}/warm.db"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/socket")
        listener.listen()
        print(listener.getsockname(), flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            with listener.accept()[0] as client:
                if os.fork() == 0:
                    _answer(client.makefile("rw"))


def _answer(client: TextIO) -> NoReturn:
    """Forks on command, waits on command, until there is nobody left to command."""
    try:
        for number in (0, 1):  # who started the interpreter waits for its end by them
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        for line in client:
            command = json.loads(line)
            if "wait" in command:
                _, status = os.waitpid(command["wait"], 0)
                answer = os.waitstatus_to_exitcode(status)
            elif "is_running" in command:
                found = os.waitid(os.P_PID, command["is_running"], os.WEXITED | os.WNOHANG | os.WNOWAIT)
                answer = int(found is None)
            else:
                module, _, name = command["call"].partition(":")
                function = getattr(importlib.import_module(module), name)
                answer = os.fork()
                if answer == 0:
                    _run(function, command)
            client.write(f"{answer}\n")
            client.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _run(function: Any, command: dict[str, Any]) -> NoReturn:
    code: Any = 1
    try:
        for number, place in ((0, os.devnull), (1, command["out"]), (2, command["errors"])):
            os.dup2(os.open(place, os.O_RDWR), number)
        # Where the tests run in the background of a shell, Ctrl-C is ignored and every process inherits that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(command["folder"])
        os.environ.update(command["environment"])
        code = function(command["arguments"]) or 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve()
    os._exit(0)  # without a second of taking down what is gone anyway
