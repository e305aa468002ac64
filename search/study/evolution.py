"""Local moves from the best structures so far: a sampler that starts where rules and earlier trials end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from scoring.ratios import kept_shares
from scoring.tables import FilterTables
from search.space.budget import Target
from search.space.cost_model import CostModel
from search.space.problem import LAYERS, SearchProblem
from search.space.proposals import aimed_target, unpack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PARENTS, NEAR = 4, 12
"""One of the best trials is drawn to start from; with two objectives, of the trials nearest in cost."""
FEW = 0.35
"""A move changes a geometric number of groups, or parameters: another one with one less this probability."""
FACTOR = 0.15
"""Standard deviation of the logarithm of the factor by which a width changes."""
RANGE_STEP = 0.1
"""Standard deviation of a move along a parameter of the whole network, as a share of its range."""


class LocalMoves(BaseSampler):
    """Proposes a neighbour of one of the best trials.

    A few groups of a good structure become wider or narrower, then single steps in groups drawn at random bring it back
    onto the budget (truncation selection and mutation as in regularised evolution, Real et al., AAAI 2019, without its
    ageing: scores are not noisy). In spaces of thresholds, a few of these move by a tenth of their range. With two
    objectives parents are the best trials near the cost that the trial aims at.

    Nothing is kept between two asks.

    Args:
        seed: of this ask.
        problem: what is searched.
    """

    def __init__(self, seed: int, problem: SearchProblem) -> None:
        self._rng = np.random.default_rng(seed)
        self._problem = problem
        self._random = RandomSampler(seed=seed)
        self._child: dict[str, Any] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters of the chosen parent; none while there is no trial to start from."""
        known = [
            one
            for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if one.params and "kept" in one.user_attrs
        ]
        if not known:
            return {}
        _, target = aimed_target(self._problem, trial.number)
        parent = self._parent(known, target)
        self._child = self._move(parent, target)
        return parent.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The child's parameters."""
        return {name: value for name, value in self._child.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What there is no parent for is drawn at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _parent(self, known: list[FrozenTrial], target: Target) -> FrozenTrial:
        """One of the best distinct structures; with two objectives, of those that cost about as much as is aimed at."""
        first = {one.user_attrs["structure"]: one for one in reversed(known)}
        ordered = sorted(first.values(), key=lambda one: (-one.values[0], one.number))
        if self._problem.objectives > 1:
            bound = target.bounds[target.aimed]
            costs = np.array([one.user_attrs[bound.axis] for one in ordered], dtype=float)
            near = np.argsort(np.abs(np.log(costs / bound.high)), kind="stable")[:NEAR]
            ordered = [ordered[place] for place in np.sort(near)]
        return ordered[int(self._rng.integers(min(PARENTS, len(ordered))))]

    def _move(self, parent: FrozenTrial, target: Target) -> dict[str, Any]:
        """The parameters of a neighbour."""
        names = self._problem.space.share_params(self._problem.tables)
        child = dict(parent.params)
        others = [name for name in child if name not in names]
        for name in self._rng.permutation(others)[: self._rng.geometric(FEW)].tolist():
            child[name] = self._near(child[name], parent.distributions[name])
        if not names:
            return child
        shares = kept_shares(self._problem.tables, unpack(self._problem.graph, parent.user_attrs))
        shares = self._neighbour(shares, int(child.get(LAYERS, 0)), target)
        for name, share in zip(names, shares.tolist(), strict=True):
            distribution = parent.distributions[name]
            assert isinstance(distribution, FloatDistribution)
            child[name] = float(np.clip(share, distribution.low, distribution.high))
        return child

    def _near(self, value: Any, distribution: BaseDistribution) -> Any:
        """A value of the whole network's parameters, moved; of a whole number one up or down, or none."""
        if isinstance(distribution, IntDistribution):
            return int(np.clip(value + self._rng.choice([-1, 0, 0, 0, 1]), distribution.low, distribution.high))
        assert isinstance(distribution, FloatDistribution)
        width = distribution.high - distribution.low
        return float(np.clip(value + self._rng.normal(0.0, RANGE_STEP * width), distribution.low, distribution.high))

    def _neighbour(self, shares: Floats, removed: int, target: Target) -> Floats:
        """(groups,) shares of a structure near one whose groups keep `shares`, inside the target.

        Args:
            shares: (groups,) of the dense network's groups.
            removed: so many layers go.
            target: where to land.
        """
        order, tables, dense = self._problem.removal_order, self._problem.tables, np.arange(len(shares))
        if order is not None and removed:
            network = order.without(removed)
            tables, dense = network.tables, network.dense_groups
        limits, sizes = self._problem.limits, tables.sizes
        widths = limits.admit(np.rint(shares[dense] * sizes).astype(np.int64), tables)
        for group in self._rng.permutation(len(widths))[: self._rng.geometric(FEW)]:
            width = np.rint(widths[group] * np.exp(self._rng.normal(0.0, FACTOR)))
            widths[group] = width + self._rng.choice([-1, 1]) * limits.divisor
        costs = self._problem.cost_model_without(removed)
        widths = self._onto(limits.admit(np.minimum(widths, sizes), tables), tables, costs, target)
        shares = shares.copy()
        shares[dense] = widths / sizes
        return shares

    def _onto(self, widths: Ints, tables: FilterTables, costs: CostModel, target: Target) -> Ints:
        """Single steps in groups drawn at random, down until the target holds, then up while it does."""
        limits = self._problem.limits
        floors, step = limits.floors(tables), limits.divisor
        while target.over(costs.evaluate(widths)) and (widths > floors).any():
            group = self._rng.choice(np.flatnonzero(widths > floors))
            widths[group] = max((widths[group] - 1) // step * step, floors[group])
        closed = widths >= tables.sizes
        while not closed.all():
            group = self._rng.choice(np.flatnonzero(~closed))
            wider = widths.copy()
            wider[group] += 1
            wider = limits.admit(wider, tables)
            if target.over(costs.evaluate(wider)):
                closed[group] = True
            else:
                widths = wider
                closed[group] = widths[group] >= tables.sizes[group]
        return widths
