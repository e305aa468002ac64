"""The history as a sampler sees it: an Optuna study in memory, for some samplers with only a part of the trials.

TPE and GP read the whole history at every ask, so their time grows with it. They get a window of it: the best trials
and the most recent ones. The window moves in steps of `STEP` trials and depends on nothing but the finished trials, so
an interrupted search sees the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.review.candidate import nondominated
from search.study.storage import quiet

STEP = 100
"""Trials by which the window moves at a time."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which finished trials a sampler sees.

    Attributes:
        best: number of the best complete trials.
        recent: number of the latest trials; between two moves of the window up to `STEP` more.
    """

    best: int
    recent: int

    def of(self, history: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials of the history that lie in the window, in their order."""
        if len(history) <= self.best + self.recent:
            return list(history)
        latest = len(history) - self.recent
        kept = set(_best([i for i in range(latest) if history[i].state is TrialState.COMPLETE], history, self.best))
        return [one for i, one in enumerate(history) if i >= latest or i in kept]


def _best(rows: list[int], history: Sequence[FrozenTrial], count: int) -> list[int]:
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
            self._study.add_trials(known)
            self._start = self._count = start
        self._study.add_trials(history[self._count : count])
        self._count = count
        return self._study

    def tell(self, trial: optuna.Trial, values: Sequence[float] | None) -> FrozenTrial:
        """Finishes a trial that was asked here: the next one of the history. Infeasible without values."""
        self._count += 1
        with quiet():
            return trial.study.tell(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)

    def forget(self) -> None:
        """Starts anew at the next ask, without what was asked and never finished."""
        self._study = None
