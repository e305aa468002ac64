"""Filter tables on disk: a .npz without pickles, keyed by the weights, the graph and the settings."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.files import atomic_write
from backbones.fingerprint import tensor_bytes
from backbones.graph import ChannelGraph
from scoring.group_table import GroupTable

#: Raised whenever the meaning of a stored number changes, so that old caches are made again.
FORMAT = 1


def tables_key(
    model: nn.Module, graph: ChannelGraph, settings: Mapping[str, object], data: tuple[Tensor, Tensor | None] | None
) -> str:
    """Fingerprint of all that tables depend on: weights, couplings, settings, data."""
    digest = hashlib.sha256(repr((FORMAT, sorted(settings.items()))).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    for group in graph.groups:
        for member in group.members:
            digest.update(f"{group.name} {member.tensor} {member.dim} {member.role} {member.index.shape}".encode())
            digest.update(np.ascontiguousarray(member.index).data)
    for part in data or ():
        digest.update(b"none" if part is None else f"{part.dtype} {tuple(part.shape)}".encode())
        digest.update(b"" if part is None else tensor_bytes(part))
    return digest.hexdigest()


def read_cache(cache: str | os.PathLike[str], key: str) -> list[GroupTable] | None:
    """The tables that `write_cache` stored under this key, None when there are none.

    Warns:
        UserWarning: when the file is there but cannot be read.
    """
    path = _path(cache, key)
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return _groups({name: stored[name] for name in stored.files}) if str(stored["key"]) == key else None
    except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        warnings.warn(f"cache {path} cannot be read and is made again: {error}", UserWarning, stacklevel=3)
        return None


def write_cache(cache: str | os.PathLike[str], key: str, groups: Sequence[GroupTable]) -> None:
    """Stores tables under a key: in the file `cache`, or under a name of its own in the folder `cache`.

    Raises:
        SecateurError: when the file cannot be written.
    """
    path = _path(cache, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez(
                file,
                key=np.asarray(key),
                names=np.asarray([group.name for group in groups]),
                sizes=np.asarray([group.size for group in groups], dtype=np.int64),
                means=np.asarray([(group.mean_norm, group.mean_distance) for group in groups]),
                norms=np.concatenate([group.norms for group in groups]),
                heights=np.concatenate([group.heights for group in groups]),
                trees=np.concatenate([group.tree for group in groups]),
            )
    except OSError as error:
        raise SecateurError(f"cache {path} cannot be written: {error.strerror}") from None


def _groups(stored: Mapping[str, NDArray[Any]]) -> list[GroupTable]:
    sizes = stored["sizes"]
    units, merges = int(sizes.sum()), int((sizes - 1).sum())
    shapes = {"names": sizes.shape, "means": (len(sizes), 2), "norms": (units,), "heights": (units,)}
    for name, shape in {**shapes, "trees": (merges, 4)}.items():
        if stored[name].shape != shape:
            raise ValueError(f"{name} has shape {stored[name].shape}, not {shape}")
    ends = np.cumsum(sizes)[:-1]
    norms, heights = np.split(stored["norms"], ends), np.split(stored["heights"], ends)
    trees = np.split(stored["trees"], np.cumsum(sizes - 1)[:-1])
    return [
        GroupTable(str(name), norm, height, tree, float(means[0]), float(means[1]))
        for name, norm, height, tree, means in zip(stored["names"], norms, heights, trees, stored["means"], strict=True)
    ]


def _path(cache: str | os.PathLike[str], key: str) -> Path:
    path = Path(cache)
    return path if path.suffix == ".npz" else path / f"tables-{key[:12]}.npz"
