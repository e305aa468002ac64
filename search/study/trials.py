"""The trials of a study in its storage: each written once, and claimed where several processes share the work.

A search on its own proposes and scores in memory and writes each finished trial in one transaction, so a search killed
at any moment leaves whole trials and nothing else: there is nothing to repair, and the next process proposes exactly
what this one would have proposed. Workers that share a study also write what they are about to score (a *claim*: a
RUNNING trial), so that no structure is scored twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.study.identity import check_identity
from search.study.samplers import SamplerHistory, Window
from search.study.storage import Result, open_storage, patiently, quiet, shown_url

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of trials that count: scored, and found infeasible."""
CLAIM = "claim"
"""User attribute of trials that workers write: the token of the process, a slash and a running number."""
WITHDRAWN = "withdrawn"
"""User attribute of claims that were one too many: nothing was lost with them."""


def claimant(trial: FrozenTrial) -> str:
    """The token of the process that claimed a trial; empty for a trial that nobody claimed."""
    return str(trial.user_attrs.get(CLAIM, "")).partition("/")[0]


class TrialWriter:
    """Reads and writes the trials of one Optuna study; waits for a server that is away.

    Args:
        url: the storage's URL.
        storage: the opened storage.
        make: makes or loads the study.

    Attributes:
        url: with the password: for opening the storage, never for showing.
        study: the Optuna study in the storage.
    """

    def __init__(self, url: str, storage: BaseStorage, make: Callable[[], optuna.Study]) -> None:
        self.url, self.storage = url, storage
        self.study = self.safely(make)

    def safely(self, action: Callable[[], Result], done: Callable[[], Result | None] | None = None) -> Result:
        """Does something with the storage; a server that is away is asked again (see `storage.patiently`).

        Args:
            action: what to do.
            done: asked before a repetition of what must not happen twice: the result if it did happen, else None.

        Raises:
            SecateurError: when it cannot be done.
        """
        with quiet():
            return patiently(self.url, action, done)

    def trials(self) -> list[FrozenTrial]:
        """All trials of any state, in the order of their numbers; not to be changed."""
        return self.safely(lambda: self.study.get_trials(deepcopy=False))

    def append(self, frozen: FrozenTrial, total: int) -> None:
        """Writes a finished trial into a study of `total` trials to which nobody else writes."""
        self.safely(
            lambda: self._add(frozen), lambda: True if len(self.study.get_trials(deepcopy=False)) > total else None
        )

    def claim(self, frozen: FrozenTrial, key: str) -> FrozenTrial:
        """Writes what is about to be worked on: a RUNNING trial, returned as the storage knows it.

        Args:
            frozen: parameters and facts.
            key: tells this claim from all others, so that it is not written twice when a server breaks off; begins
                with the token of the process.
        """
        running = copy.copy(frozen)
        running.state, running.values, running.datetime_complete = TrialState.RUNNING, None, None
        running.user_attrs = {**frozen.user_attrs, CLAIM: key}
        self.safely(lambda: self._add(running), lambda: self._found(key))
        return next(trial for trial in self.trials() if trial.user_attrs.get(CLAIM) == key)

    def finish(self, claim: FrozenTrial, values: Sequence[float] | None, facts: Mapping[str, Any]) -> bool:
        """Turns a claim into a finished trial.

        Args:
            claim: a RUNNING trial that this process wrote.
            values: one per objective; None when the trial turned out infeasible.
            facts: further user attributes.

        Returns:
            False when others took this process for dead and failed the claim meanwhile.
        """

        def write() -> bool:
            for key, value in facts.items():
                self.storage.set_trial_user_attr(claim._trial_id, key, value)
            state = TrialState.PRUNED if values is None else TrialState.COMPLETE
            return self.storage.set_trial_state_values(claim._trial_id, state, values)

        try:
            return self.safely(write, lambda: self.storage.get_trial(claim._trial_id).state in FINISHED or None)
        except UpdateFinishedTrialError:
            return False

    def fail(self, claim: FrozenTrial) -> bool:
        """Gives a claim up: its trial fails. Of several processes that try, one is told True."""
        try:
            return self.safely(lambda: self.storage.set_trial_state_values(claim._trial_id, TrialState.FAIL))
        except UpdateFinishedTrialError:
            return False

    def withdraw(self, claim: FrozenTrial) -> None:
        """Gives a claim up that was one too many: its trial fails, but does not count as failed."""
        with suppress(UpdateFinishedTrialError):
            self.safely(lambda: self.storage.set_trial_user_attr(claim._trial_id, WITHDRAWN, True))
            self.fail(claim)

    def _add(self, frozen: FrozenTrial) -> bool:
        self.study.add_trial(frozen)
        return True

    def _found(self, key: str) -> bool | None:
        trials = self.study.get_trials(deepcopy=False)
        return True if any(trial.user_attrs.get(CLAIM) == key for trial in trials) else None


class TrialStore(TrialWriter):
    """The trials of one search: in the storage, as a list of the finished ones, and as the sampler sees them.

    Args:
        name: the Optuna study's name.
        url: the storage's URL.
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
        self.sampler_history = SamplerHistory(self.directions, window)
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

    def history_at(self, count: int) -> optuna.Study:
        """The study in memory to ask the sampler on, after the first `count` finished trials."""
        with quiet():
            return self.sampler_history.at(self.finished, count)

    def tell(self, trial: optuna.Trial, values: Sequence[float] | None, facts: Mapping[str, Any]) -> FrozenTrial:
        """Finishes a trial that was asked in memory and writes it to the storage in one step. For a search on its own.

        Args:
            trial: asked on the study of `history_at`.
            values: one per objective; None when the trial was infeasible.
            facts: the user attributes of the trial.
        """
        return self._kept(self.sampler_history.tell(trial, values, facts))

    def put(self, frozen: FrozenTrial) -> FrozenTrial:
        """Writes a finished trial that no sampler proposed. For a search on its own."""
        return self._kept(frozen)

    def _kept(self, made: FrozenTrial) -> FrozenTrial:
        frozen = copy.copy(made)
        frozen.number = self.total
        self.append(frozen, self.total)
        self.total += 1
        self._known.add(frozen.number)
        self.finished.append(frozen)
        return frozen


def make_study(name: str, storage: BaseStorage, directions: Sequence[StudyDirection]) -> optuna.Study:
    """The study of that name, made if there is none; several processes may do so at the same time."""
    try:
        return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    except DuplicatedStudyError:  # made by another process between the look and the making
        return optuna.load_study(study_name=name, storage=storage)
