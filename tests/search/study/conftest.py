"""What the tests of studies share: a server, the kinds of storages."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.search.study.postgres import Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="secateur-postgres-"))
    try:
        with running(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def url(request: Any, tmp_path: Path) -> str:
    """A fresh storage of each kind."""
    if request.param == "postgresql":
        made: Server = request.getfixturevalue("server")
        return made.database()
    return f"{request.param}:///{tmp_path}/s.db"
