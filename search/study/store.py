"""Where the trials of a study live: an Optuna study in a storage, a list of its finished trials, a mirror to ask.

A search on its own proposes and scores on the mirror and writes each finished trial in one transaction, so a search
killed at any moment leaves whole trials and nothing else: there is nothing to repair, and the next process proposes
exactly what this one would have proposed. Workers that share a study also write what they are about to score (a
*claim*: a RUNNING trial), so that no structure is scored twice.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.study.identity import check_identity
from search.study.ledger import FINISHED, Ledger, quiet
from search.study.mirror import Mirror, Window
from search.study.storage import open_storage, shown_url


class Store(Ledger):
    """The trials of one study.

    Args:
        name: of the Optuna study.
        url: of the storage.
        objectives: 1 (score) or 2 (score up, MACs down).
        identity: what the trials depend on, item -> value; a study that was made with anything else is refused.
        window: what the sampler sees of the history.

    Attributes:
        finished: the finished trials as this process came to know them; by number where no worker shares the study.
        running: the claims of all processes at the last `sync`.
        total: number of trials of any state at the last `sync`.
    """

    def __init__(
        self, name: str, url: str, objectives: int, identity: Mapping[str, str], window: Window | None = None
    ) -> None:
        self.name, self.identity = name, dict(identity)
        self.directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives]
        with quiet():
            storage = open_storage(url)
        super().__init__(url, storage, lambda: make_study(name, storage, self.directions))
        self.safely(lambda: check_identity(self.study, self.identity, shown_url(url)))
        self.mirror = Mirror(self.directions, window)
        self.finished: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        self.total = 0
        self._known: set[int] = set()
        self.sync()

    def sync(self) -> list[FrozenTrial]:
        """Takes over what other processes have finished, and what they are at; returns what is new."""
        trials = self.trials()
        new = [trial for trial in trials if trial.number not in self._known and trial.state in FINISHED]
        self._known |= {trial.number for trial in new}
        self.finished += new
        self.running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        self.total = len(trials)
        return new

    def mirrored(self, count: int) -> optuna.Study:
        """The mirror as the first `count` finished trials leave it."""
        with quiet():
            return self.mirror.at(self.finished, count)

    def tell(self, trial: optuna.Trial, values: Sequence[float] | None, facts: Mapping[str, Any]) -> FrozenTrial:
        """Finishes a trial of the mirror and writes it to the storage in one step. For a search on its own.

        Args:
            trial: asked from the mirror.
            values: one per objective; None when the trial was infeasible.
            facts: its user attributes.
        """
        frozen = copy.copy(self.mirror.tell(trial, values))
        frozen.user_attrs, frozen.number = dict(facts), self.total
        self.append(frozen, self.total)
        self.total += 1
        self._known.add(frozen.number)
        self.finished.append(frozen)
        return frozen


def make_study(name: str, storage: Any, directions: Sequence[StudyDirection]) -> optuna.Study:
    """The study of that name, made if there is none; several processes may do so at the same time."""
    try:
        return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    except DuplicatedStudyError:  # made by another process between the look and the making
        return optuna.load_study(study_name=name, storage=storage)
