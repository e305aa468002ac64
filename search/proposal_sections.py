"""The sections [budget] and [space] of a study file: which structures a search may propose."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backbones.errors import SecateurError
from scoring.clusters import LINKAGES
from scoring.criteria import CRITERIA, REDUCTIONS
from scoring.essentiality import ESSENTIALITY
from scoring.limits import Limits
from scoring.names import check_name as known_name
from scoring.slices import FEATURES
from search.budget import Amount, Budget
from search.depth import Removal
from search.space import KINDS, Space


@dataclass(frozen=True, slots=True)
class BudgetSection:
    """What the pruned network may cost; at least one of the four, several hold together.

    Attributes:
        macs: multiply-adds of one image: a fraction "30%" or 0.3 of the dense network, an absolute "25M", a band
            "20%..30%", or a list of targets ["20%", "35%", "50%"].
        params: parameters, in the same forms.
        latency: seconds a scoring batch on this machine, "60%" or "20ms", predicted from a calibration.
        memory: peak bytes of activations for one image, "50%" or "2MB".
    """

    macs: Amount | tuple[Amount, ...] | None = None
    params: Amount | tuple[Amount, ...] | None = None
    latency: Amount | tuple[Amount, ...] | None = None
    memory: Amount | tuple[Amount, ...] | None = None

    def __post_init__(self) -> None:
        if all(amount is None for amount in (self.macs, self.params, self.latency, self.memory)):
            raise SecateurError('needs macs or params (or latency, memory), such as macs = "30%"')
        try:
            self.budget()
        except SecateurError as error:
            raise SecateurError(str(error).removeprefix("budget ")) from None

    def budget(self) -> Budget:
        """The value that a study takes."""
        return Budget(self.macs, self.params, self.latency, self.memory)


@dataclass(frozen=True, slots=True)
class SpaceSection:
    """Which structures are looked at.

    Attributes:
        kind: "hybrid" (one norm and one distance threshold and one cap on what goes for all layers), "ratios" (a keep
            ratio per group), "hybrid+ratios" (the thresholds, and a cap per group), or "global" (one threshold for the
            worth of all filters: network slimming with criterion "bn_gamma").
        criterion: how much a filter is worth: "l2", "l1", ...
        linkage: how clusters of similar filters grow: "average", "complete", ...
        features: what filters are compared by: "fan_in", "fan_out" or "both".
        reduction: how the worth of a filter in several coupled layers becomes one: "sum", "mean", "max", "first".
        max_rate: at most this fraction of a group's channels goes.
        min_channels: at least so many stay.
        divisor: widths are multiples of it.
        ignore: layers that are never pruned, by name or pattern, ["conv1", "layer3.*"].
        only: if given, only these layers are pruned.
        removal: whole layers go too, the least essential first, as measured by "cosine", "accuracy" or "score"; by
            default none go.
        removal_most: at most so many; below 1 a share of those that may.
        removal_layers: which may go, by name or pattern; by default the residual blocks, or single layers without any.
    """

    kind: str = "hybrid"
    criterion: str = "l2"
    linkage: str = "average"
    features: str = "fan_in"
    reduction: str = "sum"
    max_rate: float = 0.9
    min_channels: int = 1
    divisor: int = 1
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    removal: str | None = None
    removal_most: float = 0.5
    removal_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known_name("kind", self.kind, KINDS)
        known_name("criterion", self.criterion, CRITERIA)
        known_name("linkage", self.linkage, LINKAGES)
        known_name("features", self.features, FEATURES)
        known_name("reduction", self.reduction, REDUCTIONS)
        if self.removal is not None:
            known_name("removal", self.removal, ESSENTIALITY)
        try:
            self.space()
        except SecateurError as error:
            raise SecateurError(re.sub("^most must", "removal_most must", str(error))) from None

    def space(self) -> Space:
        """The value that a study takes."""
        limits = Limits(self.max_rate, self.min_channels, self.divisor)
        removal = None
        if self.removal is not None:
            removal = Removal(self.removal, self.removal_most, self.removal_layers)
        return Space(self.kind, self.criterion, self.linkage, limits, self.features, self.reduction, removal)
