"""A new study from an old one: trials that are still valid are taken over, and every score is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import optuna
from optuna.trial import FrozenTrial, TrialState

from backbones.errors import SecateurError
from search.space.problem import SearchProblem
from search.space.proposals import AIM, AIMED, TARGET, aim_of, cost_of
from search.study.identity import IDENTITY, SCORE_ITEMS, VERSIONS, different_items, versions
from search.study.scores import ScoreCache, StructureScore
from search.study.storage import existing_storage, find_study, quiet
from search.study.trials import FINISHED, TrialStore, make_study

REMEMBERED = " (scores)"
"""A study of this name keeps scores from elsewhere, a thousand in an attribute."""


@dataclass(frozen=True, slots=True)
class ForkResult:
    """What was taken over.

    Attributes:
        trials: number of finished trials that the new study has now.
        scores: number of structures that will not be scored again.
    """

    trials: int
    scores: int


def fork_study(store: TrialStore, problem: SearchProblem, name: str, url: str, scores: ScoreCache) -> ForkResult:
    """Fills an empty study from another one.

    Args:
        store: the new study's trials, none so far.
        problem: what the new study proposes from.
        name: the old study's name.
        url: URL of the old study's storage.
        scores: the new study's scores; learns the old ones.

    Raises:
        SecateurError: as `Study.fork`.
    """
    if store.total:
        raise SecateurError(f"study {store.name!r} has {store.total} trials; only a new study can take over another's")
    with quiet(), existing_storage(url) as storage:
        old = find_study(name, url, storage)
        theirs, ours = old.user_attrs.get(IDENTITY, {}), store.identity
        same_torch = old.user_attrs.get(VERSIONS, {}).get("torch") == versions()["torch"]
        trials = [one for one in old.get_trials(deepcopy=False, states=FINISHED) if "structure" in one.user_attrs]
    different = different_items(theirs, ours, SCORE_ITEMS, same_torch=same_torch)
    if different:
        item = different[0]
        raise SecateurError(
            f"the scores of study {name!r} do not hold for {store.name!r}: another {item} ({theirs.get(item)}, now "
            f"{ours.get(item)})"
        )
    scores.learn(trials)
    _remember(store, scores.known)
    valid = [made for one in trials if (made := _valid(one, problem))] if theirs["space"] == ours["space"] else []
    for one in valid:
        store.safely(partial(store.study.add_trial, one))
    store.sync()
    return ForkResult(len(valid), len(scores.known))


def recall_scores(store: TrialStore, scores: ScoreCache) -> None:
    """Learns the scores that a fork left in the storage."""
    if store.name + REMEMBERED in store.safely(lambda: optuna.get_all_study_names(store.storage)):
        memory = store.safely(lambda: optuna.load_study(study_name=store.name + REMEMBERED, storage=store.storage))
        for part in memory.user_attrs.values():
            scores.known |= {key: StructureScore(*value) for key, value in part.items()}


def _remember(store: TrialStore, known: Mapping[str, StructureScore]) -> None:
    name = store.name + REMEMBERED
    memory = store.safely(lambda: make_study(name, store.storage, store.directions[:1]))
    items = iter(known.items())
    parts = iter(lambda: {key: [one.score, one.reason] for key, one in islice(items, 1000)}, {})
    for number, part in enumerate(parts):
        store.safely(partial(memory.set_user_attr, f"part {number}", part))


def _valid(old: FrozenTrial, problem: SearchProblem) -> FrozenTrial | None:
    """The trial as one of the new study, when its structure lies inside the new budget."""
    if old.state is not TrialState.COMPLETE:
        return None
    cost = cost_of(old.user_attrs)
    inside = [i for i, target in enumerate(problem.targets) if not target.over(cost) and not target.under(cost)]
    if not inside:
        return None
    own = [name for name in old.params if name != TARGET and not name.endswith(AIMED)]  # parameters in old studies
    aim = aim_of(problem, inside[0], cost)
    facts = {key: value for key, value in old.user_attrs.items() if key != AIM} | ({AIM: aim} if aim else {})
    return optuna.trial.create_trial(
        values=problem.values(old.values[0], cost.macs),
        params={name: old.params[name] for name in own},
        distributions={name: old.distributions[name] for name in own},
        user_attrs={**facts, "forked": old.number},
    )
