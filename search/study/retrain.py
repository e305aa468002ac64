"""Retraining the few, and how a finished retraining is remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from search.data.task import ACCURACY, MetricSpec
from search.formatting import counted
from search.review.candidate import Candidate, Retraining
from search.space.proposals import Layout, cost_of, unpack
from search.study.finalists import Finalists
from search.study.heartbeat import Heartbeat
from search.study.identity import to_record
from search.study.interrupts import pause
from search.study.networks import is_elsewhere, is_here, network_path
from search.study.retraining_pool import RetrainingPool, turns_of
from search.study.retraining_task import RetrainConfig, RetrainingTask
from search.study.storage import folder_url
from search.study.trials import TrialStore, TrialWriter, claimant, make_study

RETRAINED = " (retrained)"
"""The study that holds the retrainings of another one has this after its name."""
RETRAIN_POLL = 1.0
"""Seconds between two looks at what others retrain."""


def read_retrainings(
    layout: Layout | None, trials: Iterable[FrozenTrial], folder: Path | None, metric: MetricSpec = ACCURACY
) -> dict[int, list[Retraining]]:
    """Number of a trial of the search -> the retrainings of its structure, the best first.

    Args:
        layout: the network's channel graph or its layout; without one the structures stay unknown.
        trials: of a `RETRAINED` study.
        folder: where the networks lie, None when that is not known.
        metric: which way its values are better.
    """
    found: dict[tuple[int, str], dict[int, Mapping[str, Any]]] = {}
    for facts in (trial.user_attrs for trial in trials if trial.state is TrialState.COMPLETE):
        settings = {"start": "cut", **json.loads(facts["recipe"])}
        own = settings["epochs"]
        whole = settings.pop("whole", {})
        settings |= whole if isinstance(whole, dict) else {"epochs": whole}  # the number is what older versions noted
        found.setdefault((facts["trial"], to_record(settings)), {})[own] = facts
    labels = _labels(dict.fromkeys(text for _, text in found))
    retrainings: dict[int, list[Retraining]] = {}
    for (number, text), by_epochs in found.items():
        rungs = tuple((epochs, by_epochs[epochs]["accuracy"]) for epochs in sorted(by_epochs))
        one = Retraining(json.loads(text), labels[text], rungs)
        if (last := by_epochs.get(one.epochs)) is not None:
            one = replace(
                one,
                test_accuracy=last["test_accuracy"],
                artefact=None if folder is None else network_path(folder, last),
                structure=unpack(layout, last) if layout is not None and "kept" in last else None,
                cost=cost_of(last) if "macs" in last else None,
            )
        retrainings.setdefault(number, []).append(one)
    for ones in retrainings.values():
        ones.sort(key=lambda one: one.place(metric))
    return retrainings


def _labels(texts: Iterable[str]) -> dict[str, str]:
    """Text of a recipe -> its epochs, and every other setting in which the recipes differ."""
    recipes = {text: json.loads(text) for text in texts}
    names = dict.fromkeys(name for recipe in recipes.values() for name in recipe if name != "epochs")
    differ = [name for name in names if len({to_record(recipe.get(name)) for recipe in recipes.values()}) > 1]
    return {
        text: ", ".join(
            [counted(recipe["epochs"], "epoch"), *(f"{name} {recipe[name]}" for name in differ if name in recipe)]
        )
        for text, recipe in recipes.items()
    }


class Retrainer:
    """Retrains structures of one study; results are trials of a sibling study in the same storage.

    The sibling is a queue for any number of processes: each claims a structure, by a RUNNING trial, when it begins with
    it, and the claim of a process that died is free again. Where the folder is shared too, the training goes on after
    the last epoch of the dead.

    Args:
        store: the trials of the search.
        task: what the retrainings have in common.
    """

    def __init__(self, store: TrialStore, task: RetrainingTask) -> None:
        self.task = task
        self._shared = store.url != folder_url(task.folder.parent)
        self._whole: set[int] = set()
        self.metric = task.data.task.spec
        better = StudyDirection.MAXIMIZE if self.metric.direction == "higher" else StudyDirection.MINIMIZE
        name, one = store.name + RETRAINED, [better]
        self.writer = TrialWriter(store.url, store.storage, lambda: make_study(name, store.storage, one))

    def results(self, config: RetrainConfig) -> dict[str, Mapping[str, Any]]:
        """Structure id -> what its latest training by this config gave; "artefact" is a path in this study's folder."""
        done = (one.user_attrs for one in self.writer.trials() if one.state is TrialState.COMPLETE)
        found: dict[str, Mapping[str, Any]]
        found = {facts["structure"]: facts for facts in done if facts.get("recipe") == config.text}
        if config.whole:
            return found
        return {key: {**facts, "artefact": str(network_path(self.task.folder, facts))} for key, facts in found.items()}

    def retrainings(self) -> dict[int, list[Retraining]]:
        """Number of a trial -> the retrainings of its structure, the best first."""
        return read_retrainings(self.task.graph, self.writer.trials(), self.task.folder, self.metric)

    def run(
        self,
        finalists: Finalists,
        config: RetrainConfig,
        *,
        device: str = "cpu",
        progress: bool = True,
        jobs: int | None = None,
    ) -> None:
        """Retrains structures, together with whoever else does; returns when all of them are done.

        Finalists are trained briefly first, and those with the best validation accuracy go on. What was trained with
        the same settings before is left as it is, unless its network is gone or damaged: then it is trained again.

        Args:
            finalists: what is retrained, and how many of it to the end.
            config: how, to the end.
            device: where training computes.
            progress: show bars when standard error is a terminal.
            jobs: trainings at the same time, by default as `turns_of` says.
        """
        stay = [list(slot.members) for slot in finalists.slots]
        with Heartbeat(self.writer, "work") as heartbeat:
            for rung, epochs in enumerate(finalists.lengths):
                short = config.short(epochs)
                counts = [slot.staying[rung + 1] for slot in finalists.slots]
                open_slots = [(ones, count) for ones, count in zip(stay, counts, strict=True) if len(ones) > count]
                self._train([one for ones, _ in open_slots for one in ones], short, heartbeat, device, progress, jobs)
                found = {one: self.metric.worth(facts["accuracy"]) for one, facts in self.results(short).items()}
                for ones, count in open_slots:
                    ones.sort(key=lambda one: -found[one.id])  # of equals the better score stays in front
                    del ones[count:]
            self._train([one for ones in stay for one in ones], config, heartbeat, device, progress, jobs)

    def _train(
        self,
        chosen: Sequence[Candidate],
        config: RetrainConfig,
        heartbeat: Heartbeat,
        device: str,
        progress: bool,
        jobs: int | None,
    ) -> None:
        """Trains all of these by one config, as far as nobody has; waits for those that others train."""
        done: dict[str, float] = {}
        desc = f"{config.recipe.epochs} of {config.whole.epochs} epochs" if config.whole else "retrained"
        with tqdm(total=len(chosen), desc=desc, unit="structure", disable=None if progress and chosen else True) as bar:
            for turn in turns_of(self.task, chosen, config, device, jobs):
                with self._claims() as claims, RetrainingPool(self.task, config, device, turn, progress) as pool:
                    left = {one.id: one for one in turn.members}
                    while left:
                        self._train_some(left, done, config, heartbeat, claims, pool, bar)

    def _train_some(
        self,
        left: dict[str, Candidate],
        done: dict[str, float],
        config: RetrainConfig,
        heartbeat: Heartbeat,
        claims: dict[str, FrozenTrial],
        pool: RetrainingPool,
        bar: tqdm[Any],
    ) -> None:
        """Moves what is finished from `left` to `done`, begins as many as the pool takes, waits until one has ended."""
        trials = [one for one in self.writer.trials() if one.user_attrs.get("recipe") == config.text]
        for trial in trials:
            structure = trial.user_attrs["structure"]
            if structure in left and self._is_done(trial, config):
                del left[structure]
                done[structure] = trial.values[0]
                self._show(bar, done.values())
                bar.update()
        busy = {one.user_attrs["structure"]: claimant(one) for one in trials if self._busy(one, heartbeat)}
        for one in [one for name, one in left.items() if name not in busy][: max(0, pool.size - len(claims))]:
            if (claim := self._claimed(one, config, heartbeat)) is not None:
                claims[one.id] = claim
                pool.begin(one)
        if claims:
            for one, facts in pool.ended(lambda: self._show(bar, done.values(), pool)):
                self.writer.finish(claims.pop(one.id), [facts["accuracy"]], facts)
        elif busy:
            heartbeat.waits((busy[name] for name in left), "retrains")
            pause(RETRAIN_POLL)

    def _show(self, bar: tqdm[Any], done: Iterable[float], pool: RetrainingPool | None = None) -> None:
        """Writes behind the bar which value is the best, and how far the trainings in processes are."""
        if bar.disable:
            return
        best = max(done, key=self.metric.worth, default=None)
        told = [] if best is None else [f"best {self.metric.compact(best)}"]
        if pool is not None:
            told.append(f"{counted(pool.epochs(), 'epoch')} under way")
        bar.set_postfix_str(", ".join(told), refresh=pool is not None)

    @contextmanager
    def _claims(self) -> Iterator[dict[str, FrozenTrial]]:
        """Structure id -> this process's claim on it; what is still claimed at the end of the block is free again."""
        claims: dict[str, FrozenTrial] = {}
        try:
            yield claims
        finally:
            for claim in claims.values():
                self.writer.fail(claim)

    def _is_done(self, trial: FrozenTrial, config: RetrainConfig) -> bool:
        """Whether a retraining is finished and its network there, or with another worker on another machine."""
        if trial.state is not TrialState.COMPLETE or config.whole or trial.number in self._whole:
            return trial.state is TrialState.COMPLETE
        facts = trial.user_attrs
        if is_here(network_path(self.task.folder, facts), facts) or (self._shared and is_elsewhere(facts)):
            self._whole.add(trial.number)
            return True
        return False

    def _busy(self, trial: FrozenTrial, heartbeat: Heartbeat) -> bool:
        """Whether a living process works on a claimed trial; the claim of a dead process is failed."""
        if trial.state is TrialState.RUNNING and heartbeat.is_dead(claimant(trial)):
            self.writer.fail(trial)
            return False
        return trial.state is TrialState.RUNNING

    def _claimed(self, one: Candidate, config: RetrainConfig, heartbeat: Heartbeat) -> FrozenTrial | None:
        """A claim on a structure; None where another process has it: of several claims the lowest number stands."""
        facts = {"structure": one.id, "trial": one.number, "recipe": config.text}
        running = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=facts)
        claim = self.writer.claim(running, f"{heartbeat.token}/{time.monotonic_ns()}")
        for other in self.writer.trials():
            same = all(other.user_attrs.get(key) == facts[key] for key in ("structure", "recipe"))
            if other.number < claim.number and same and (self._is_done(other, config) or self._busy(other, heartbeat)):
                self.writer.withdraw(claim)
                return None
        return claim
