"""What a network keeps: the one value that goes from proposal to cost, surgery and storage."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from backbones.arguments import explains
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph


@dataclass(frozen=True)
@explains("full", "of", "from_json")
class Structure:
    """Per group the kept channels, plus removed layers. Hashable and small; make one with `full`, `of` or `random`.

    Attributes:
        graph: `ChannelGraph.id` of the network it belongs to.
        kept: (group name, sorted kept channel indices) for every group, in the graph's order.
        removed: module paths replaced by the identity, sorted.
    """

    graph: str
    kept: tuple[tuple[str, tuple[int, ...]], ...]
    removed: tuple[str, ...] = field(default=())

    @staticmethod
    def full(graph: ChannelGraph) -> Structure:
        """Everything kept."""
        return Structure(graph.id, tuple((group.name, tuple(range(group.size))) for group in graph.groups))

    @staticmethod
    def of(graph: ChannelGraph, kept: Mapping[str, Iterable[int]], removed: Iterable[str] = ()) -> Structure:
        """A structure from the kept channels of some groups; groups not named stay whole.

        Raises:
            SecateurError: for an unknown group, an empty keep list, or an index out of range.
        """
        unknown = sorted(set(kept) - set(graph.by_name))
        if unknown:
            raise SecateurError(f"structure names group {unknown[0]!r}; the graph has {_some(graph.by_name)}")
        rows = []
        for group in graph.groups:
            try:
                channels = tuple(sorted({int(i) for i in kept.get(group.name, range(group.size))}))
            except (TypeError, ValueError):
                raise SecateurError(
                    f"group {group.name!r} must keep numbers of channels, but got {kept[group.name]!r}"
                ) from None
            if not channels:
                raise SecateurError(f"group {group.name!r} keeps no channel; at least one must stay")
            if channels[0] < 0 or channels[-1] >= group.size:
                wrong = channels[0] if channels[0] < 0 else channels[-1]
                raise SecateurError(f"group {group.name!r} keeps channel {wrong}; {_range(group.size)}")
            rows.append((group.name, channels))
        return Structure(graph.id, tuple(rows), tuple(sorted(set(removed))))

    @staticmethod
    def zeroed(graph: ChannelGraph, model: nn.Module) -> Structure:
        """What the zeros in a network's weights leave: masks of `torch.nn.utils.prune` made permanent, say.

        A channel goes where every filter that makes it is zero throughout; what its bias and norm still add goes with
        it. Of a group that is all zeros the first channel stays. Call `torch.nn.utils.prune.remove` on the masked
        layers before the trace.

        Args:
            graph: the traced network.
            model: the same network, with its zeros.
        """
        tensors = {name: value.detach() for name, value in model.named_parameters()}
        kept = {}
        for group in graph.groups:
            alive = np.zeros(group.size, dtype=np.bool_)
            for member in group.filters:
                rows = tensors[member.tensor].ne(0).movedim(member.dim, 0).flatten(1).any(1).cpu().numpy()
                alive |= rows[member.index].any(1)
            kept[group.name] = np.flatnonzero(alive).tolist() or [0]
        return Structure.of(graph, kept)

    @staticmethod
    def random(
        graph: ChannelGraph, *, keep: float | None = None, macs: float | None = None, seed: int = 0
    ) -> Structure:
        """A random, non-uniform structure: every group draws its own keep ratio, then its channels.

        Args:
            graph: the traced network.
            keep: ratios are drawn uniformly within half of the way from `keep` to 0 and to 1.
            macs: instead, ratios are drawn from the whole range and scaled together until the structure has at most
                this fraction of the dense MACs (as close below it as whole channels allow).
            seed: same seed, same structure.

        Raises:
            SecateurError: unless exactly one of `keep` and `macs` is given, in (0, 1]; or when one channel a group is
                still above `macs`.
        """
        if (keep is None) == (macs is None):
            raise SecateurError(f"give exactly one of keep and macs, but got keep={keep}, macs={macs}")
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(group.size) for group in graph.groups]
        if keep is not None:
            _check_fraction("keep", keep)
            ratios = rng.uniform(keep / 2, (1 + keep) / 2, len(orders))
            return _take(graph, orders, ratios)
        assert macs is not None
        _check_fraction("macs", macs)
        return _scale(graph, orders, rng.uniform(0.05, 1.0, len(orders)), macs)

    @cached_property
    def id(self) -> str:
        """Content id, 12 hex digits: equal structures have equal ids, on any machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @cached_property
    def keep(self) -> Mapping[str, tuple[int, ...]]:
        """Group name -> kept channels."""
        return dict(self.kept)

    @property
    def widths(self) -> Mapping[str, int]:
        """Group name -> number of kept channels."""
        return {name: len(channels) for name, channels in self.kept}

    def to_json(self) -> str:
        """Canonical JSON; `from_json` reads it back to an equal structure."""
        kept = {name: list(channels) for name, channels in self.kept}
        return json.dumps({"graph": self.graph, "kept": kept, "removed": list(self.removed)}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Structure:
        """Reads what `to_json` wrote.

        Raises:
            SecateurError: when the text is not such a record.
        """
        try:
            record = json.loads(text)
            kept = tuple((str(name), tuple(int(i) for i in channels)) for name, channels in record["kept"].items())
            structure = Structure(str(record["graph"]), kept, tuple(str(name) for name in record["removed"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SecateurError(f"not a structure record: {error!r}; Structure.to_json writes one") from None
        for name, channels in kept:
            if not channels:
                raise SecateurError(f"group {name!r} keeps no channel; at least one must stay")
            if channels[0] < 0 or any(left >= right for left, right in itertools.pairwise(channels)):
                raise SecateurError(f"group {name!r} must list its channels sorted, from 0 up, each once")
        return structure

    def check(self, graph: ChannelGraph) -> None:
        """Raises SecateurError unless this structure belongs to `graph` and keeps channels that exist."""
        if self.graph != graph.id:
            raise SecateurError(
                f"structure {self.id} is of graph {self.graph}, not of {graph.id}; trace the same model"
            )
        if len(self.kept) != len(graph.groups):
            raise SecateurError(f"structure {self.id} lists {len(self.kept)} groups; the graph has {len(graph.groups)}")
        for group, (name, channels) in zip(graph.groups, self.kept, strict=True):
            if name != group.name:
                raise SecateurError(f"structure {self.id} has group {name!r} where the graph has {group.name!r}")
            if not channels:
                raise SecateurError(f"group {name!r} keeps no channel; at least one must stay")
            if channels[-1] >= group.size:
                raise SecateurError(f"group {name!r} keeps channel {channels[-1]}; {_range(group.size)}")


def keep_mask(graph: ChannelGraph, structure: Structure) -> NDArray[np.bool_]:
    """(channels + 1,) mask over channel units; the last entry, reached by unit -1 (never pruned), is True."""
    mask = np.zeros(graph.channels + 1, dtype=np.bool_)
    mask[-1] = True
    start = 0
    for group, (_, channels) in zip(graph.groups, structure.kept, strict=True):
        mask[start + np.asarray(channels)] = True
        start += group.size
    return mask


def _take(graph: ChannelGraph, orders: list[NDArray[np.int64]], ratios: NDArray[np.float64]) -> Structure:
    kept = {}
    for group, order, ratio in zip(graph.groups, orders, ratios, strict=True):
        kept[group.name] = order[: min(group.size, max(1, round(float(ratio) * group.size)))].tolist()
    return Structure.of(graph, kept)


def _scale(graph: ChannelGraph, orders: list[NDArray[np.int64]], ratios: NDArray[np.float64], macs: float) -> Structure:
    def macs_of(structure: Structure) -> int:
        return graph.costs.evaluate(np.array(list(structure.widths.values()), dtype=np.int64)).macs

    limit = macs * graph.costs.dense.macs
    least = _take(graph, orders, np.zeros_like(ratios))
    if macs_of(least) > limit:
        reach = macs_of(least) / graph.costs.dense.macs
        raise SecateurError(f"macs={macs:g} cannot be reached; one channel a group still has {reach:.4f} of the MACs")
    low, high = 0.0, 1.0 / float(ratios.min())
    for _ in range(40):
        middle = (low + high) / 2
        if macs_of(_take(graph, orders, np.minimum(1.0, middle * ratios))) <= limit:
            low = middle
        else:
            high = middle
    return _take(graph, orders, np.minimum(1.0, low * ratios))


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise SecateurError(f"0 < {name} <= 1 must hold, but got {name}={value}")


def _range(size: int) -> str:
    return f"indices go from 0 to {size - 1}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
