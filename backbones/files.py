"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backbones.errors import SecateurError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the same folder that is moved onto `path` when the block ends without an error.

    A reader sees the old file or the new one, never a part; after an error or a kill the old file is still there.

    Raises:
        SecateurError: when the folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise SecateurError(f"cannot write {str(target)!r}: the folder {str(target.parent)!r} does not exist")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 `text` to `path` in one step."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
