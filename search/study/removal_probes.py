"""Which layers a search leaves out, where each may go by itself: found one by one before anything else is moved.

Whether a network can do without a layer is not to be seen in the dense network: a layer that turns its input much may
be made up for by those behind it, and what its MACs buy elsewhere depends on the budget. So it is tried: the best rule
without each layer in turn, its other widths scaled back onto the budget, then without the best and the next best
together, and so on while that gains (greedy forward selection; Guyon and Elisseeff, JMLR 2003, section 4.2). It takes a
trial a layer and a few more, for each target of the budget, and in a band for its lower and its upper half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from search.space.layer_removal import LayerRemovalOrder

PROBE = "secateur:without"
"""System attribute of a trial that tries what happens without some layers: which `part` of the budget, and `layers`."""
MISSES = 3
"""After so many layers in a row whose going brings nothing, no more are tried."""
NEARLY = 0.03
"""Costs whose logarithms differ by no more are taken for equal: rules fill a budget to that."""


def base_rule(rules: Sequence[FrozenTrial], axis: str, cost: float) -> FrozenTrial:
    """The best rule of those that cost about as much, or of those next to it.

    Args:
        rules: scored trials of the warm start.
        axis: of their costs, a name of `Cost`.
        cost: what is aimed at.
    """
    far = np.abs(_log_costs(rules, axis) - np.log(cost))
    return max(
        (rule for rule, one in zip(rules, far, strict=True) if one <= far.min() + NEARLY),
        key=lambda rule: rule.values[0],
    )


def next_removal(
    trials: Sequence[FrozenTrial], rules: Sequence[FrozenTrial], order: LayerRemovalOrder, axis: str, part: int
) -> tuple[str, ...]:
    """The layers to leave out of a rule in the next trial; none once all that is promising was tried.

    What it brings is the score beyond that of the best rule at the same cost, so that trials which aim at several costs
    can be compared.

    Args:
        trials: of any state; those that are still scored count as if they brought nothing.
        rules: scored trials of the warm start.
        order: the layers that may go.
        axis: of the costs, a name of `Cost`.
        part: of the budget; what was tried in others says nothing.
    """
    gains: dict[frozenset[str], float] = {}
    ruled = _best_at(rules, axis)
    for one in trials:
        probe = one.system_attrs.get(PROBE)
        if probe and probe["part"] == part:
            layers = frozenset(probe["layers"])
            done = one.state is TrialState.COMPLETE
            gain = one.values[0] - ruled(one.user_attrs[axis]) if done else -np.inf
            gains[layers] = max(gain, gains.get(layers, -np.inf))
    for layer in order.order:
        if frozenset([layer]) not in gains:
            return (layer,)
    alone = {layer: gains[frozenset([layer])] for layer in order.order}
    gone: frozenset[str] = frozenset()
    best, misses = 0.0, 0
    for layer in sorted((one for one in order.order if alone[one] > 0), key=lambda one: -alone[one]):
        if len(gone) == order.most or misses == MISSES:
            break
        more = gone | {layer}
        if more not in gains:
            return tuple(sorted(more))
        if gains[more] > best:
            gone, best, misses = more, gains[more], 0
        else:
            misses += 1
    return ()


def _best_at(rules: Sequence[FrozenTrial], axis: str) -> Callable[[float], float]:
    """From a cost to the score of the best rule there, by interpolation between the costs of rules."""
    costs, scores = _log_costs(rules, axis), np.array([rule.values[0] for rule in rules])
    best = np.array([scores[np.abs(costs - one) <= NEARLY].max() for one in costs])
    order = np.argsort(costs, kind="stable")
    return lambda cost: float(np.interp(np.log(cost), costs[order], best[order]))


def _log_costs(trials: Sequence[FrozenTrial], axis: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.log([float(one.user_attrs[axis]) for one in trials])
