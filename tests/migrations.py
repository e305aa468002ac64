"""Optuna's migrations are read once a process: four fifths of the time that a new database takes."""

from __future__ import annotations

import functools
from typing import Any

from alembic import util


def read_once() -> Any:
    """A stand-in for `alembic.util.load_python_file`, which reads all migrations three times for each new database."""
    plain = util.load_python_file
    known = functools.cache(plain)
    return lambda folder, name: plain(folder, name) if name == "env.py" else known(folder, name)  # env.py does things
