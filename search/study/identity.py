"""What the trials of a study depend on: anything else is another study, other library versions are only told."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any

import optuna
from torch import nn

from backbones.errors import SecateurError
from backbones.fingerprint import fingerprint
from backbones.graph import ChannelGraph
from backbones.inputs import sample_count
from backbones.modes import halves_pay
from scoring.scorers import halved
from scoring.scoring_task import ScoringTask
from search.data.data import Data
from search.space.budget import Budget
from search.space.space import Space
from search.study.storage import STORAGE_FAILURES, existing_storage, find_study

STUDY_FORMAT = 3
"""Version of what a study keeps in its storage."""
IDENTITY, VERSIONS = "secateur", "versions"
"""User attributes of the Optuna study: what its trials depend on, and the library versions it was begun with."""
OPERATIONS = "operations"
"""Item of an identity: what the forward pass does."""
ARGUMENTS = {
    "weights": "the weights of model (load those of the first time, or call torch.manual_seed before it is made)",
    "graph": "model and graph",
    OPERATIONS: "the code of model's forward, and what it was traced on,",
    "scorer": "scorer, batch and statistics",
    "format": "the version of secateur",
}
"""Item of an identity -> the arguments of `Study` that it comes from, where they have another name."""
LIBRARIES = ("torch", "optuna", "numpy", "scipy", "scikit-learn")
ARITHMETIC_NOTES = {True: ", in bfloat16", False: ", in float32"}
"""How the scorer of an identity ends where it can be computed in either; those of before say nothing."""
SCORE_ITEMS = ("format", "weights", "graph", OPERATIONS, "data", "scorer", "seed")
"""What a score depends on, apart from the structure: equal in two studies, their scores are too."""


def scorer_text(scorer: str, task: ScoringTask, batch: int, statistics: int, budget: str) -> str:
    """A scorer and what it looks at, as the identity of a study has them.

    Args:
        scorer: its name.
        task: what structures are scored on.
        batch: size of the scoring batch.
        statistics: images for batch-norm statistics; 0 for the batch itself.
        budget: as the identity has it: a rank sum ranks among structures of it.
    """
    renewed = f", statistics of {statistics} others" if statistics else ""
    fit, others = sample_count(task.fit), sample_count(task.held_out)
    refitted = f", refitted on {fit}, compared on {others}" if task.fit is not None else ""
    ranked = f", ranked in {budget}" if "+" in scorer else ""
    arithmetic = "" if task.half is None else ARITHMETIC_NOTES[task.half]
    return f"{scorer}, {batch} images{renewed}{refitted}{ranked}{arithmetic}"


def as_begun(name: str, url: str, space: Space, task: ScoringTask, scorer: str) -> tuple[Space, ScoringTask]:
    """The criterion and the arithmetic that a study was begun with, where they are not chosen.

    Scores of two arithmetics are not mixed: what a study was begun in holds on every machine.

    Args:
        name: of the study.
        url: of its storage.
        space: what is proposed.
        task: what structures are scored on.
        scorer: its name.

    Returns:
        space and task; of a new study the task in the arithmetic that is faster here.
    """
    known: Mapping[str, str] | None = None
    with suppress(SecateurError, KeyError, *STORAGE_FAILURES), existing_storage(url) as storage:
        known = find_study(name, url, storage).user_attrs[IDENTITY]
    half = halves_pay(task.batch) if halved(scorer) else None
    if known is not None:
        space = space.as_noted(json.loads(known["space"]))
        noted = [one for one, text in ARITHMETIC_NOTES.items() if known["scorer"].endswith(text)]
        half = noted[0] if noted else None
    return space, replace(task, half=half)


def identity_of(
    model: nn.Module, graph: ChannelGraph, data: Data, budget: Budget, space: Space, **others: str
) -> dict[str, str]:
    """What the trials of a study depend on: item -> its value or fingerprint.

    Args:
        model: the dense network.
        graph: its channel graph.
        data: the task and its samples.
        budget: what a structure may cost.
        space: what is proposed.
        others: scorer (`scorer_text`), sampler and seed, as texts.
    """
    return {
        "format": str(STUDY_FORMAT),
        "weights": fingerprint(model),
        "graph": graph.id,
        OPERATIONS: graph.program.id,
        "data": data.fingerprint,
        "budget": to_record(budget.to_dict()),
        "space": to_record(space.to_dict()),
        **others,
    }


def check_identity(study: optuna.Study, identity: Mapping[str, str], where: str) -> None:
    """Notes in a new study what its trials depend on; in a known study compares what is noted there.

    Args:
        study: an Optuna study, new or known.
        identity: what the trials depend on: item ("weights", "budget", ...) -> its value or fingerprint.
        where: the storage's URL without password, for messages.

    Raises:
        SecateurError: when the study was made with anything else; every item that differs is named.
    """
    known = study.user_attrs.get(IDENTITY)
    if known is None and study.get_trials(deepcopy=False):
        known = study.user_attrs.get(IDENTITY)  # another worker made it known meanwhile, and a trial
        if known is None:
            raise SecateurError(f"study {study.study_name!r} in {where} is not secateur's; use another name or storage")
    if known is None:
        study.set_user_attr(VERSIONS, versions())
        study.set_user_attr(IDENTITY, dict(identity))  # last: a process that is killed here leaves a new study behind
        return
    told, now = study.user_attrs.get(VERSIONS, {}), versions()
    different = different_items(known, identity, tuple(identity), same_torch=told.get("torch") == now["torch"])
    if different:
        first, *others = different
        more = f"; also another {', '.join(others)}" if others else ""
        raise SecateurError(
            f"study {study.study_name!r} in {where} was made with another {first} ({known.get(first)}, now "
            f"{identity[first]}){more}; {ARGUMENTS.get(first, first)} must be what it was, or give this study another "
            f"name or storage; open_study shows what is there"
        )
    changed = [f"{name} {told.get(name)} (now {one})" for name, one in now.items() if told.get(name) != one]
    if changed:
        warnings.warn(
            f"study {study.study_name!r} was begun with {', '.join(changed)}; its further trials may not be those "
            f"that the old versions would have given",
            stacklevel=3,
        )


def versions() -> dict[str, str]:
    """Library -> version, of what scores and proposals are computed with."""
    return {name: _installed(name) for name in LIBRARIES}


_installed = cache(version)  # each is looked up on the disk


def different_items(
    one: Mapping[str, str], other: Mapping[str, str], items: Iterable[str], *, same_torch: bool = True
) -> list[str]:
    """The items in which two identities differ.

    Args:
        one: an identity; older versions noted no operations, and no arithmetic of scores.
        other: another one.
        items: what is compared.
        same_torch: both were traced by the same version of torch, so that operations can be compared.
    """
    compared = [item for item in items if item != OPERATIONS or (same_torch and item in one and item in other)]
    plain = not all(one.get("scorer", "").endswith(tuple(ARITHMETIC_NOTES.values())) for one in (one, other))
    return [item for item in compared if _comparable(one, item, plain) != _comparable(other, item, plain)]


def _comparable(identity: Mapping[str, str], item: str, plain: bool) -> str | None:
    """An item; the scorer without its arithmetic where the other identity does not tell its own."""
    value = identity.get(item)
    if value is None or item != "scorer" or not plain:
        return value
    return value.removesuffix(ARITHMETIC_NOTES[True]).removesuffix(ARITHMETIC_NOTES[False])


def to_record(value: Any) -> str:
    """Canonical JSON, for fingerprints."""
    return json.dumps(value, sort_keys=True, default=str)
