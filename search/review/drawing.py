"""Drawing in a process of its own: the library that draws ends its process where memory runs out.

So a picture is lost and never a result. One process draws all pictures of a report; it ends with the block of code that
wanted them.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backbones.errors import SecateurError

PROGRAM = Path(__file__).with_name("drawer.py")


class DrawingProcess:
    """A process that draws; it is started by the first picture, and anew after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, call: str, **given: Any) -> Any:
        """What a function of vl_convert gives: text or bytes.

        Raises:
            SecateurError: when the process dies of it, or vl-convert-python is not installed.
            RuntimeError: when the function raises.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"call": call, "given": given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:  # an answer may still be on its way: not one to the next question
            self.close()
            raise
        if not line:
            code = self.close(dead=True)
            raise SecateurError(
                f"the process that draws died (exit code {code}), most often for want of memory; nothing else is lost: "
                f"draw again with more memory, or raise ulimit -v"
            )
        answer = json.loads(line)
        if answer.get("error", "").startswith("ModuleNotFoundError"):
            raise SecateurError("pictures need vl-convert-python, which is not there: pip install vl-convert-python")
        if "error" in answer:
            raise RuntimeError(f"a picture could not be drawn: {answer['error']}")
        return base64.b64decode(answer["bytes"]) if "bytes" in answer else answer["text"]

    def close(self, *, dead: bool = False) -> int:
        """Ends the process, or waits until one that is dying has ended; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if dead:
            process.wait()
        process.kill()
        process.communicate()
        return process.returncode


_OPEN: list[DrawingProcess] = []


@contextmanager
def one_drawing_process() -> Iterator[None]:
    """Within the block all pictures are drawn by one process, also in blocks inside it."""
    if _OPEN:
        yield
        return
    process = DrawingProcess()
    _OPEN.append(process)
    try:
        yield
    finally:
        _OPEN.remove(process)
        process.close()


def drawn(call: str, **given: Any) -> Any:
    """What a function of vl_convert gives, called in the block's process or one of its own; as `DrawingProcess.ask`."""
    if _OPEN:
        return _OPEN[-1].ask(call, **given)
    with one_drawing_process():
        return drawn(call, **given)
