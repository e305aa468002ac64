"""Filter tables: everything the hybrid and ratio rules need to know of the weights, computed once, cut many times.

On disk they are a .npz file without pickles, keyed by the weights, the graph and the settings.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from backbones.arguments import explained
from backbones.cost_table import Ints
from backbones.errors import SecateurError, check_name
from backbones.files import atomic_write
from backbones.fingerprint import tensor_bytes
from backbones.graph import ChannelGraph, Group
from backbones.inputs import tensors_in
from scoring.channel_weights import FEATURES, Floats, feature_blocks
from scoring.clusters import BLOCK_ROWS, LINKAGES, Blocks, block_starts, later_distances, leaving_heights, merge_tree
from scoring.criteria import CRITERIA, REDUCTIONS, CriterionInputs, importance
from scoring.criterion_inputs import LabelledImages, gather_inputs
from scoring.reconstruction.channel_order import ORDER_RIDGE
from scoring.reconstruction.targets import ROWS

#: Raised whenever the meaning of a stored number changes, so that old caches are made again.
TABLES_FORMAT = 1

#: Multiply-adds below which one core is done before threads have started (about 0.2 s).
THREADED_ABOVE = 5e9


@dataclass(frozen=True, slots=True, eq=False)
class GroupTable:
    """What is known of the filters of one group.

    Attributes:
        name: of the group, as in the channel graph.
        norms: (n,) worth of each filter by the criterion, over the group's mean (all 0 where the mean is 0).
        heights: (n,) merge height at which the filter stops to represent its cluster, infinite for the best filter,
            over the group's mean pairwise distance (0 where all filters are equal).
        tree: (n - 1, 4) the merges in scipy's form, heights over the mean pairwise distance.
        mean_norm: the mean worth, in units of the criterion.
        mean_distance: the mean pairwise distance, in units of the mean filter norm.
    """

    name: str
    norms: Floats
    heights: Floats
    tree: Floats
    mean_norm: float
    mean_distance: float

    @property
    def size(self) -> int:
        """Number of filters."""
        return len(self.norms)


@dataclass(frozen=True, eq=False)
class FilterTables:
    """The tables of a network, and their concatenation over all groups (units in the order of `ChannelGraph.offsets`).

    Attributes:
        groups: group name -> table, in the graph's order.
        criterion: what norms measure, a key of `CRITERIA`.
        linkage: how filters were merged, a key of `LINKAGES`.
        features: what filters were compared by, a key of `FEATURES`.
        reduction: how the norms of several layers became one, a key of `REDUCTIONS`.
        key: fingerprint of the weights, the graph and these settings.
    """

    groups: Mapping[str, GroupTable]
    criterion: str
    linkage: str
    features: str
    reduction: str
    key: str

    @cached_property
    def norms(self) -> Floats:
        """(units,) worth of each filter, over the mean of its group."""
        return np.concatenate([table.norms for table in self.groups.values()])

    @cached_property
    def heights(self) -> Floats:
        """(units,) merge height at which each filter stops to represent its cluster, over its group's mean distance."""
        return np.concatenate([table.heights for table in self.groups.values()])

    @cached_property
    def sizes(self) -> Ints:
        """(groups,) number of filters."""
        return np.asarray([table.size for table in self.groups.values()], dtype=np.int64)

    @cached_property
    def starts(self) -> Ints:
        """(groups,) first unit of each group."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes, dtype=np.int64)

    @cached_property
    def owners(self) -> Ints:
        """(units,) group number of each unit."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @cached_property
    def sorted_by_norm(self) -> Ints:
        """(units,) units sorted group by group, largest norm first, ties by index."""
        return np.lexsort((-self.norms, self.owners))

    @cached_property
    def ranks_by_norm(self) -> Ints:
        """(units,) rank of each unit in its group by norm, 0 is the largest."""
        return _ranks(self.sorted_by_norm, self.starts, self.owners)

    @cached_property
    def ranks_by_height(self) -> Ints:
        """(units,) rank of each unit in its group by leaving height, 0 leaves last; ties by norm, then by index."""
        return _ranks(np.lexsort((-self.norms, -self.heights, self.owners)), self.starts, self.owners)


@explained
def filter_tables(
    model: nn.Module,
    graph: ChannelGraph,
    *,
    criterion: str = "l2",
    linkage: str = "average",
    features: str = "fan_in",
    reduction: str = "sum",
    cache: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    data: LabelledImages | None = None,
    seed: int = 0,
) -> FilterTables:
    """Values and clusters the filters of every group, in parallel threads.

    The result is bit-equal for any number of jobs: each task runs on one core and forms its sums in a fixed order.

    Args:
        model: the traced network; it is not changed.
        graph: what `trace` made of it.
        criterion: what a filter is worth, a key of `CRITERIA`.
        linkage: how filters merge, a key of `LINKAGES`.
        features: what filters are compared by, a key of `FEATURES`.
        reduction: how the worth in several layers becomes one, a key of `REDUCTIONS`.
        cache: a .npz file, or a folder to hold such files; read when it is of the same weights and settings, else
            written.
        jobs: threads; all cores by default.
        data: (images, labels) for the criteria that need data; labels may be None for those that need none.
        seed: what the criterion "random" draws by.

    Raises:
        SecateurError: for unknown names, weights that are not finite, a graph without groups, a criterion without the
            data or the batch norm that it needs.

    Warns:
        UserWarning: when a cache cannot be read, and is made again, or cannot be written.
    """
    check_name("criterion", criterion, CRITERIA)
    check_name("linkage", linkage, LINKAGES)
    check_name("features", features, FEATURES)
    check_name("reduction", reduction, REDUCTIONS)
    workers = _workers(jobs)
    if not graph.groups:
        raise SecateurError("the network has no prunable group; see graph.frozen for the reasons")
    settings = {"criterion": criterion, "linkage": linkage, "features": features, "reduction": reduction}
    needs = CRITERIA[criterion].needs
    rests_on: dict[str, object] = {**settings, "seed": seed if criterion == "random" else None}
    if needs == "grams":
        rests_on |= {"rows": ROWS, "ridge": ORDER_RIDGE}
    key = tables_key(model, graph, rests_on, data if needs != "weights" else None)
    groups = None if cache is None else read_cache(cache, key)
    if groups is None:
        groups = _build(model, graph, settings, gather_inputs(model, graph, criterion, data, seed), workers)
        if cache is not None:
            write_cache(cache, key, groups)
    return FilterTables({table.name: table for table in groups}, **settings, key=key)


@explained
def error_table(tables: FilterTables, group: str) -> Floats:
    """What the layers that read a group lose at every width, when its best channels by norm are kept.

    Args:
        tables: of the criterion "reconstruction".
        group: a name of the channel graph.

    Returns:
        (n,) relative squared error, summed over the layers that read the group, with 0, 1, … n - 1 channels kept; with
        all n it is 0.

    Raises:
        SecateurError: for tables of another criterion, or an unknown group.
    """
    if tables.criterion != "reconstruction":
        raise SecateurError(f"an error table needs criterion='reconstruction', but got tables of {tables.criterion!r}")
    check_name("group", group, tables.groups)
    table = tables.groups[group]
    return np.sort(table.norms)[::-1] * table.mean_norm


def channels_by_group(tables: FilterTables, mask: NDArray[np.bool_]) -> dict[str, tuple[int, ...]]:
    """A (units,) mask as group name -> sorted channel indices."""
    kept = np.flatnonzero(mask)
    ends = np.searchsorted(kept, tables.starts + tables.sizes).tolist()
    local = (kept - tables.starts[tables.owners[kept]]).tolist()
    begins = [0, *ends[:-1]]
    return {name: tuple(local[begin:end]) for name, begin, end in zip(tables.groups, begins, ends, strict=True)}


def _build(
    model: nn.Module, graph: ChannelGraph, settings: Mapping[str, str], inputs: CriterionInputs, workers: int
) -> list[GroupTable]:
    blocks = {group.name: feature_blocks(group, inputs.tensors, settings["features"]) for group in graph.groups}
    tasks = [
        (_products(group.size, start, blocks[group.name]), group.name, start)
        for group in graph.groups
        for start in block_starts(group.size)
    ]
    tasks.sort(reverse=True)  # the largest first, so that no core waits at the end
    workers = workers if sum(task[0] for task in tasks) > THREADED_ABOVE else 1
    with threadpool_limits(1), Parallel(n_jobs=workers, prefer="threads") as parallel:
        parts = parallel(delayed(later_distances)(blocks[name], start) for _, name, start in tasks)
        distances = _joined(graph, {task[1:]: part for task, part in zip(tasks, parts, strict=True)})
        return list(parallel(delayed(_table)(group, distances[group.name], inputs, settings) for group in graph.groups))


def _joined(graph: ChannelGraph, found: Mapping[tuple[str, int], Floats]) -> dict[str, Floats]:
    return {
        group.name: np.concatenate([found[group.name, start] for start in block_starts(group.size)])
        for group in graph.groups
    }


def _table(group: Group, distances: Floats, inputs: CriterionInputs, settings: Mapping[str, str]) -> GroupTable:
    values = importance(settings["criterion"], group, inputs, settings["reduction"])
    mean_norm = float(values.mean())
    norms = values / mean_norm if mean_norm > 0 else np.zeros_like(values)
    mean_distance = float(distances.mean()) if distances.size else 0.0
    tree = merge_tree(distances / mean_distance if mean_distance > 0 else distances, settings["linkage"])
    heights = leaving_heights(tree, np.argsort(-norms, kind="stable"))
    return GroupTable(group.name, norms, heights, tree, mean_norm, mean_distance)


def _products(size: int, start: int, blocks: Blocks) -> int:
    columns = sum(int(block.shape[1]) for block, _ in blocks)
    return (size - start) * min(size - start, BLOCK_ROWS) * columns


def _ranks(order: Ints, first: Ints, owners: Ints) -> Ints:
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - first[owners]
    return ranks


def _workers(jobs: int | None) -> int:
    if jobs is None:
        return int(cpu_count())
    if jobs < 1:
        raise SecateurError(f"jobs >= 1 must hold, but got jobs={jobs}")
    return jobs


def tables_key(
    model: nn.Module, graph: ChannelGraph, settings: Mapping[str, object], data: tuple[Tensor, Tensor | None] | None
) -> str:
    """Fingerprint of all that tables depend on.

    Args:
        model: whose weights count.
        graph: which channels are coupled.
        settings: criterion, linkage and the like, by name.
        data: images and labels that the criterion looks at, None where it needs none; where it does, what the forward
            pass makes of them counts too.
    """
    digest = hashlib.sha256(repr((TABLES_FORMAT, sorted(settings.items()))).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    for group in graph.groups:
        for member in group.members:
            digest.update(f"{group.name} {member.tensor} {member.dim} {member.role} {member.index.shape}".encode())
            digest.update(np.ascontiguousarray(member.index).data)
    if data is not None:
        digest.update(f"{graph.id} {graph.program.id}".encode())
    for part in data or ():
        digest.update(b"none" if part is None else b"")
        for tensor in tensors_in(part):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def read_cache(cache: str | os.PathLike[str], key: str) -> list[GroupTable] | None:
    """The tables that `write_cache` stored under this key, None when there are none.

    Args:
        cache: the .npz file, or the folder that holds it.
        key: of `tables_key`.

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
    """Stores tables under a key.

    Args:
        cache: the .npz file to write, or a folder, where the file gets a name by the key.
        key: of `tables_key`.
        groups: the tables, in the graph's order.

    Warns:
        UserWarning: when the file cannot be written; the tables are then made again next time.
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
        warnings.warn(f"cache {path} cannot be written: {error.strerror}", UserWarning, stacklevel=3)


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
