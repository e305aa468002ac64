"""Code in another process, without the seconds that a new interpreter takes for its imports.

It is forked from an interpreter that shares nothing with this one: another hash seed, no state of other tests.
"""

from __future__ import annotations

import contextlib
import io
import os
from functools import partial
from pathlib import Path

import torch

from search.training.parallel import in_processes


def printed_elsewhere(code: str, folder: Path | None = None) -> str:
    """What code prints in another process, of one thread and in some folder."""
    [found] = in_processes([partial(_run, code, folder, os.getpid())], 1)
    return found


def _run(code: str, folder: Path | None, asking: int) -> str:
    assert os.getpid() != asking
    torch.set_num_threads(1)
    if folder is not None:
        os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {"__name__": "__elsewhere__"})
    return out.getvalue()
