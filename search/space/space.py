"""What a trial may propose, and what follows from it: an allocation of widths, from the whole network to the smallest.

A proposal is a direction: on the filter tables of the network, with some layers removed or not, it gives a
`WidthAllocation`, whose strength then follows from the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from torch import nn

from backbones.arguments import explains
from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from backbones.removal import residual_blocks
from scoring.channel_weights import FEATURES
from scoring.clusters import LINKAGES
from scoring.criteria import CRITERIA, REDUCTIONS, Needs
from scoring.criterion_inputs import LabelledImages, measuring
from scoring.limits import Limits
from scoring.reconstruction.channel_order import channel_readers
from scoring.tables import FilterTables, filter_tables
from search.checks import check_range
from search.space.allocations import GlobalThreshold, KeepRatios, QuantileThresholds, WidthAllocation
from search.space.layer_removal import Removal

Ints = NDArray[np.int64]
Direction = Callable[[FilterTables, Limits, Ints], WidthAllocation]
"""Makes a proposal's allocation on filter tables under limits; the last argument is (groups,) the number of the dense
network's group that each group of the tables belongs to, to look up what was proposed per group."""

AUTO = "auto"
"""What a space has where nothing was chosen: for a criterion the first of the next two that the network and the images
allow, for `removal` each residual block or nothing (`Space.for_search`)."""
PREFERRED, PLAIN = "reconstruction", "l2"
WIDEST_ORDERED = 2_048
"""Channels of a group up to which "auto" orders them by reconstruction; beyond, to open a study takes minutes."""


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Space:
    """Which structures a study proposes.

    Attributes:
        kind: `hybrid` (a norm threshold, a distance threshold and a pruning-rate cap, one of each for all groups),
            `ratios` (a keep ratio per group), `hybrid+ratios` (the thresholds with a cap per group), or `global` (one
            threshold for the worth of all channels, the network slimming rule with criterion `bn_gamma`).
        criterion: what filters are worth, a key of `scoring.criteria.CRITERIA`; by default "auto": "reconstruction",
            which chooses best by the evidence (studies/README.md, "Which filters"), and "l2" where it cannot measure
            every group, a group has more than `WIDEST_ORDERED` channels, or layers go in order.
        linkage: how clusters of similar filters grow, a key of `scoring.clusters.LINKAGES`.
        limits: how much of a group may go.
        features: what filters are compared by, "fan_in", "fan_out" or "both".
        reduction: how the worth of a filter in several coupled layers becomes one, a key of `REDUCTIONS`.
        removal: which layers may go as well; None for none. By default "auto": in a search that can tell which, each
            residual block (`for_search`); elsewhere none.
        fixed: (parameter, value) of those that are held instead of proposed: "balance" (0: the norm threshold alone,
            1: the distance threshold alone) and "rate" of `hybrid`, "exponent" of `global`.
    """

    kind: str = "ratios"
    criterion: str = AUTO
    linkage: str = "average"
    limits: Limits = field(default_factory=Limits)
    features: str = "fan_in"
    reduction: str = "sum"
    removal: Removal | str | None = AUTO
    fixed: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        check_name("space", self.kind, KINDS)
        check_name("criterion", self.criterion, (*CRITERIA, AUTO))
        check_name("linkage", self.linkage, LINKAGES)
        check_name("features", self.features, FEATURES)
        check_name("reduction", self.reduction, REDUCTIONS)
        if isinstance(self.removal, str) and self.removal != AUTO:
            raise SecateurError(f"removal must be a Removal, None or {AUTO!r}, but got removal={self.removal!r}")
        for name, value in self.fixed:
            known = FIXABLE[self.kind]
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise SecateurError(f"space {self.kind!r} has no parameter {name!r} to fix; {has}")
            check_range(name, value, 0, 1, where="fixed")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for fingerprints; what came later than the others only where it is used."""
        record = asdict(replace(self, removal=self.layers))
        if not self.fixed:
            del record["fixed"]
        for name, plain in {"least": 0, "choice": "order"}.items():
            if self.layers is not None and getattr(self.layers, name) == plain:
                del record["removal"][name]
        return record

    @property
    def layers(self) -> Removal | None:
        """Which layers may go; "auto" is none outside of a search."""
        return self.removal if isinstance(self.removal, Removal) else None

    def for_search(self, graph: ChannelGraph, tells: bool) -> Space:
        """The space with "auto" decided for which layers may go.

        Args:
            graph: the network's channel graph.
            tells: whether scores say if the rest makes up for a layer, and the sampler tries them one by one.

        Returns:
            where widths are proposed group by group and scores tell, any residual block may go but those that hold a
            layer that is to stay as it is (`ignore`, `only`); elsewhere, and without such blocks, none.
        """
        if self.removal != AUTO:
            return self
        every = residual_blocks(graph) if self.kind == "ratios" and tells else ()
        kept = [layer for layer in graph.layers if graph.fixed.left_out(layer)]
        blocks = tuple(path for path in every if not any(layer.startswith(path + ".") for layer in kept))
        removal = Removal(layers=() if blocks == every else blocks, choice="each") if blocks else None
        return replace(self, removal=removal)

    @property
    def needs(self) -> Needs:
        """What its criterion wants to see first, as in `Criterion.needs`."""
        return CRITERIA[PREFERRED if self.criterion == AUTO else self.criterion].needs

    @property
    def of_weights(self) -> Space:
        """What it is where no images are at hand: "auto" goes by the weights."""
        return replace(self, criterion=PLAIN) if self.criterion == AUTO else self

    def as_noted(self, record: Mapping[str, Any] | None) -> Space:
        """What it is for a study that was begun before: where nothing is chosen, what that meant then.

        Args:
            record: the study's space, as `to_dict` gave it; None for a new study.
        """
        if record is None:
            return self
        noted, space = record.get("criterion"), self
        if self.criterion == AUTO and noted in (PREFERRED, PLAIN):
            space = replace(space, criterion=noted)
        if self.removal == AUTO:
            layers = record.get("removal")
            removal = Removal(**{**layers, "layers": tuple(layers["layers"])}) if layers else None
            space = replace(space, removal=removal)
        return space

    def foreseen(self, model: nn.Module, graph: ChannelGraph, images: Any) -> tuple[str, str]:
        """The criterion that filters will go by, and why that is not the preferred one, without valuing any filter.

        Args:
            model: the network.
            graph: its channel graph.
            images: a few samples, as the network takes them.

        Returns:
            a key of `CRITERIA`, and the reason as `decided` gives it; NaN in trained weights is not foreseen.
        """
        if self.criterion != AUTO:
            return self.criterion, ""
        reason = self._ruled_out(graph)
        if not reason:
            try:
                with measuring(model, images):
                    channel_readers(model, graph, images)
            except SecateurError as error:
                reason = str(error)
        return (PLAIN if reason else PREFERRED), reason

    def _ruled_out(self, graph: ChannelGraph) -> str:
        """Why "auto" cannot be the preferred criterion on this network, whatever the images; empty where it can."""
        widest = max((one.size for one in graph.groups), default=0)
        if self.layers is not None and self.layers.choice == "order":
            return f"{PREFERRED} was measured in networks that keep their layers, and here layers may go"
        if widest > WIDEST_ORDERED:
            return (
                f"{PREFERRED} takes minutes for groups of more than {WIDEST_ORDERED:,} channels, and one has {widest:,}"
            )
        return ""

    def decided(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        data: LabelledImages | None = None,
        seed: int = 0,
        cache: Path | None = None,
    ) -> tuple[Space, FilterTables, str]:
        """The space with "auto" decided for a network as a whole: the worth of its groups has one unit.

        Args:
            model: the network.
            graph: its channel graph.
            data: (images, labels), for criteria that look at data.
            seed: what the criterion "random" draws with.
            cache: a folder that keeps the tables.

        Returns:
            the space, its filter tables, and why "auto" is not "reconstruction" (empty where it is, or was not asked).

        Raises:
            SecateurError: as `filter_tables`.
        """
        reason = self._ruled_out(graph) if self.criterion == AUTO else ""
        if self.criterion == AUTO and not reason and data is not None:
            space = replace(self, criterion=PREFERRED)
            try:
                return space, space.tables(model, graph, data, seed, cache), reason
            except SecateurError as error:
                reason = str(error)
        space = self.of_weights
        return space, space.tables(model, graph, data, seed, cache), reason

    def tables(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        data: LabelledImages | None = None,
        seed: int = 0,
        cache: Path | None = None,
    ) -> FilterTables:
        """The filter tables of a network as this space wants them; "auto" is decided for each network (`decided`).

        Args:
            model: the network.
            graph: its channel graph, whole or without some layers.
            data: (images, labels), for criteria that look at data.
            seed: what the criterion "random" draws with.
            cache: a folder that keeps them, so that the same network and images are not measured again.

        Raises:
            SecateurError: as `filter_tables`.
        """
        if self.criterion == AUTO:
            return self.decided(model, graph, data, seed, cache)[1]
        return filter_tables(
            model,
            graph,
            criterion=self.criterion,
            linkage=self.linkage,
            features=self.features,
            reduction=self.reduction,
            cache=cache,
            data=data if self.needs != "weights" else None,
            seed=seed,
        )

    def share_params(self, tables: FilterTables) -> tuple[str, ...]:
        """The parameters that are shares kept, a group each; none in spaces where thresholds decide on widths."""
        return tuple(f"keep {name}" for name in tables.groups) if self.kind == "ratios" else ()

    def suggest(self, trial: optuna.Trial, tables: FilterTables) -> Direction:
        """Asks the sampler for a direction; `tables` are the dense network's."""
        held = cast("optuna.Trial", PartlyFixedTrial(trial, dict(self.fixed))) if self.fixed else trial
        return KINDS[self.kind](held, tables, self.limits)


@dataclass(frozen=True, slots=True)
class PartlyFixedTrial:
    """A trial in which some parameters have one value only; it is recorded as if it had been proposed.

    Attributes:
        trial: asks the sampler for all other parameters.
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
    norm, dist = threshold_shares(trial.suggest_float("balance", 0.0, 1.0))
    rate = trial.suggest_float("rate", limits.max_rate / 2, limits.max_rate)
    return lambda tables, limits, dense: QuantileThresholds(tables, limits, norm, dist, np.full(len(dense), rate))


def _ratios(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Direction:
    least = 1.0 - limits.max_rate
    ratios = np.array([trial.suggest_float(f"keep {name}", least, 1.0) for name in tables.groups])
    return lambda tables, limits, dense: KeepRatios(tables, limits, ratios[dense])


def _hybrid_ratios(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Direction:
    norm, dist = threshold_shares(trial.suggest_float("balance", 0.0, 1.0))
    caps = np.array([trial.suggest_float(f"cap {name}", 0.0, limits.max_rate) for name in tables.groups])
    return lambda tables, limits, dense: QuantileThresholds(tables, limits, norm, dist, caps[dense])


def _global(trial: optuna.Trial, tables: FilterTables, limits: Limits) -> Direction:
    exponent = trial.suggest_float("exponent", 0.0, 1.0)
    return lambda tables, limits, dense: GlobalThreshold(tables, limits, exponent)


def threshold_shares(balance: float) -> tuple[float, float]:
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
