"""Writes trials of one Optuna study: patiently, each once, and with claims that several processes respect."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from search.study.storage import patiently

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
CLAIM = "claim"
"""Attribute of what workers write: the token of the process, a slash and a running number."""

Result = TypeVar("Result")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna's log lines off the screen inside the block; warnings and errors stay."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def holder(trial: FrozenTrial) -> str:
    """The token of the process that wrote a claim."""
    return str(trial.user_attrs.get(CLAIM, "")).partition("/")[0]


class Ledger:
    """One study of a storage.

    Args:
        url: of the storage.
        storage: opened.
        make: makes or loads the study.

    Attributes:
        url: of the storage, with its password: for opening it, never for showing.
        study: in the storage.
    """

    def __init__(self, url: str, storage: BaseStorage, make: Callable[[], optuna.Study]) -> None:
        self.url, self.storage = url, storage
        self.study = self.safely(make)

    def safely(self, action: Callable[[], Result], done: Callable[[], Result | None] | None = None) -> Result:
        """Does something with the storage, patiently where a server is away.

        Raises:
            SecateurError: when it cannot be done.
        """
        with quiet():
            return patiently(self.url, action, done)

    def trials(self) -> list[FrozenTrial]:
        """All trials of any state, by number; not to be changed."""
        return self.safely(lambda: self.study.get_trials(deepcopy=False))

    def append(self, frozen: FrozenTrial, total: int) -> None:
        """Writes a finished trial where nobody else writes: after it there are `total` + 1."""
        self.safely(
            lambda: self._add(frozen), lambda: True if len(self.study.get_trials(deepcopy=False)) > total else None
        )

    def add(self, frozen: FrozenTrial, key: str) -> None:
        """Writes a finished trial while others write too.

        Args:
            frozen: what to write.
            key: tells this trial from all others, so that it is not written twice when a server breaks off.
        """
        marked = copy.copy(frozen)
        marked.user_attrs = {**frozen.user_attrs, CLAIM: key}
        self.safely(lambda: self._add(marked), lambda: self._found(key))

    def claim(self, frozen: FrozenTrial, key: str) -> FrozenTrial:
        """Writes what is about to be worked on: a RUNNING trial, returned as the storage knows it.

        Args:
            frozen: parameters and facts.
            key: tells this claim from all others; begins with the token of the process.
        """
        running = copy.copy(frozen)
        running.state, running.values, running.datetime_complete = TrialState.RUNNING, None, None
        self.add(running, key)
        return next(trial for trial in self.trials() if trial.user_attrs.get(CLAIM) == key)

    def finish(self, claim: FrozenTrial, values: Sequence[float] | None, facts: Mapping[str, Any]) -> bool:
        """Turns a claim into a finished trial.

        Args:
            claim: of this process.
            values: one per objective; None when it turned out infeasible.
            facts: further attributes.

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
        """Gives a claim up. Of several processes that try, one is told True."""
        try:
            return self.safely(lambda: self.storage.set_trial_state_values(claim._trial_id, TrialState.FAIL))
        except UpdateFinishedTrialError:
            return False

    def _add(self, frozen: FrozenTrial) -> bool:
        self.study.add_trial(frozen)
        return True

    def _found(self, key: str) -> bool | None:
        trials = self.study.get_trials(deepcopy=False)
        return True if any(trial.user_attrs.get(CLAIM) == key for trial in trials) else None
