"""What a study is at, read from its storage alone: also from another machine, also while others work on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from backbones.errors import SecateurError
from search.formatting import amount, percent, significant, text_table
from search.review.candidate import ranked
from search.study.candidates import candidate_of
from search.study.fork import REMEMBERED
from search.study.heartbeat import SECONDS, HeartbeatMonitor, records_in
from search.study.identity import IDENTITY, VERSIONS
from search.study.retrain import RETRAINED
from search.study.storage import existing_storage, find_study, patiently, quiet, shown_url


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """The state of one study.

    Attributes:
        name: the study's name in its storage.
        storage: the storage's URL without password.
        trials: number of trials by state: scored, infeasible, failed, running.
        structures: number of different structures that were found.
        best: the trial of the highest score, with its facts; empty before the first.
        workers: who is there: slot, host, process, when last heard of; `alive` is unknown (None) from another machine.
        retrained: structures by state: done, running, failed.
        accuracies: structure -> validation accuracy after retraining.
        made_with: what the trials depend on, and library versions.
    """

    name: str
    storage: str
    trials: Mapping[str, int]
    structures: int
    best: Mapping[str, Any]
    workers: tuple[Mapping[str, Any], ...]
    retrained: Mapping[str, int]
    accuracies: Mapping[str, float]
    made_with: Mapping[str, str]

    def __str__(self) -> str:
        return "\n".join(_lines(self))


STATES = {
    TrialState.COMPLETE: "scored",
    TrialState.PRUNED: "infeasible",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def status(storage: str, name: str | None = None) -> StudyStatus:
    """Reads the state of a study.

    Args:
        storage: the storage's URL.
        name: the study's name; not needed where the storage has one only.

    Raises:
        SecateurError: for a storage that cannot be read, a study that is not there, or no name where there are several.
    """
    with quiet(), existing_storage(storage) as opened:
        names = patiently(storage, lambda: optuna.get_all_study_names(opened))
        study = find_study(name or only_study(names, storage), storage, opened)
        trials = patiently(storage, lambda: study.get_trials(deepcopy=False))
        facts = patiently(storage, lambda: study.user_attrs)
        sibling = study.study_name + RETRAINED
        retrainings = []
        if sibling in names:
            other = find_study(sibling, storage, opened)
            retrainings = patiently(storage, lambda: other.get_trials(deepcopy=False))
    done = [one for one in retrainings if one.state is TrialState.COMPLETE]
    return StudyStatus(
        name=study.study_name,
        storage=shown_url(storage),
        trials=_counted(trials),
        structures=len({one.user_attrs["structure"] for one in trials if "structure" in one.user_attrs}),
        best=_best(trials),
        workers=tuple(_worker(slot, record) for slot, record in sorted(records_in(facts).items())),
        retrained=_counted(retrainings),
        accuracies={one.user_attrs["structure"]: one.values[0] for one in done},
        made_with={**facts.get(IDENTITY, {}), **facts.get(VERSIONS, {})},
    )


def only_study(names: list[str], storage: str) -> str:
    """The one study of a storage.

    Raises:
        SecateurError: when it has none or several; they are named.
    """
    own = [name for name in names if not name.endswith((RETRAINED, REMEMBERED))]
    if len(own) != 1:
        has = ", ".join(map(repr, own[:5])) or "none"
        raise SecateurError(f"storage {shown_url(storage)} has {len(own)} studies ({has}); say which one")
    return own[0]


def _counted(trials: list[FrozenTrial]) -> dict[str, int]:
    return dict(Counter(STATES[trial.state] for trial in trials))


def _best(trials: list[FrozenTrial]) -> dict[str, Any]:
    """Number, score, structure and cost of the best trial, as far as they are known; empty without a score."""
    scored = [candidate_of(None, trial, {}) for trial in trials if trial.state is TrialState.COMPLETE]
    if not (best_first := ranked(scored, "score")):
        return {}
    best = best_first[0]
    facts = {"structure": best.label or None, "macs": best.on("macs"), "params": best.on("params")}
    known = {key: value for key, value in facts.items() if value is not None}
    return {"trial": best.number, "score": best.score, **known}


def _worker(slot: str, record: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: record.get(key) for key in ("mode", "host", "process", "seen")}
    return {"slot": slot, **told, "alive": HeartbeatMonitor(SECONDS).is_alive(record)}


def _lines(status: StudyStatus) -> list[str]:
    counts = ", ".join(f"{number} {state}" for state, number in sorted(status.trials.items())) or "none"
    lines = [
        f"study {status.name!r} in {status.storage}",
        f"trials: {counts}; {status.structures} different structures",
    ]
    if status.best:
        one = status.best
        sizes = f", {amount(one['macs'])} MACs, {amount(one['params'])} parameters" if "macs" in one else ""
        lines.append(
            f"best: {significant(one['score'])}, trial {one['trial']}, structure {one.get('structure', '-')}{sizes}"
        )
    if status.workers:
        rows = [
            (
                f"{one['mode']} {one['slot']}",
                str(one["host"]),
                str(one["process"]),
                str(one["seen"]),
                _life(one["alive"]),
            )
            for one in status.workers
        ]
        lines += ["", text_table(("at work", "host", "process", "last heard of (UTC)", "alive"), rows)]
    if status.retrained:
        counts = ", ".join(f"{number} {_trained(state)}" for state, number in sorted(status.retrained.items()))
        lines += ["", f"retraining: {counts}"]
        ranked = sorted(status.accuracies.items(), key=lambda item: -item[1])
        lines += [f"  {structure}  {percent(accuracy)} of the validation images" for structure, accuracy in ranked]
    return lines


def _trained(state: str) -> str:
    return "done" if state == "scored" else state


def _life(alive: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[alive]
