"""The samplers a study can use, each made anew for every ask from (seed, finished trials) (design section 9)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from scoring.names import check_name


def _tpe(seed: int, finished: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=20, multivariate=True)


def _nsga2(seed: int, finished: int) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=40)


def _random(seed: int, finished: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2, "random": _random}
"""Name -> function of (seed of this ask, number of finished trials). Not cmaes: it unpickles its state."""


def sampler_for(name: str, seed: int, finished: int) -> BaseSampler:
    """The sampler of one ask: the same for the same study seed and number of finished trials, killed in between or not.

    Raises:
        SecateurError: for an unknown name.
    """
    check_name("sampler", name, SAMPLERS)
    digest = hashlib.sha256(f"{seed}/{finished}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](int.from_bytes(digest[:4], "big"), finished)
