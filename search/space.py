"""What a trial may propose, and what follows from it: a ray of structures from the whole network to the smallest.

Every proposal is a direction; its *strength* says how far to go. Strength 0 keeps everything, and the number of kept
channels never rises with it, so that a budget can be met by bisection (design section 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import optuna
from numpy.typing import NDArray

from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.hybrid import by_group, hybrid_places, hybrid_widths
from scoring.limits import Limits
from scoring.names import check_name
from scoring.tables import FilterTables
from search.global_ray import GlobalRay

Ints = NDArray[np.int64]
LARGEST_THRESHOLD = 2.0
"""Thresholds are proposed up to this many mean norms and mean distances; their scale follows from the budget."""


class Ray(Protocol):
    """A proposal: structures by strength."""

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels; never rising with strength."""

    def places(self, strength: float) -> Ints:
        """(units,) place of each channel in its group in the order of staying."""


@dataclass(frozen=True, slots=True)
class Space:
    """Which structures a study proposes.

    Attributes:
        kind: `hybrid` (a norm and a distance threshold for all groups), `ratios` (a keep ratio per group),
            `hybrid+ratios` (thresholds with a pruning-rate cap per group), or `global` (one threshold for the worth of
            all channels, the network slimming rule with criterion `bn_gamma`).
        criterion, linkage: of the filter tables.
        limits: pruning-rate constraint.
    """

    kind: str = "hybrid"
    criterion: str = "l2"
    linkage: str = "average"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_name("space", self.kind, KINDS)

    def propose(self, trial: optuna.Trial, tables: FilterTables) -> Ray:
        """Asks the sampler for a proposal."""
        return KINDS[self.kind](trial, tables, self.limits)


@dataclass(frozen=True, eq=False)
class HybridRay:
    """Thresholds scaled together."""

    tables: FilterTables
    limits: Limits
    t_norm: float
    t_dist: float
    rates: Mapping[str, float] | None = None

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels."""
        return hybrid_widths(self.tables, self.t_norm * strength, self.t_dist * strength, self.limits, self.rates)

    def places(self, strength: float) -> Ints:
        """(units,) representatives by norm, then the others by the height at which they merge."""
        return hybrid_places(self.tables, self.t_dist * strength)


@dataclass(frozen=True, eq=False)
class RatioRay:
    """Keep ratios divided by the strength; a ratio of 1 shrinks too once the strength is above 1."""

    tables: FilterTables
    limits: Limits
    ratios: NDArray[np.float64]

    def widths(self, strength: float) -> Ints:
        """(groups,) kept channels."""
        shares = np.minimum(1.0, self.ratios / max(strength, 1e-9))
        return self.limits.admit(np.rint(shares * self.tables.sizes).astype(np.int64), self.tables)

    @cached_property
    def _places(self) -> Ints:
        return self.tables.norm_places

    def places(self, strength: float) -> Ints:
        """(units,) by norm, whatever the strength."""
        return self._places


def _hybrid(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Ray:
    return HybridRay(tables, limits, *_thresholds(trial))


def _ratios(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Ray:
    least = 1.0 - limits.max_rate
    ratios = [trial.suggest_float(f"keep {name}", least, 1.0) for name in tables.groups]
    return RatioRay(tables, limits, np.array(ratios))


def _hybrid_ratios(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Ray:
    thresholds = _thresholds(trial)
    rates = {name: trial.suggest_float(f"cap {name}", 0.0, limits.max_rate) for name in tables.groups}
    return HybridRay(tables, limits, *thresholds, rates)


def _thresholds(trial: optuna.Trial) -> tuple[float, float]:
    return trial.suggest_float("t_norm", 0.0, LARGEST_THRESHOLD), trial.suggest_float("t_dist", 0.0, LARGEST_THRESHOLD)


def _global(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Ray:
    return GlobalRay(tables, limits, trial.suggest_float("exponent", 0.0, 1.0))


KINDS = {"hybrid": _hybrid, "ratios": _ratios, "hybrid+ratios": _hybrid_ratios, "global": _global}


def structure_of(graph: ChannelGraph, tables: FilterTables, places: Ints, widths: Ints) -> Structure:
    """The structure that keeps the first `widths[g]` places of each group."""
    kept = by_group(tables, np.asarray(places < widths[tables.owners]))
    return Structure(graph.id, tuple(kept.items()))
