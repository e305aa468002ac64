"""Optuna's migrations are read once a process: four fifths of the time that a new database takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType

from alembic import util


def read_once() -> Callable[[str, str], ModuleType]:
    """A stand-in for `alembic.util.load_python_file`, which reads all migrations three times for each new database."""
    plain: Callable[[str, str], ModuleType] = util.load_python_file
    known = functools.cache(plain)
    return lambda folder, name: plain(folder, name) if name == "env.py" else known(folder, name)  # env.py does things
