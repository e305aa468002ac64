"""The samplers that a study can use, by name, and the history as each of them sees it.

Each is made anew for every ask, from a seed and the number of finished trials, so that a search that was killed and
resumed asks the same sampler as one that was not. A sampler here keeps nothing of its own between two asks.

TPE and GP read the whole history at every ask, so their time grows with it. They get a window of it: the best trials
and the most recent ones. The window moves in steps of `STEP` trials and depends on nothing but the finished trials, so
an interrupted search sees the same one.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from backbones.errors import SecateurError, check_name
from scoring.scorers import refits
from search.review.candidate import nondominated
from search.space.problem import SearchProblem
from search.space.proposals import WARM
from search.study.evolution import LocalMoves
from search.study.removal_probes import PROBE
from search.study.storage import quiet

Claims = Sequence[FrozenTrial]

STEP = 100
"""Trials by which the window moves at a time."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which finished trials a sampler sees.

    Attributes:
        best: number of the best complete trials.
        recent: number of the latest trials; between two moves of the window up to `STEP` more.
        first: the warm start, and what was tried on it (`removal_probes`), stay too.
    """

    best: int
    recent: int
    first: bool = False

    def of(self, history: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials of the history that lie in the window, in their order."""
        if len(history) <= self.best + self.recent:
            return list(history)
        latest = len(history) - self.recent
        kept = set(best_rows([i for i in range(latest) if history[i].state is TrialState.COMPLETE], history, self.best))
        return [one for i, one in enumerate(history) if i >= latest or i in kept or (self.first and _is_first(one))]


def _is_first(trial: FrozenTrial) -> bool:
    return WARM in trial.user_attrs or PROBE in trial.system_attrs


def best_rows(rows: list[int], history: Sequence[FrozenTrial], count: int) -> list[int]:
    """With one objective the highest values; with two, front after front, the last one thinned evenly along MACs."""
    if not rows or len(history[rows[0]].values) == 1:
        return sorted(rows, key=lambda i: (-history[i].values[0], i))[:count]
    chosen: list[int] = []
    while rows and len(chosen) < count:
        wins = nondominated([(history[i].values[1], history[i].values[0]) for i in rows])
        front = sorted((i for i, win in zip(rows, wins, strict=True) if win), key=lambda i: (history[i].values[1], i))
        rows = [i for i, win in zip(rows, wins, strict=True) if not win]
        room = min(len(front), count - len(chosen))
        chosen += [front[round(k * (len(front) - 1) / max(1, room - 1))] for k in range(room)]
    return chosen


class SamplerHistory:
    """An Optuna study in memory that follows a list of finished trials.

    Args:
        directions: one per objective.
        window: which of the finished trials the study holds; None for all.
    """

    def __init__(self, directions: Sequence[StudyDirection], window: Window | None) -> None:
        self.directions, self.window = list(directions), window
        self._study: optuna.Study | None = None
        self._start = self._count = 0

    def at(self, history: Sequence[FrozenTrial], count: int) -> optuna.Study:
        """The study as the first `count` trials of the history leave it."""
        start = 0 if self.window is None else count // STEP * STEP
        if self._study is None or start != self._start or count < self._count:
            self._study = optuna.create_study(storage=InMemoryStorage(), directions=self.directions)
            known = history[:start] if self.window is None else self.window.of(history[:start])
            self._add(known)
            self._start = self._count = start
        self._add(history[self._count : count])
        self._count = count
        return self._study

    def _add(self, trials: Sequence[FrozenTrial]) -> None:
        """Those of rules that no parameters describe are left out: of a space a sampler knows what all trials share."""
        assert self._study is not None
        self._study.add_trials([one for one in trials if one.params])

    def tell(
        self, trial: optuna.Trial, values: Sequence[float] | None, facts: Mapping[str, Any] | None = None
    ) -> FrozenTrial:
        """Finishes a trial that was asked here: the next one of the history.

        Args:
            trial: asked on the study of `at`.
            values: one per objective; None when the trial was infeasible.
            facts: its user attributes.
        """
        self._count += 1
        for name, value in (facts or {}).items():
            trial.set_user_attr(name, value)
        with quiet():
            return trial.study.tell(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)

    def forget(self) -> None:
        """Starts anew at the next ask, without what was asked and never finished."""
        self._study = None


class ResumableNSGAII(optuna.samplers.NSGAIISampler):
    """NSGA-II whose parents come in one order, whether they were just selected or remembered from an earlier ask.

    Optuna hands out a generation's parents best first once, and by number ever after; a draw among them would then
    depend on where a search was interrupted.
    """

    def select_parent(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """The parents of a generation, by number."""
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


class IndexedQMC(optuna.samplers.QMCSampler):
    """A quasi-random sequence whose position is the number of finished trials, not a counter kept in the storage."""

    def __init__(self, seed: int, index: int) -> None:
        super().__init__(scramble=False, seed=seed, warn_independent_sampling=False)
        self.index = index

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self.index


def _tpe(seed: int, finished: int, problem: SearchProblem | None, claims: Claims) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=20, multivariate=True)


def _nsga2(seed: int, finished: int, problem: SearchProblem | None, claims: Claims) -> BaseSampler:
    return ResumableNSGAII(seed=seed, population_size=40)


def _random(seed: int, finished: int, problem: SearchProblem | None, claims: Claims) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _qmc(seed: int, finished: int, problem: SearchProblem | None, claims: Claims) -> BaseSampler:
    return IndexedQMC(seed, finished)


def _gp(seed: int, finished: int, problem: SearchProblem | None, claims: Claims) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _evolution(seed: int, finished: int, problem: SearchProblem | None, claims: Claims) -> BaseSampler:
    if problem is None:
        raise SecateurError("sampler 'evolution' needs the search problem, whose structures it changes")
    return LocalMoves(seed, problem, claims)


SAMPLERS: dict[str, Callable[[int, int, SearchProblem | None, Claims], BaseSampler]] = {
    "evolution": _evolution,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "random": _random,
    "gp": _gp,
    "qmc": _qmc,
}
"""Name -> function of (seed of this ask, finished trials, what is searched, what others are scoring). Not cmaes: it
unpickles its state."""

DEFAULT_SAMPLER = "evolution"
"""What proposes unless told otherwise: see studies/README.md, "Does a search pay?"."""

WINDOWS: dict[str, Window | None] = {
    "evolution": Window(best=100, recent=100, first=True),
    "tpe": Window(best=100, recent=200),
    "nsga2": None,
    "random": Window(best=1, recent=1),
    "gp": Window(best=50, recent=50),
    "qmc": Window(best=1, recent=1),
}
"""Name -> the part of the history that the sampler is shown; None for all of it (NSGA-II reads its generations)."""


def tries_layers(sampler: str, scorer: str, warm_start: Sequence[object]) -> bool:
    """Whether a search can tell which layers to leave out: it tries them on a rule, by scores of refitted networks."""
    return sampler == "evolution" and refits(scorer) and bool(warm_start)


def sampler_for(
    name: str,
    seed: int,
    finished: int,
    worker: str = "",
    problem: SearchProblem | None = None,
    claims: Claims = (),
) -> BaseSampler:
    """The sampler of one ask: the same for the same study seed and number of finished trials, killed in between or not.

    Args:
        name: a key of `SAMPLERS`.
        seed: the study's seed.
        finished: number of finished trials.
        worker: tells processes that share a study apart, so that they propose different things.
        problem: what is searched; "evolution" needs it.
        claims: trials that other processes are scoring; "evolution" does not try the same layers meanwhile.

    Raises:
        SecateurError: for an unknown name.
    """
    check_name("sampler", name, SAMPLERS)
    digest = hashlib.sha256(f"{seed}/{finished}{worker and '/'}{worker}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](int.from_bytes(digest[:4], "big"), finished, problem, claims)
