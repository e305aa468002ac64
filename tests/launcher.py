"""Processes that tests can kill, signal and wait for, without the seconds that a new interpreter takes for its imports.

They are forked from an interpreter that has made a trace and a storage, and shares nothing with the tests: another
hash seed, no state of other tests. Run as a script this is that interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


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
    """Starts processes and waits for them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.launcher"]
        self._helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._folder = Path(tempfile.mkdtemp(prefix="secateur-launched-"))
        self._count = 0

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
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(command) + "\n")
        self._helper.stdin.flush()
        return int(self._helper.stdout.readline())

    def close(self) -> None:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.close()
        self._helper.wait()
        self._helper.stdout.close()
        shutil.rmtree(self._folder)


def run_code(arguments: list[str]) -> None:
    """Runs Python code, as `python -c` does."""
    [code] = arguments
    exec(code, {"__name__": "__main__"})


def _serve() -> None:
    """Forks on command, waits on command."""
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
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif "is_running" in command:
            found = os.waitid(os.P_PID, command["is_running"], os.WEXITED | os.WNOHANG | os.WNOWAIT)
            print(int(found is None), flush=True)
        else:
            module, _, name = command["call"].partition(":")
            function = getattr(importlib.import_module(module), name)
            pid = os.fork()
            if pid == 0:
                _run(function, command)
            print(pid, flush=True)


def _run(function: Any, command: dict[str, Any]) -> None:
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
