"""Decoded images on disk: one uint8 array a data set and size, made once, then mapped instead of loaded."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from backbones.errors import SecateurError
from backbones.files import atomic_write, write_text
from search.data.sources import Split

#: Raised whenever the same files decode to other pixels, so that old caches are made again.
_FORMAT = 1
_BLOCK = 2**23  # bytes of pixels that are decoded before they are written and the progress bar moves
_FOLDER = ".secateur"
_LOG = logging.getLogger("secateur")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """Images that are to be decoded.

    Attributes:
        items: what each image is decoded from, one item an image.
        decode: from an item to pixels of `shape`; called from several threads.
        shape: (C, H, W) of every image.
        notes: plain values that are found on the way, such as labels; kept beside the images.
    """

    items: Sequence[Any]
    decode: Callable[[Any], Pixels]
    shape: tuple[int, int, int]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Images that have been decoded.

    Attributes:
        images: (N, C, H, W) uint8, mapped from the file: a page is read when it is first looked at.
        content: SHA-256 of all pixels.
        notes: the notes of the job.
    """

    images: Tensor
    content: str
    notes: Mapping[str, Any]

    def split(self, labels: Sequence[int]) -> Split:
        """All images, with one label each."""
        chosen = torch.arange(len(self.images))
        return Split(self.images, torch.tensor(labels, dtype=torch.int64), chosen, self.content)


def cache_folder(cache: str | os.PathLike[str] | None, home: Path) -> Path:
    """Where decoded images go: `cache`, else `$SECATEUR_CACHE`, else a folder of their own in the user's cache.

    That is `secateur/<name>-<hash of the path>` in `$XDG_CACHE_HOME`, or `~/.cache`, or `~/Library/Caches` on macOS.
    Where an earlier version has left a cache in the data set's own folder (`.secateur`), it goes on being used.
    """
    if given := cache or os.environ.get("SECATEUR_CACHE"):
        return Path(given)
    if (home / _FOLDER).is_dir():
        return home / _FOLDER
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    place = home.resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "secateur" / f"{place.name}-{key_of(str(place))[:8]}"


def key_of(*facts: object) -> str:
    """16 hex digits over what the pixels depend on."""
    return hashlib.sha256(repr((_FORMAT, facts)).encode()).hexdigest()[:16]


def decoded(folder: Path, name: str, key: str, make: Callable[[], DecodeJob]) -> Decoded:
    """The images that were stored under this name and key; where there are none, they are decoded and stored.

    The files appear whole or not at all; of several processes one decodes and the others wait for it.

    Args:
        folder: the cache; made when it is not there. Everything in it can be deleted.
        name: begins the names of its files, and is shown beside the progress bar.
        key: what the pixels depend on, as `key_of` hashes it.
        make: makes the job; called only when the images are not stored yet.

    Raises:
        SecateurError: as decoding does, or when the cache cannot be written.

    Warns:
        UserWarning: when stored images cannot be read and are made again.
    """
    path = folder / f"{name}-{key}.npy"
    found = _read(path)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            found = _read(path, warn=False)  # another process may just have written it
            if found is None:
                _write(path, name, make())
    except OSError as error:
        raise SecateurError(
            f"cache {path} cannot be written: {error.strerror or error}; give cache=... or set SECATEUR_CACHE to a "
            "folder with room for it"
        ) from None
    found = found or _read(path)
    if found is None:
        raise SecateurError(f"cache {path} was written, but cannot be read back")
    return found


def _read(path: Path, *, warn: bool = True) -> Decoded | None:
    facts = path.with_suffix(".json")
    if not (path.is_file() and facts.is_file()):
        return None
    try:
        stored = json.loads(facts.read_text(encoding="utf-8"))
        # Copy on write: torch wants memory that it may write to, and nothing that it writes can reach the file.
        images = np.load(path, mmap_mode="c", allow_pickle=False)
        if list(images.shape) != stored["shape"] or images.dtype != np.uint8:
            raise ValueError(f"it holds {images.dtype} {images.shape}, not uint8 {tuple(stored['shape'])}")
        return Decoded(torch.from_numpy(images), str(stored["content"]), dict(stored["notes"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        if warn:
            warnings.warn(f"cache {path} cannot be read and is made again: {error}", UserWarning, stacklevel=4)
        return None


def _write(path: Path, name: str, job: DecodeJob) -> None:
    """The pixels first; only the facts beside them make them count."""
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a process that was killed: we hold the lock
        left.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)
    shape = (len(job.items), *job.shape)
    size, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(errno.ENOSPC, f"{size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    digest = hashlib.sha256()
    with atomic_write(path) as part, part.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for pixels in _in_parallel(name, job):
            digest.update(pixels.data)
            file.write(pixels.data)
    _LOG.info("%s: %s images are kept decoded in %s (%.1f MB)", name, f"{len(job.items):,}", path.parent, size / 1e6)
    facts = {"shape": list(shape), "content": digest.hexdigest(), "notes": dict(job.notes)}
    write_text(path.with_suffix(".json"), json.dumps(facts))


def _in_parallel(name: str, job: DecodeJob) -> Iterator[Pixels]:
    """Every image in order.

    In threads, because Pillow decodes without holding the interpreter; in blocks, because a whole data set may not fit
    into memory.
    """
    workers, total = cpu_count(), len(job.items)
    block = max(8 * workers, _BLOCK // int(np.prod(job.shape)))
    handful = min(16, block // (8 * workers))  # handing out small images one by one costs as much as decoding them
    # delay: no bar for what takes less than two seconds; disable=None: quiet when not a terminal
    bar = tqdm(total=total, desc=f"{name}: decoding", unit="image", delay=2, disable=None)
    with bar, Parallel(n_jobs=workers, prefer="threads") as parallel:
        for start in range(0, total, block):
            items = job.items[start : start + block]
            tasks = (delayed(_several)(job.decode, items[at : at + handful]) for at in range(0, len(items), handful))
            for several in parallel(tasks):
                yield from several
                bar.update(len(several))


def _several(decode: Callable[[Any], Pixels], items: Sequence[Any]) -> list[Pixels]:
    return [np.ascontiguousarray(decode(item)) for item in items]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process makes this file."""
    with path.with_name(f".{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
