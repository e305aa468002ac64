"""A study read from its storage alone: no network, graph or data, also from another machine, also while others work."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from backbones.arguments import explained
from backbones.errors import SecateurError, plain_text
from backbones.structure import Structure
from search.data.task import ACCURACY, MetricSpec
from search.formatting import WIDTH, amount, significant, text_table
from search.review.candidate import Candidate, ranked, ties
from search.review.front import Front
from search.review.records import training_record, training_text
from search.study.candidates import candidate_of, confirmed_scores
from search.study.heartbeat import SECONDS, HeartbeatMonitor, records_in
from search.study.identity import IDENTITY, VERSIONS
from search.study.metadata import StudyMetadata, dense_accuracy_of, dense_candidate, read_metadata
from search.study.networks import RETRAIN_FOLDER
from search.study.retrain import RETRAINED, read_retrainings
from search.study.storage import (
    DATABASE,
    RECORD,
    absolute_url,
    existing_storage,
    find_study,
    folder_storage,
    patiently,
    quiet,
    readable,
    shown_url,
)
from search.study.trials import FINISHED, WITHDRAWN
from search.study.warm_start import REMEMBERED

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """The state of one study.

    Attributes:
        name: the study's name in its storage.
        storage: the storage's URL without password.
        trials: number of trials by state: scored, infeasible, failed, running.
        structures: number of different structures that were found.
        best: the trial of the highest score: "trial", "score", "structure", "macs", "params", "name" and, in words,
            what it ties with, "ties"; empty before the first.
        workers: who is there: slot, host, process, when last heard of; `alive` is unknown (None) from another machine.
        retrained: trainings by state: done, running, failed; short ones that decide between finalists included.
        accuracies: structure -> validation accuracy after its best retraining.
        trainings: for each structure and recipe, the best first: "trial", "structure", "name", validation "accuracy"
            (None before the end), "progress" in words, and what `search.review.records.training_record` has of it.
        metric: what `accuracies` are.
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
    trainings: tuple[Mapping[str, Any], ...]
    made_with: Mapping[str, str]
    metric: MetricSpec = ACCURACY

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
        trials = _trials_of(study, storage)
        facts = patiently(storage, lambda: study.user_attrs)
        sibling = study.study_name + RETRAINED
        retrainings = []
        if sibling in names:
            retrainings = _trials_of(find_study(sibling, storage, opened), storage)
        metadata = read_metadata(facts)
        metric = metadata.metric if metadata is not None else ACCURACY
        trainings = _trainings(trials, retrainings, metric)
        best_last = reversed([one for one in trainings if one["accuracy"] is not None])
        return StudyStatus(
            name=study.study_name,
            storage=shown_url(storage),
            trials=_counted(trials),
            structures=len({one.user_attrs["structure"] for one in trials if "structure" in one.user_attrs}),
            best=_best(trials, metadata),
            workers=tuple(_worker(slot, record) for slot, record in sorted(records_in(facts).items())),
            retrained=_counted(retrainings),
            accuracies={one["structure"]: one["accuracy"] for one in best_last},
            trainings=trainings,
            made_with={**facts.get(IDENTITY, {}), **facts.get(VERSIONS, {})},
            metric=metric,
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


def _trials_of(study: optuna.Study, storage: str) -> list[FrozenTrial]:
    """All but those that were claimed once too often."""
    written = patiently(storage, lambda: study.get_trials(deepcopy=False))
    return [one for one in written if WITHDRAWN not in one.user_attrs]


def _counted(trials: list[FrozenTrial]) -> dict[str, int]:
    return dict(Counter(STATES[trial.state] for trial in trials))


def _best(trials: list[FrozenTrial], layout: StudyMetadata | None) -> dict[str, Any]:
    """Number, score, structure, cost and name of the best trial, as far as they are known; empty without a score."""
    scored = {trial.number: trial for trial in trials if trial.state is TrialState.COMPLETE}
    ones = ranked([candidate_of(None, trial, {}) for trial in scored.values()], "score")
    if not ones:
        return {}
    level = [candidate_of(layout, scored[one.number], {}) for one in ones if one.score == ones[0].score]
    best = level[0]
    facts = {"structure": ones[0].label or None, "macs": best.on("macs"), "params": best.on("params")}
    known = {key: value for key, value in facts.items() if value is not None}
    told = {"name": best.title, "ties": ties(level, [one.score for one in level])}
    return {"trial": best.number, "score": best.score, **known, **told}


def _trainings(
    trials: list[FrozenTrial], retrainings: list[FrozenTrial], metric: MetricSpec
) -> tuple[dict[str, Any], ...]:
    known = read_retrainings(None, retrainings, None, metric)
    ones = [row for trial in trials for row in candidate_of(None, trial, known).by_retraining() if row.retrainings]
    ones.sort(key=lambda one: one.retrainings[0].place(metric))
    return tuple(
        {
            "trial": one.number,
            "structure": one.label,
            "name": replace(one, label="").name,
            "accuracy": one.accuracy,
            "progress": training_text(one, metric),
            **training_record(one),
        }
        for one in ones
    )


def _worker(slot: str, record: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: record.get(key) for key in ("mode", "host", "process", "seen")}
    return {"slot": slot, **told, "alive": HeartbeatMonitor(SECONDS).is_alive(record)}


def _lines(status: StudyStatus) -> list[str]:
    counts = ", ".join(f"{number} {state}" for state, number in sorted(status.trials.items())) or "none"
    lines = [
        f"study {plain_text(status.name)!r} in {status.storage}",
        f"trials: {counts}; {status.structures} different structures",
    ]
    if status.best:
        one = status.best
        sizes = f", {amount(one['macs'])} MACs, {amount(one['params'])} parameters" if "macs" in one else ""
        lines.append(f"best by score: {plain_text(one['name'])}: {significant(one['score'])}{sizes}")
        if one["ties"]:
            lines.append(textwrap.fill(plain_text(one["ties"]), WIDTH, initial_indent="  ", subsequent_indent="  "))
    if status.workers:
        rows = [
            (
                plain_text(f"{one['mode']} {one['slot']}"),
                *(plain_text(f"{one[key]}") for key in ("host", "process", "seen")),
                _life(one["alive"]),
            )
            for one in status.workers
        ]
        lines += ["", text_table(("at work", "host", "process", "last heard of (UTC)", "alive"), rows)]
    if status.retrained:
        counts = ", ".join(f"{number} {_trained(state)}" for state, number in sorted(status.retrained.items()))
        lines += ["", f"retraining: {counts}"]
        metric = status.metric
        of = "of the validation images" if metric == ACCURACY else f"{metric.name} (validation)"
        for one in status.trainings:
            known = "" if one["accuracy"] is None else f"{metric.text(one['accuracy'])} {of}, "
            name = plain_text(f"{one['name']}, {one['structure']}")
            lines.append(f"  {name}  {known}{plain_text(one['progress'])}")
    return lines


def _trained(state: str) -> str:
    return "done" if state == "scored" else state


def _life(alive: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[alive]


@explained
def open_study(storage: str | Path, name: str | None = None) -> StoredStudy:
    """Opens a study to look at, from its storage alone.

    Args:
        storage: a run folder, or an Optuna storage URL: then retrained networks are looked for beside its file, else in
            `runs/<name>`.
        name: the study's name; not needed where the storage has one only.

    Returns:
        the study, to read: its front, candidates, trials, state. To go on with the search, make a `Study`.

    Raises:
        SecateurError: for a storage that cannot be read, a study that is not there or not secateur's, or no name where
            there are several.
    """
    url, known_folder = str(storage), None
    if "://" not in url:
        folder = known_folder = Path(storage).resolve()
        if not any((folder / name).is_file() for name in (DATABASE, RECORD)):
            raise SecateurError(
                f"{url!r} is neither a run folder (it has no {DATABASE}) nor the URL of a storage, "
                f"sqlite:///study.db or postgresql+psycopg://user@host/studies"
            )
        url = folder_storage(folder)
    with quiet(), existing_storage(url) as opened:
        found = find_study(name or only_study(optuna.get_all_study_names(opened), url), url, opened)
        known = patiently(url, lambda: found.user_attrs)
        if IDENTITY not in known:
            raise SecateurError(f"study {found.study_name!r} in {shown_url(url)} is not secateur's; give another name")
        return StoredStudy(found.study_name, url, known, known_folder or _folder_of(url, found.study_name))


def _folder_of(url: str, name: str) -> Path:
    """Where a study's retrained networks are looked for: beside its file, else where `Study` puts them."""
    file = absolute_url(url).partition(":///")[2]
    beside = Path(file).parent
    return beside if file and (beside / RETRAIN_FOLDER).is_dir() else Path("runs") / name


class StoredStudy:
    """A study to look at; made by `open_study`. Every call reads the storage anew and holds no connection afterwards.

    The storage holds neither network nor data: to go on with the search or the retraining make a `Study` of the same
    name and storage; to build the network of a trial use `prune(model, graph, study.structure(number))`.

    Args:
        name: the study's name in its storage.
        url: the storage's URL.
        attributes: the user attributes of the Optuna study.
        folder: the study's folder, where its retrained networks lie.

    Attributes:
        name: the study's name in its storage.
        made_with: what the trials depend on: budget, space, scorer, sampler, seed, fingerprints.
    """

    def __init__(self, name: str, url: str, attributes: Mapping[str, Any], folder: Path) -> None:
        self.name = name
        self.made_with: Mapping[str, str] = dict(attributes[IDENTITY])
        self._url, self._folder = url, folder.resolve() / RETRAIN_FOLDER
        self._metadata: StudyMetadata | None = read_metadata(attributes)

    def __repr__(self) -> str:
        return f"StoredStudy({self.name!r}, {self.storage!r})"

    @property
    def storage(self) -> str:
        """URL of the storage, without its password."""
        return shown_url(self._url)

    def status(self) -> StudyStatus:
        """Trials, best score, workers and retrainings; `print` shows it as `secateur status` does."""
        return status(self._url, self.name)

    def candidates(self) -> tuple[Candidate, ...]:
        """Every finished trial, with the result of its retraining where there is one.

        Of a study that was made before metadata was stored a candidate has cost and score but no structure; its
        `label` is the id of the structure. Opening it once with `Study` adds what is missing.
        """
        return self._read()[0]

    def front(self) -> Front:
        """The Pareto front of what is known so far; what the dense network reaches, where it was measured."""
        about = self._metadata
        candidates, dense = self._read()
        return Front(
            name=self.name,
            dense=dense_candidate(about.full if about else None, about.dense if about else None, dense),
            candidates=candidates,
            scorer=about.scorer if about else self.made_with.get("scorer", "score").partition(",")[0],
            caps=about.caps if about else (),
            metric=about.metric if about else ACCURACY,
        )

    def trials_dataframe(self) -> pandas.DataFrame:
        """All finished trials as a pandas data frame.

        Raises:
            SecateurError: when pandas is not installed.
        """
        return self.front().to_dataframe()

    def structure(self, number: int) -> Structure:
        """The structure of a finished trial; `prune(model, graph, structure)` builds its network.

        Raises:
            SecateurError: when the trial found none, or the storage was made before metadata was stored.
        """
        for one in self.candidates():
            if one.number == number and one.structure is not None:
                return one.structure
        old = "" if self._metadata else "; an older version made it: open it once with Study to add the channel groups"
        raise SecateurError(f"study {self.name!r} has no trial {number} with a structure{old}")

    def _read(self) -> tuple[tuple[Candidate, ...], dict[str, float]]:
        """The finished trials by number, and what the dense network reaches."""
        trials, retrained, facts = self._trials()
        about = self._metadata
        with readable(self._url):
            retrainings = read_retrainings(about, retrained, self._folder, about.metric if about else ACCURACY)
            confirmed = confirmed_scores(facts)
            done = [trial for trial in trials if trial.state in FINISHED]
            candidates = tuple(candidate_of(about, trial, retrainings, confirmed) for trial in done)
        return candidates, dense_accuracy_of(facts)

    def _trials(self) -> tuple[list[FrozenTrial], list[FrozenTrial], Mapping[str, Any]]:
        """Trials of the search and of its retrainings, by number; the user attributes of the search."""
        with quiet(), existing_storage(self._url) as opened:
            names = patiently(self._url, lambda: optuna.get_all_study_names(opened))
            found = [find_study(one, self._url, opened) for one in (self.name, self.name + RETRAINED) if one in names]
            lists = [patiently(self._url, partial(one.get_trials, deepcopy=False)) for one in found]
            if not lists:
                raise SecateurError(f"storage {self.storage} has no study {self.name!r} any more")
            facts = patiently(self._url, lambda: found[0].user_attrs)
        return lists[0], lists[1] if len(lists) > 1 else [], facts
