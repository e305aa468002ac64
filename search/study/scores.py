"""Scores by structure: none is computed twice, several at once where asked."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, delayed
from optuna.trial import FrozenTrial, TrialState

from backbones.cost import cost, recount
from backbones.cost_table import Cost
from backbones.errors import SecateurError, one_line
from backbones.modes import device_of
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.scorers import DEFAULT_SCORER, scorer_of
from scoring.scoring_task import ScoredStructure, ScoringTask
from search.training.parallel import UNSENDABLE, kept_from_children, received, sent_by_file, threads_each

PROCESSES_FROM = 0.3
"""Seconds that the quickest score took from which several at once are computed by processes; shorter ones by threads.

A score is hundreds of small operations, between which threads wait for one another; processes take seconds to begin.
"""
IDLE = 60
"""Seconds without a structure to score after which a process ends."""


@dataclass(frozen=True, slots=True)
class StructureScore:
    """What a scorer said of a structure.

    Attributes:
        score: higher is better; None when the structure could not be scored.
        reason: why it could not be scored; None when it was.
        seconds: time that scoring took; 0 for a structure whose score was known.
    """

    score: float | None
    reason: str | None = None
    seconds: float = 0.0


class ScoreCache:
    """The scores of structures: computed once, then remembered.

    Args:
        scorer: name of a scorer, or a rank sum "a+b".
        task: the dense network and the images that structures are scored on.

    Attributes:
        known: structure id -> score.
    """

    def __init__(self, scorer: str, task: ScoringTask) -> None:
        self.name, self.scorer, self.task = scorer, scorer_of(scorer), task
        self.known: dict[str, StructureScore] = {}
        self._verified = False
        self._quickest = math.inf
        self._sent: Path | None = None
        self._apart = device_of(task.model).type == "cpu"

    def learn(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes over the scores that finished trials hold."""
        for trial in trials:
            structure = trial.user_attrs.get("structure")
            if structure is None:
                continue
            if trial.state is TrialState.COMPLETE:
                self.known[structure] = StructureScore(trial.values[0])
            elif trial.state is TrialState.PRUNED:
                self.known[structure] = StructureScore(None, trial.user_attrs.get("reason"))

    def of(self, structures: Sequence[Structure], jobs: int = 1) -> Iterator[StructureScore]:
        """Scores in the order of the structures; one at a time as they are asked for, unless there are several jobs.

        Args:
            structures: what to score; equal structures are scored once.
            jobs: number of structures scored at the same time; the processor cores are divided among them.
        """
        fresh = {one.id: one for one in structures if one.id not in self.known}
        if fresh and not self._verified:
            self._verify(next(iter(fresh.values())))
            self._verified = True
        if jobs == 1:
            results: Iterator[StructureScore] = map(self._score, list(fresh.values()))
        else:
            results = iter(self._at_once(list(fresh.values()), jobs))
        for one in structures:
            seconds = 0.0
            if fresh.pop(one.id, None) is not None:
                self.known[one.id] = next(results)
                seconds = self.known[one.id].seconds
                if self.known[one.id].score is not None:
                    self._quickest = min(self._quickest, seconds)
            known = self.known[one.id]
            yield StructureScore(known.score, known.reason, seconds)

    def check_scorable(self, finished: Sequence[FrozenTrial]) -> None:
        """Raises SecateurError where the scorer cannot score the dense network itself; asked before the first trial."""
        if finished:
            return
        [dense] = self.of([Structure.full(self.task.graph)])
        if dense.score is None:
            raise SecateurError(
                f"scorer {self.name!r} cannot score this network, not even whole: {dense.reason}; take another scorer "
                f"(the default is {DEFAULT_SCORER!r}), or mend the network"
            )

    def _at_once(self, structures: Sequence[Structure], jobs: int) -> list[StructureScore]:
        """By processes where that pays and the task can be sent to them, on a GPU and otherwise by threads."""
        threads = threads_each(jobs)
        if self._apart and PROCESSES_FROM <= self._quickest < math.inf:
            try:
                return self._by_processes(structures, jobs, threads)
            except UNSENDABLE as error:
                why = f"{type(error).__name__}: {one_line(error, 80)}"
                warnings.warn(f"structures are scored by threads, slower than by processes: {why}", stacklevel=2)
                self._apart = False
        pool = Parallel(jobs, backend="threading")
        return list(pool(delayed(self._on_threads)(one, threads) for one in structures))

    def _by_processes(self, structures: Sequence[Structure], jobs: int, threads: int) -> list[StructureScore]:
        if self._sent is None:
            self._sent = sent_by_file((self.name, self.task), self)
        begin = {"initializer": _begin, "initargs": (self._sent, threads), "idle_worker_timeout": IDLE}
        with Parallel(jobs, backend="loky", **begin) as pool, kept_from_children():
            return list(pool([delayed(_score_here)(one) for one in structures]))

    def _on_threads(self, structure: Structure, threads: int) -> StructureScore:
        torch.set_num_threads(threads)  # of this thread of Python alone
        return self._score(structure)

    def _score(self, structure: Structure) -> StructureScore:
        start = time.perf_counter()
        try:
            value = self.scorer(ScoredStructure(self.task, structure))
        except SecateurError as error:
            return StructureScore(None, str(error), time.perf_counter() - start)
        return StructureScore(value, None, time.perf_counter() - start)

    def _verify(self, structure: Structure) -> None:
        """Once per process: the arithmetic of the cost agrees with a count on the pruned network."""
        pruned = prune(self.task.model, self.task.graph, structure)
        counted = recount(pruned, self.task.graph.example)
        stated = cost(self.task.graph, structure)
        batch = self.task.graph.program.batch
        if Cost(stated.macs * batch, stated.params) != counted:
            raise RuntimeError(f"cost() says {stated}, a count on the pruned network {counted} for a batch of {batch}")


_here: list[ScoreCache] = []
"""In a process that scores for another: by what it does."""


def _begin(sent: Path, threads: int) -> None:
    _here[:] = [ScoreCache(*received(sent, threads))]


def _score_here(structure: Structure) -> StructureScore:
    return _here[0]._score(structure)
