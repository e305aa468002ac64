"""Where the trials of a study live: one Optuna study in a storage, and a mirror of it in memory that is asked.

A trial is proposed and scored on the mirror and then written to the storage in one transaction, so a search killed at
any moment leaves whole trials and nothing else: there is nothing to repair, and the next process proposes exactly what
this one would have proposed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from backbones.errors import SecateurError

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
IDENTITY = "secateur"


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna's log lines off the screen inside the block; warnings and errors stay."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(url: str) -> BaseStorage:
    """The Optuna storage behind a URL (`sqlite:///study.db`, `postgresql+psycopg://…`).

    Raises:
        SecateurError: when it cannot be opened; a password in the URL is not shown.
    """
    try:
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        return RDBStorage(url, engine_kwargs=options)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        line = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise SecateurError(f"storage {shown_url(url)} cannot be opened: {line}") from None


def shown_url(url: str) -> str:
    """The URL without its password."""
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "(not a URL)"


class Store:
    """The finished trials of one study.

    Args:
        name: of the Optuna study.
        url: of the storage.
        objectives: 1 (score) or 2 (score up, MACs down).
        identity: what the trials depend on, item -> value; a study that was made with anything else is refused.
    """

    def __init__(self, name: str, url: str, objectives: int, identity: Mapping[str, str]) -> None:
        self.directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives]
        self.storage = open_storage(url)
        with quiet():
            self.study = optuna.create_study(
                study_name=name, storage=self.storage, directions=self.directions, load_if_exists=True
            )
        known = self.study.user_attrs.get(IDENTITY)
        if known is None:
            self.study.set_user_attr(IDENTITY, dict(identity))
        elif known != dict(identity):
            different = [key for key in identity if known.get(key) != identity[key]]
            key = different[0] if different else "format"
            raise SecateurError(
                f"study {name!r} in {shown_url(url)} was made with another {key} ({known.get(key)}, now "
                f"{identity.get(key)}); give this study another name or storage"
            )
        self._mirror: optuna.Study | None = None

    @property
    def mirror(self) -> optuna.Study:
        """The study in memory: every finished trial of the storage, in order."""
        if self._mirror is None:
            with quiet():
                self._mirror = optuna.create_study(storage=InMemoryStorage(), directions=self.directions)
                self._mirror.add_trials(self.study.get_trials(deepcopy=False, states=FINISHED))
        return self._mirror

    @property
    def finished(self) -> list[FrozenTrial]:
        """The finished trials."""
        return self.mirror.get_trials(deepcopy=False, states=FINISHED)

    def forget(self) -> None:
        """Drops the mirror, with a trial that was not finished in it."""
        self._mirror = None

    def tell(self, trial: optuna.Trial, values: list[float] | None, facts: Mapping[str, Any]) -> FrozenTrial:
        """Finishes a trial of the mirror and writes it to the storage in one step.

        Args:
            trial: asked from the mirror.
            values: one per objective; None when the trial was infeasible.
            facts: its user attributes.
        """
        for key, value in facts.items():
            trial.set_user_attr(key, value)
        with quiet():
            frozen = self.mirror.tell(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)
            self.study.add_trial(frozen)
        return frozen


def to_record(value: Any) -> str:
    """Canonical JSON, for fingerprints."""
    return json.dumps(value, sort_keys=True, default=str)
