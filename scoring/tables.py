"""Filter tables: everything the hybrid and ratio rules need to know of the weights, computed once, cut many times."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Group
from backbones.names import check_name
from scoring.clusters import LINKAGES, leaving_heights, merge_tree
from scoring.criteria import CRITERIA, REDUCTIONS, Evidence, worth
from scoring.distances import ROWS, Blocks, starts, upper
from scoring.evidence import Data, gather
from scoring.group_table import GroupTable
from scoring.slices import FEATURES, feature_blocks
from scoring.table_files import read_cache, tables_key, write_cache

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Multiply-adds below which one core is done before threads have started (about 0.2 s).
WORTH_THREADS = 5e9


@dataclass(frozen=True, eq=False)
class FilterTables:
    """The tables of a network, and their concatenation over all groups (units in the order of `ChannelGraph.offsets`).

    Attributes:
        groups: group name -> table, in the graph's order.
        criterion, linkage, features, reduction: how they were made.
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
        """(units,) normalised worth."""
        return np.concatenate([table.norms for table in self.groups.values()])

    @cached_property
    def heights(self) -> Floats:
        """(units,) normalised leaving heights."""
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
    data: Data | None = None,
    seed: int = 0,
) -> FilterTables:
    """Values and clusters the filters of every group, in parallel threads.

    The result is bit-equal for any number of jobs: each task runs on one core and forms its sums in a fixed order.

    Args:
        model: the traced network; it is not changed.
        graph: of `trace`.
        criterion: what a filter is worth, a key of `CRITERIA`.
        linkage: how filters merge, a key of `LINKAGES`.
        features: what filters are compared by, a key of `FEATURES`.
        reduction: how the worth in several layers becomes one, a key of `REDUCTIONS`.
        cache: a .npz file, or a folder to hold such files; read when it is of the same weights and settings, else
            written.
        jobs: threads; all cores by default.
        data: (images, labels) for the criteria that need data; labels may be None for those that need none.
        seed: of the random control.

    Raises:
        SecateurError: for unknown names, weights that are not finite, a graph without groups, a criterion without the
            data or the batch norm that it needs, a cache that cannot be written.

    Warns:
        UserWarning: when a cache cannot be read; it is made again.
    """
    check_name("criterion", criterion, CRITERIA)
    check_name("linkage", linkage, LINKAGES)
    check_name("features", features, FEATURES)
    check_name("reduction", reduction, REDUCTIONS)
    workers = _workers(jobs)
    if not graph.groups:
        raise SecateurError("the network has no prunable group; see graph.frozen for the reasons")
    settings = {"criterion": criterion, "linkage": linkage, "features": features, "reduction": reduction}
    drawn = seed if criterion == "random" else None
    key = tables_key(
        model, graph, {**settings, "seed": drawn}, data if CRITERIA[criterion].needs != "weights" else None
    )
    groups = None if cache is None else read_cache(cache, key)
    if groups is None:
        groups = _build(model, graph, settings, gather(model, graph, criterion, data, seed), workers)
        if cache is not None:
            write_cache(cache, key, groups)
    return FilterTables({table.name: table for table in groups}, **settings, key=key)


def _build(
    model: nn.Module, graph: ChannelGraph, settings: Mapping[str, str], evidence: Evidence, workers: int
) -> list[GroupTable]:
    blocks = {group.name: feature_blocks(group, evidence.tensors, settings["features"]) for group in graph.groups}
    tasks = [
        (_products(group.size, start, blocks[group.name]), group.name, start)
        for group in graph.groups
        for start in starts(group.size)
    ]
    tasks.sort(reverse=True)  # the largest first, so that no core waits at the end
    workers = workers if sum(task[0] for task in tasks) > WORTH_THREADS else 1
    with threadpool_limits(1), Parallel(n_jobs=workers, prefer="threads") as parallel:
        parts = parallel(delayed(upper)(blocks[name], start) for _, name, start in tasks)
        distances = _joined(graph, {task[1:]: part for task, part in zip(tasks, parts, strict=True)})
        return list(
            parallel(delayed(_table)(group, distances[group.name], evidence, settings) for group in graph.groups)
        )


def _joined(graph: ChannelGraph, found: Mapping[tuple[str, int], Floats]) -> dict[str, Floats]:
    return {
        group.name: np.concatenate([found[group.name, start] for start in starts(group.size)]) for group in graph.groups
    }


def _table(group: Group, distances: Floats, evidence: Evidence, settings: Mapping[str, str]) -> GroupTable:
    values = worth(settings["criterion"], group, evidence, settings["reduction"])
    mean_norm = float(values.mean())
    norms = values / mean_norm if mean_norm > 0 else np.zeros_like(values)
    mean_distance = float(distances.mean()) if distances.size else 0.0
    tree = merge_tree(distances / mean_distance if mean_distance > 0 else distances, settings["linkage"])
    heights = leaving_heights(tree, np.argsort(-norms, kind="stable"))
    return GroupTable(group.name, norms, heights, tree, mean_norm, mean_distance)


def _products(size: int, start: int, blocks: Blocks) -> int:
    columns = sum(int(block.shape[1]) for block, _ in blocks)
    return (size - start) * min(size - start, ROWS) * columns


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
