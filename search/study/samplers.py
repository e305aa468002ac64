"""The samplers that a study can use, by name.

Each is made anew for every ask, from a seed and the number of finished trials, so that a search that was killed and
resumed asks the same sampler as one that was not. A sampler here keeps nothing of its own between two asks.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from backbones.errors import check_name
from search.study.sampler_history import Window


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


def _tpe(seed: int, finished: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=20, multivariate=True)


def _nsga2(seed: int, finished: int) -> BaseSampler:
    return ResumableNSGAII(seed=seed, population_size=40)


def _random(seed: int, finished: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _qmc(seed: int, finished: int) -> BaseSampler:
    return IndexedQMC(seed, finished)


def _gp(seed: int, finished: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "nsga2": _nsga2,
    "random": _random,
    "gp": _gp,
    "qmc": _qmc,
}
"""Name -> function of (seed of this ask, number of finished trials). Not cmaes: it unpickles its state."""

WINDOWS: dict[str, Window | None] = {
    "tpe": Window(best=100, recent=200),
    "nsga2": None,
    "random": Window(best=1, recent=1),
    "gp": Window(best=50, recent=50),
    "qmc": Window(best=1, recent=1),
}
"""Name -> the part of the history that the sampler is shown; None for all of it (NSGA-II reads its generations)."""


def sampler_for(name: str, seed: int, finished: int, worker: str = "") -> BaseSampler:
    """The sampler of one ask: the same for the same study seed and number of finished trials, killed in between or not.

    Args:
        name: a key of `SAMPLERS`.
        seed: the study's seed.
        finished: number of finished trials.
        worker: tells processes that share a study apart, so that they propose different things.

    Raises:
        SecateurError: for an unknown name.
    """
    check_name("sampler", name, SAMPLERS)
    digest = hashlib.sha256(f"{seed}/{finished}{worker and '/'}{worker}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](int.from_bytes(digest[:4], "big"), finished)
