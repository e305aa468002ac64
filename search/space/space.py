"""What a trial may propose, and what follows from it: a ray of structures from the whole network to the smallest.

Every proposal is a direction; its *strength* says how far to go. Strength 0 keeps everything, and the number of kept
channels never rises with it, so that a budget can be met by bisection (design section 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from torch import nn

from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from scoring.channel_weights import FEATURES
from scoring.clusters import LINKAGES
from scoring.criteria import CRITERIA, REDUCTIONS
from scoring.criterion_inputs import LabelledImages
from scoring.limits import Limits
from scoring.tables import FilterTables, filter_tables
from search.checks import check_range
from search.space.depth import Removal
from search.space.global_ray import GlobalRay
from search.space.rays import RatioRay, Ray, ShareRay

Ints = NDArray[np.int64]
Direction = Callable[[FilterTables, Limits, Ints], Ray]
"""Makes the ray of a proposal on filter tables; the last argument is the dense network's group of each of their groups,
to look up what was proposed per group."""


@dataclass(frozen=True, slots=True)
class Space:
    """Which structures a study proposes.

    Attributes:
        kind: `hybrid` (a norm threshold, a distance threshold and a pruning-rate cap, one of each for all groups),
            `ratios` (a keep ratio per group), `hybrid+ratios` (the thresholds with a cap per group), or `global` (one
            threshold for the worth of all channels, the network slimming rule with criterion `bn_gamma`).
        criterion, linkage: of the filter tables.
        limits: pruning-rate constraint.
        features, reduction: of the filter tables.
        removal: which layers may go as well; None for none.
        fixed: (parameter, value) of those that are held instead of proposed: "balance" (0: the norm threshold alone,
            1: the distance threshold alone) and "rate" of `hybrid`, "exponent" of `global`.
    """

    kind: str = "hybrid"
    criterion: str = "l2"
    linkage: str = "average"
    limits: Limits = field(default_factory=Limits)
    features: str = "fan_in"
    reduction: str = "sum"
    removal: Removal | None = None
    fixed: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        check_name("space", self.kind, KINDS)
        check_name("criterion", self.criterion, CRITERIA)
        check_name("linkage", self.linkage, LINKAGES)
        check_name("features", self.features, FEATURES)
        check_name("reduction", self.reduction, REDUCTIONS)
        for name, value in self.fixed:
            known = FIXABLE[self.kind]
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise SecateurError(f"space {self.kind!r} has no parameter {name!r} to fix; {has}")
            check_range(name, value, 0, 1, where="fixed")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for fingerprints; what came later than the others only where it is used."""
        record = asdict(self)
        if not self.fixed:
            del record["fixed"]
        if self.removal is not None and self.removal.least == 0:
            del record["removal"]["least"]
        return record

    def tables(
        self, model: nn.Module, graph: ChannelGraph, data: LabelledImages | None = None, seed: int = 0
    ) -> FilterTables:
        """The filter tables of a network as this space wants them.

        Args:
            model: the network.
            graph: of it, whole or reduced.
            data: (images, labels), for criteria that look at data.
            seed: of the random criterion.

        Raises:
            SecateurError: as `filter_tables`.
        """
        return filter_tables(
            model,
            graph,
            criterion=self.criterion,
            linkage=self.linkage,
            features=self.features,
            reduction=self.reduction,
            data=data if CRITERIA[self.criterion].needs != "weights" else None,
            seed=seed,
        )

    def suggest(self, trial: optuna.Trial, tables: FilterTables) -> Direction:
        """Asks the sampler for a direction; `tables` are the dense network's."""
        held = cast("optuna.Trial", Held(trial, dict(self.fixed))) if self.fixed else trial
        return KINDS[self.kind](held, tables, self.limits)

    def propose(self, trial: optuna.Trial, tables: FilterTables) -> Ray:
        """Asks the sampler for a proposal without layer removal."""
        return self.suggest(trial, tables)(tables, self.limits, np.arange(len(tables.groups)))


@dataclass(frozen=True, slots=True)
class Held:
    """A trial in which some parameters have one value only; it is recorded as if it had been proposed.

    Attributes:
        trial: that asks for all others.
        fixed: parameter -> value.
    """

    trial: optuna.Trial
    fixed: Mapping[str, float]

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """The fixed value, within the limits, or what the sampler proposes."""
        if name in self.fixed:
            low = high = min(max(self.fixed[name], low), high)
        return self.trial.suggest_float(name, low, high)


def _hybrid(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Direction:
    norm, dist = shares(trial.suggest_float("balance", 0.0, 1.0))
    rate = trial.suggest_float("rate", limits.max_rate / 2, limits.max_rate)
    return lambda tables, limits, own: ShareRay(tables, limits, norm, dist, np.full(len(own), rate))


def _ratios(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Direction:
    least = 1.0 - limits.max_rate
    ratios = np.array([trial.suggest_float(f"keep {name}", least, 1.0) for name in tables.groups])
    return lambda tables, limits, own: RatioRay(tables, limits, ratios[own])


def _hybrid_ratios(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Direction:
    norm, dist = shares(trial.suggest_float("balance", 0.0, 1.0))
    caps = np.array([trial.suggest_float(f"cap {name}", 0.0, limits.max_rate) for name in tables.groups])
    return lambda tables, limits, own: ShareRay(tables, limits, norm, dist, caps[own])


def _global(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Direction:
    exponent = trial.suggest_float("exponent", 0.0, 1.0)
    return lambda tables, limits, own: GlobalRay(tables, limits, exponent)


def shares(balance: float) -> tuple[float, float]:
    """The shares that the two thresholds take, the larger 1: at balance 0 the norm alone, at 1 the distance alone.

    How far to go follows from the budget, so the balance is all there is to propose; a trial keeps the thresholds that
    came of it.
    """
    return min(1.0, 2.0 - 2.0 * balance), min(1.0, 2.0 * balance)


KINDS: dict[str, Callable[[optuna.Trial, FilterTables, Limits], Direction]] = {
    "hybrid": _hybrid,
    "ratios": _ratios,
    "hybrid+ratios": _hybrid_ratios,
    "global": _global,
}
FIXABLE: dict[str, tuple[str, ...]] = {
    "hybrid": ("balance", "rate"),
    "ratios": (),
    "hybrid+ratios": ("balance",),
    "global": ("exponent",),
}
"""The parameters of each kind that are of the whole network, and can be fixed."""
