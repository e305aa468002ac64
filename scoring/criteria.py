"""What a filter is worth: one number a channel, larger is better. The registry `CRITERIA` holds them all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from backbones.errors import SecateurError, check_name
from backbones.graph import Group
from scoring.channel_weights import Floats, Weights, filter_members, member_rows, row_norms
from scoring.clusters import distance_sums

Needs = Literal["weights", "gradients", "ranks", "zeros", "grams"]


@dataclass(frozen=True, slots=True)
class CriterionInputs:
    """What criteria may look at.

    Attributes:
        tensors: the model's state dict.
        norm_layers: module paths of its batch norms.
        gradients: per filter weight the gradient of the loss, for criteria that need `gradients`.
        maps: per group one (n,) figure for each layer that reads it, for criteria that need `ranks` or `zeros`; for
            `grams` one (n,) figure, the error at which each channel goes.
        seed: what the criterion "random" draws by.
    """

    tensors: Mapping[str, Tensor]
    norm_layers: frozenset[str]
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    maps: Mapping[str, tuple[Floats, ...]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Criterion:
    """One way to value filters.

    Attributes:
        members: gives for each member of the group (n,) non-negative values, one a channel.
        needs: what has to be measured first; anything but `weights` takes data.
        source: what it computes and the paper it is from.
    """

    members: Callable[[Group, CriterionInputs], list[Floats]]
    needs: Needs
    source: str


def l1(block: Weights) -> Floats:
    """(n,) sums of absolute values of the rows of (n, k)."""
    return np.asarray(np.abs(block).sum(1, dtype=np.float64))


def l2(block: Weights) -> Floats:
    """(n,) Euclidean norms of the rows of (n, k)."""
    return row_norms(block)


def standard_deviation(block: Weights) -> Floats:
    """(n,) standard deviations (of the population) of the rows of (n, k)."""
    return np.asarray(block.std(1, dtype=np.float64))


def geometric_median(block: Weights) -> Floats:
    """(n,) mean Euclidean distances from each row of (n, k) to all rows: least at the geometric median."""
    return distance_sums(block) / len(block)


def by_rows(worth: Callable[[Weights], Floats]) -> Callable[[Group, CriterionInputs], list[Floats]]:
    """Makes a criterion of the weights that make each channel.

    Args:
        worth: from the (n, k) weights of n channels in one layer to (n,) values.
    """

    def members(group: Group, inputs: CriterionInputs) -> list[Floats]:
        return [worth(member_rows(inputs.tensors[member.tensor], member)) for member in filter_members(group)]

    return members


def bn_gamma(group: Group, inputs: CriterionInputs) -> list[Floats]:
    """|gamma| of every batch norm on the group's channels.

    Raises:
        SecateurError: when the group has no batch norm with weights.
    """
    found = [
        np.abs(member_rows(inputs.tensors[member.tensor], member)).mean(1, dtype=np.float64)
        for member in group.members
        if member.role == "vector" and member.layer in inputs.norm_layers and member.tensor.endswith(".weight")
    ]
    if not found:
        raise SecateurError(
            f"criterion 'bn_gamma' needs a batch norm with weights on every group, but {group.name!r} has none; "
            "take another criterion or leave the group out with trace(..., ignore=...)"
        )
    return found


def taylor(group: Group, inputs: CriterionInputs) -> list[Floats]:
    """|sum over the filter's weights of weight x gradient|: by how much zeroing it changes the loss, to first order."""
    return [
        np.abs(
            np.einsum(
                "ij,ij->i",
                member_rows(inputs.tensors[member.tensor], member),
                member_rows(inputs.gradients[member.tensor], member),
                dtype=np.float64,
            )
        )
        for member in filter_members(group)
    ]


def measured_maps(group: Group, inputs: CriterionInputs) -> list[Floats]:
    """What was measured on the group's activation maps, one figure a reading layer."""
    return list(inputs.maps[group.name])


def random_control(group: Group, inputs: CriterionInputs) -> list[Floats]:
    """Uniform in [0, 1), from the seed and the group's name alone, so that other groups do not matter."""
    rng = np.random.default_rng([inputs.seed, zlib.crc32(group.name.encode())])
    return [rng.random(group.size)]


CRITERIA: Mapping[str, Criterion] = {
    "l1": Criterion(by_rows(l1), "weights", "L1 norm of the filter (Li et al. 2017, arXiv 1608.08710)"),
    "l2": Criterion(by_rows(l2), "weights", "L2 norm of the filter (He et al. 2018, arXiv 1808.06866)"),
    "std": Criterion(by_rows(standard_deviation), "weights", "standard deviation of the filter's weights (Li 2019)"),
    "bn_gamma": Criterion(bn_gamma, "weights", "|gamma| of the batch norm (Liu et al. 2017, arXiv 1708.06519)"),
    "geometric_median": Criterion(
        by_rows(geometric_median), "weights", "mean distance to the layer's filters (FPGM: He et al. 2019, 1811.00250)"
    ),
    "taylor": Criterion(
        taylor, "gradients", "|sum of weight x gradient|, the root of the group contribution of Molchanov et al. 2019"
    ),
    "hrank": Criterion(
        measured_maps, "ranks", "mean rank of the activation map (HRank: Lin et al. 2020, arXiv 2002.10179)"
    ),
    "apoz": Criterion(
        measured_maps, "zeros", "1 - average percentage of zeros in the activations (Hu et al. 2016, arXiv 1607.03250)"
    ),
    "reconstruction": Criterion(
        measured_maps,
        "grams",
        "relative error of the layers that read the group, refitted, when the channel goes in the best order",
    ),
    "random": Criterion(random_control, "weights", "random control"),
}

REDUCTIONS: Mapping[str, Callable[[Floats], Floats]] = {
    "sum": lambda values: np.asarray(values.sum(0)),
    "mean": lambda values: np.asarray(values.mean(0)),
    "max": lambda values: np.asarray(values.max(0)),
    "first": lambda values: np.asarray(values[0]),
}


def importance(criterion: str, group: Group, inputs: CriterionInputs, reduction: str = "sum") -> Floats:
    """What each channel of a group is worth, larger is better.

    Args:
        criterion: a key of `CRITERIA`.
        group: n channels; where several layers make them (a residual stream) each is valued on its own.
        inputs: what the criterion needs.
        reduction: how the values of several layers become one: a key of `REDUCTIONS`.

    Returns:
        (n,) non-negative values, in units of the criterion.

    Raises:
        SecateurError: for unknown names, for `bn_gamma` without batch norm, for values that are not finite.
    """
    check_name("criterion", criterion, CRITERIA)
    check_name("reduction", reduction, REDUCTIONS)
    values = np.stack(CRITERIA[criterion].members(group, inputs))
    if not np.isfinite(values).all():
        raise SecateurError(
            f"criterion {criterion!r} is not finite on group {group.name!r}; look for NaN in weights and data"
        )
    return REDUCTIONS[reduction](values)
