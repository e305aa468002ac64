"""Local moves from the best structures so far: a sampler that starts where rules and earlier trials end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from scoring.ratios import kept_shares
from scoring.tables import FilterTables
from search.space.budget import Target
from search.space.cost_model import CostModel
from search.space.problem import SearchProblem
from search.space.projection import Projected, project_without
from search.space.proposals import WARM, aimed_target, kept_counts
from search.study.removal_probes import PROBE, base_rule, next_removal

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PARENTS, NEAR = 8, 12
"""One of the best trials is drawn to start from; with two objectives, of the trials nearest in cost."""
LEARNED_FROM = 24
"""Different structures that have to be scored before a guess is worth anything; each child is tried before."""
CHILDREN = 24
"""Neighbours of parents among which the best guess is tried."""
PROMISING, GRANDCHILDREN = 4, 2
"""Of so many children with the best guesses each has so many neighbours that are looked at too."""
FEW = 0.35
"""A move changes a geometric number of groups, or parameters: another one with one less this probability."""
FACTOR = 0.15
"""Standard deviation of the logarithm of the factor by which a width changes."""
RANGE_STEP = 0.1
"""Standard deviation of a move along a parameter of the whole network, as a share of its range."""
LENGTHS = (0.2, 0.4)
"""Length scales that are tried, over the root of the number of parameters."""
NOISE = 1e-2
"""Variance of the scores about the process, over its own: what the parameters do not tell."""
SLOPES = 0.1
"""Prior variance of the linear part's slopes, over that of the rest."""
LEARNED = 128
"""The best so many are learned from, so that a guess costs the same in a long search."""


@dataclass(frozen=True, eq=False)
class _Point:
    """What a move starts from and what it gives.

    Attributes:
        params: a trial's parameters.
        shares: (groups,) what its structure keeps of each group.
    """

    params: Mapping[str, Any]
    shares: Floats


class LocalMoves(BaseSampler):
    """Proposes a neighbour of one of the best trials: of many, the one of which the scores so far promise most.

    A few groups of a good structure become wider or narrower, then single steps in groups drawn at random bring it back
    onto the budget (truncation selection and mutation as in regularised evolution, Real et al., AAAI 2019, without its
    ageing: scores are not noisy). In spaces of thresholds, a few of these move by a tenth of their range. With two
    objectives parents are the best trials near the cost that the trial aims at. Scoring a structure takes far longer
    than making one, so a Gaussian process guesses what each of some dozen neighbours would score (`guess_from`), as
    predictors do in searches for architectures (White et al., NeurIPS 2021); only the best guess is scored. Where each
    layer may go by itself it is tried first which should (`search.study.removal_probes`).

    Nothing is kept between two asks.

    Args:
        seed: of this ask.
        problem: what is searched.
        claims: trials that other processes are scoring.
    """

    def __init__(self, seed: int, problem: SearchProblem, claims: Sequence[FrozenTrial] = ()) -> None:
        self._rng = np.random.default_rng(seed)
        self._problem, self._claims = problem, claims
        self._names = problem.space.share_params(problem.tables)
        self._thinnest = problem.limits.floors(problem.tables) / problem.tables.sizes
        self._random = RandomSampler(seed=seed)
        self._child: Mapping[str, Any] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters of the best trial; none while there is no trial to start from."""
        known = [
            one
            for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if one.params and "kept" in one.user_attrs
        ]
        if not known:
            return {}
        ordered = self._best_first(known)
        distributions = ordered[0].distributions
        number, target = aimed_target(self._problem, trial.number)
        child = self._probe(study, trial, ordered, distributions, number, target)
        self._child = (child or self._promising(ordered, distributions, target)).params
        return distributions

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

    def _probe(
        self,
        study: Study,
        trial: FrozenTrial,
        ordered: Sequence[FrozenTrial],
        distributions: Mapping[str, BaseDistribution],
        number: int,
        target: Target,
    ) -> _Point | None:
        """The best rule without some layers, where each may go and it is not known yet which should."""
        order, rules = self._problem.removal_order, [one for one in ordered if WARM in one.user_attrs]
        if order is None or not order.each or not self._names or not rules:
            return None
        aimed, whole = target.bounds[target.aimed], self._problem.targets[number].bounds[target.aimed]
        part = 2 * number + (aimed.high > (whole.low + whole.high) / 2)
        known = [*study.get_trials(deepcopy=False), *self._claims]
        wanted = next_removal(known, rules, order, aimed.axis, part)
        if not wanted:
            return None
        study._storage.set_trial_system_attr(trial._trial_id, PROBE, {"part": part, "layers": list(wanted)})
        rule = base_rule(rules, aimed.axis, aimed.high)
        removed = order.chosen(order.params((*rule.user_attrs.get("removed", ()), *wanted)))
        [shares] = self._shares([rule])
        found = project_without(self._problem, removed, shares, target)
        if isinstance(found, Projected):
            shares = kept_shares(self._problem.tables, found.structure)
            self._thin(shares, removed)
        return self._child_of(order.params(removed), shares, distributions)

    def _best_first(self, known: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Of each structure the first trial."""
        first = {one.user_attrs["structure"]: one for one in reversed(known)}
        return sorted(first.values(), key=lambda one: (-one.values[0], one.number))

    def _near_in_cost(self, ordered: Sequence[FrozenTrial], target: Target) -> list[int]:
        """Which trials may be parents, the best first; with two objectives those that cost about what is aimed at."""
        rows = np.arange(len(ordered))
        if self._problem.objectives > 1:
            bound = target.bounds[target.aimed]
            costs = np.array([one.user_attrs[bound.axis] for one in ordered], dtype=float)
            rows = np.sort(np.argsort(np.abs(np.log(costs / bound.high)), kind="stable")[:NEAR])
        return [int(row) for row in rows[:PARENTS]]

    def _promising(
        self, ordered: Sequence[FrozenTrial], distributions: Mapping[str, BaseDistribution], target: Target
    ) -> _Point:
        """A neighbour of a good trial; once enough is known, of many the one with the best guess.

        Args:
            ordered: finished trials of different structures, the best first.
            distributions: of their parameters.
            target: where to land.
        """
        known = [_Point(one.params, row) for one, row in zip(ordered, self._shares(ordered), strict=True)]
        near = self._near_in_cost(ordered, target)

        def neighbour(points: Sequence[_Point]) -> _Point:
            return self._move(points[int(self._rng.integers(len(points)))], distributions, target)

        parents = [known[row] for row in near]
        if len(known) < LEARNED_FROM:
            return neighbour(parents)
        scored = self._rows(known, distributions)
        guess = guess_from(scored, np.array([one.values[0] for one in ordered]))
        tried = {row.tobytes() for row in scored}
        children = [neighbour(parents) for _ in range(CHILDREN)]
        rows = self._rows(children, distributions)
        guesses = guess(rows)
        best = [children[row] for row in np.argsort(-guesses, kind="stable")[:PROMISING]]
        further = [neighbour([one]) for one in best for _ in range(GRANDCHILDREN)]
        further_rows = self._rows(further, distributions)
        children, rows = children + further, np.concatenate([rows, further_rows])
        guesses = np.concatenate([guesses, guess(further_rows)])
        guesses[[row.tobytes() in tried for row in rows]] = -np.inf
        return children[int(guesses.argmax())]

    def _rows(self, points: Sequence[_Point], distributions: Mapping[str, BaseDistribution]) -> Floats:
        """(points, parameters) logarithms of shares, and parameters of the whole network over their range."""
        others = [name for name in sorted(distributions) if name not in self._names]
        rows = []
        for point in points:
            row = list(np.log(point.shares)) if self._names else []
            for name in others:
                low, high = _range(distributions[name])
                row.append((point.params[name] - low) / max(high - low, 1e-9))
            rows.append(row)
        return np.array(rows, dtype=np.float64)

    def _move(self, parent: _Point, distributions: Mapping[str, BaseDistribution], target: Target) -> _Point:
        """A neighbour."""
        child = dict(parent.params)
        others = [name for name in child if name not in self._names]
        for name in self._rng.permutation(others)[: self._rng.geometric(FEW)].tolist():
            child[name] = self._near(child[name], distributions[name])
        if not self._names:
            return _Point(child, parent.shares)
        order = self._problem.removal_order
        shares = self._neighbour(parent.shares, order.chosen(child) if order else (), target)
        return self._child_of(child, shares, distributions)

    def _child_of(
        self, params: Mapping[str, Any], shares: Floats, distributions: Mapping[str, BaseDistribution]
    ) -> _Point:
        """A point of these shares; `params` has the other parameters."""
        child = dict(params)
        for name, share in zip(self._names, shares.tolist(), strict=True):
            low, high = _range(distributions[name])
            child[name] = float(np.clip(share, low, high))
        return _Point(child, shares)

    def _shares(self, trials: Sequence[FrozenTrial]) -> Floats:
        """(trials, groups) what structures keep of each group."""
        shares = kept_counts(self._problem.graph, [one.user_attrs for one in trials]) / self._problem.tables.sizes
        for row, one in zip(shares, trials, strict=True):
            self._thin(row, one.user_attrs.get("removed", ()))
        return np.asarray(shares, dtype=np.float64)

    def _near(self, value: Any, distribution: BaseDistribution) -> Any:
        """A value of the whole network's parameters, moved; of a whole number one up or down, or none."""
        low, high = _range(distribution)
        if isinstance(distribution, IntDistribution):
            return int(np.clip(value + self._rng.choice([-1, 0, 0, 0, 1]), low, high))
        return float(np.clip(value + self._rng.normal(0.0, RANGE_STEP * (high - low)), low, high))

    def _thin(self, shares: Floats, removed: Iterable[str]) -> None:
        """Takes groups that went with their layers for as thin as they may be, in place: nearly gone, if they return.

        Args:
            shares: (groups,) of the dense network's groups.
            removed: layers that go.
        """
        for layer in removed:
            if self._problem.removal_order is not None:
                gone = self._problem.removal_order.gone_with(layer)
                shares[gone] = self._thinnest[gone]

    def _neighbour(self, shares: Floats, removed: tuple[str, ...], target: Target) -> Floats:
        """(groups,) shares of a structure near one whose groups keep `shares`, inside the target.

        Args:
            shares: (groups,) of the dense network's groups.
            removed: layers that go.
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
        self._thin(shares, removed)
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
            wider[group] = min((widths[group] // step + 1) * step, tables.sizes[group])
            if target.over(costs.evaluate(wider)):
                closed[group] = True
            else:
                widths = wider
                closed[group] = widths[group] >= tables.sizes[group]
        return widths


def _range(distribution: BaseDistribution) -> tuple[float, float]:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low, distribution.high


def guess_from(points: Floats, scores: Floats) -> Callable[[Floats], Floats]:
    """Learns what other points may score at best: mean plus standard deviation of a Gaussian process.

    A linear trend and a squared-exponential kernel of the length with the higher marginal likelihood (Rasmussen and
    Williams, 2006, algorithm 2.1). Scores are replaced by the normal quantiles of their ranks (Salinas et al., "A
    quantile-based approach for hyperparameter transfer learning", ICML 2020), so that their scale and a few very bad
    ones do not matter.

    Args:
        points: (n, parameters) what was scored.
        scores: (n,) their scores, higher is better.

    Returns:
        from (m, parameters) to (m,) in standard deviations of the ranks' quantiles.
    """
    from scipy.stats import norm, rankdata
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

    best = np.argsort(-scores, kind="stable")[:LEARNED]
    points, scores = points[best], scores[best]
    values = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    scale = np.sqrt(points.shape[1])
    with threadpool_limits(1):  # sums in one order: the same guess each time
        fits = [
            GaussianProcessRegressor(
                RBF(length * scale, "fixed") + ConstantKernel(SLOPES, "fixed") * DotProduct(1.0, "fixed"),
                alpha=NOISE,
                optimizer=None,
            ).fit(points, values)
            for length in LENGTHS
        ]
    likeliest = max(fits, key=lambda fit: float(fit.log_marginal_likelihood_value_))

    def guess(others: Floats) -> Floats:
        with threadpool_limits(1):
            mean, deviation = likeliest.predict(others, return_std=True)
        return np.asarray(mean + deviation, dtype=np.float64)

    return guess
