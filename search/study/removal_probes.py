"""Which layers a search leaves out, where each may go by itself: found one by one before anything else is moved.

Whether a network can do without a layer is not to be seen in the dense network: a layer that turns its input much may
be made up for by those behind it, and what its MACs buy elsewhere depends on the budget. So it is tried: the best rule
without each layer in turn, its other widths scaled back onto the budget, then without the best and the next best
together, and so on while that gains (greedy forward selection; Guyon and Elisseeff, JMLR 2003, section 4.2). It takes a
trial a layer and a few more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from search.space.layer_removal import LayerRemovalOrder

PROBE = "secateur:without"
"""System attribute of a trial that tries what happens without some layers: which."""
MISSES = 3
"""After so many layers in a row whose going brings nothing, no more are tried."""


def next_removal(
    trials: Sequence[FrozenTrial], order: LayerRemovalOrder, gain: Callable[[FrozenTrial], float]
) -> tuple[str, ...]:
    """The layers to leave out of the best rule in the next trial; none once all that is promising was tried.

    Args:
        trials: of any state, those of this search's batch included, which count as failures while they run.
        order: the layers that may go.
        gain: how much better than the rules a finished trial scores, at what it costs.
    """
    gains: Mapping[frozenset[str], float] = {
        frozenset(one.system_attrs[PROBE]): gain(one) if one.state is TrialState.COMPLETE else -np.inf
        for one in trials
        if PROBE in one.system_attrs
    }
    alone = {layer: gains.get(frozenset([layer])) for layer in order.order}
    for layer, gained in alone.items():
        if gained is None:
            return (layer,)
    promising = sorted((layer for layer in order.order if alone[layer] > 0), key=lambda layer: -alone[layer])
    gone, best, misses = frozenset[str](), 0.0, 0
    for layer in promising:
        if len(gone) == order.most or misses == MISSES:
            break
        tried = gone | {layer}
        if tried not in gains:
            return tuple(sorted(tried))
        if gains[tried] > best:
            gone, best, misses = tried, gains[tried], 0
        else:
            misses += 1
    return ()
