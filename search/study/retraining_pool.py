"""Retrainings of one rung: one after the other in this process, or several at once in processes of their own.

On a CPU processes of one thread get through more images than one process with as many threads, whose cores wait for one
another in every layer; compiled steps have fewer of them, and take two threads each (studies/README.md, "Training
step"). Each training stays whole, so its batch norms see whole batches and its result is that of the same number of
threads alone. How many there are and how many threads each takes follows from what the rung began with, not from what
is left of it: a retraining that was stopped goes on with the same sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError
from types import TracebackType
from typing import Any, Self

import torch
from joblib.externals.loky import ProcessPoolExecutor

from backbones.errors import one_line
from search.data.data import Data
from search.data.sources import Split
from search.review.candidate import Candidate
from search.study.retraining_task import RetrainConfig, RetrainingTask
from search.training.compiling import is_likely_compiled
from search.training.parallel import UNSENDABLE, kept_from_children, received, sent_by_file, trains_together

LONG_TRAINING = 1_000_000_000_000
"""MACs of a training, forward and backward, from which several at once pay: about half a minute of a core.

A process needs some seconds of a core until it begins.
"""
MOST_AT_ONCE = 8
"""Trainings at the same time unless more are asked for: each keeps its activations, and all wait for the longest."""
LARGE_DATA = 4 * 2**30
"""Bytes of images from which trainings are not sent to processes unless that is asked for."""
CURVES = "*/history.csv"
"""Where the curves lie in the folder of a retraining: a flow has several trainings."""
PROGRESS_EVERY = 1.0
"""Seconds between two looks at how far the trainings are."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Retrainings of a rung, of which some run at the same time.

    Attributes:
        members: what is retrained.
        jobs: how many at the same time.
        threads: how many each of them has.
    """

    members: tuple[Candidate, ...]
    jobs: int
    threads: int


def turns_of(
    task: RetrainingTask, chosen: Sequence[Candidate], config: RetrainConfig, device: str, jobs: int | None = None
) -> list[Turn]:
    """The trainings of a rung, with the threads of this process divided among those that run at the same time.

    What is left over when all run `jobs` at a time has a turn of its own, on all threads again.

    Args:
        task: what the trainings have in common.
        chosen: all that are trained in the rung, whether some of them are done or not.
        config: how.
        device: where training computes.
        jobs: trainings at the same time. By default one a thread, or one for two threads where their steps are likely
            compiled, `MOST_AT_ONCE` at most, on a CPU where they are as long as `LONG_TRAINING` and images lie in
            memory; elsewhere one. Where processes share a training it is one in any case.
    """
    threads = torch.get_num_threads()
    if jobs is None:
        jobs = 1
        macs = _mean_macs(task, chosen, config)
        if device.partition(":")[0] == "cpu" and macs >= LONG_TRAINING and _fits(task.data):
            jobs = min(threads // (2 if is_likely_compiled(task.model, config.recipe, macs) else 1), MOST_AT_ONCE)
    jobs = 1 if trains_together() else max(1, min(jobs, len(chosen)))
    first = len(chosen) - len(chosen) % jobs
    parts = ((chosen[:first], jobs), (chosen[first:], len(chosen) - first))
    return [Turn(tuple(part), count, max(1, threads // count)) for part, count in parts if part]


def _mean_macs(task: RetrainingTask, chosen: Sequence[Candidate], config: RetrainConfig) -> float:
    """Of a training of the rung, in the mean; a backward pass counts twice, and the teacher has none."""
    macs = sum(3 * one.cost.macs for one in chosen if one.cost is not None) / max(1, len(chosen))
    taught = task.graph.costs.dense.macs if config.recipe.distill else 0
    return (macs + taught) * config.recipe.epochs * len(task.data.train)


def _fits(data: Data) -> bool:
    """Whether all is images that lie in memory, and not too many; a loader has processes of its own."""
    pools = {}
    for source in (data.train, data.validation, data.test):
        if not isinstance(source, Split):
            return False
        pools[source.pool.data_ptr()] = source.pool.numel() * source.pool.element_size()
    return sum(pools.values()) <= LARGE_DATA


class RetrainingPool:
    """Trains structures by one config, several at the same time; an error that leaves the `with` block ends them all.

    Where they cannot be sent to processes, or one of those dies, a warning says so and they are trained here, one after
    the other, each from where its checkpoint is.

    Args:
        task: what all trainings have in common.
        config: how they train.
        device: where.
        turn: how many at the same time, and the threads of each.
        progress: show the bar of a training in this process when standard error is a terminal.

    Attributes:
        size: trainings at the same time.
    """

    def __init__(self, task: RetrainingTask, config: RetrainConfig, device: str, turn: Turn, progress: bool) -> None:
        self.task, self.config, self.device, self.progress = task, config, device, progress
        self.size, self.threads = turn.jobs, turn.threads
        self._waiting: list[Candidate] = []
        self._at_work: dict[Future[Any], Candidate] = {}
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(kill_workers=kind is not None)

    def begin(self, one: Candidate) -> None:
        """Begins with a structure, or goes on with it: at once in a process of its own, else at the next `ended`."""
        if self.size == 1:
            self._waiting.append(one)
            return
        try:
            if self._executor is None:
                begin = (sent_by_file(self.task, self), self.threads)
                self._executor = ProcessPoolExecutor(self.size, initializer=_begin, initargs=begin)
            with kept_from_children():
                self._at_work[self._executor.submit(_train_here, one, self.config, self.device)] = one
        except UNSENDABLE as error:
            self._waiting.append(one)
            self._stay_here(error)

    def ended(self, look: Callable[[], None]) -> list[tuple[Candidate, dict[str, Any]]]:
        """Waits until one ends, and gives all that have ended: with what a storage notes of them.

        Args:
            look: called every second meanwhile.

        Returns:
            nothing where a process died: what it was at is trained at the next call.
        """
        if self.size == 1:
            one = self._waiting.pop(0)
            return [(one, self.task.run(one, self.config, self.device, self.progress))]
        while not (done := wait(self._at_work, PROGRESS_EVERY, FIRST_COMPLETED)[0]):
            look()
        found = []
        lost: BaseException | None = None
        for future in done:
            if isinstance(error := future.exception(), BrokenExecutor | PicklingError):
                lost = error
                continue
            facts, warned = future.result()
            for kind, text in warned:
                warnings.warn(text, kind, stacklevel=2)
            found.append((self._at_work.pop(future), facts))
        if lost is not None:
            self._stay_here(lost)
        return found

    def epochs(self) -> int:
        """How many epochs the trainings at work have behind them."""
        curves = [curve for one in self._at_work.values() for curve in self.task.place(one, self.config).glob(CURVES)]
        return sum(max(0, curve.read_text(encoding="utf-8").count("\n") - 1) for curve in curves)

    def _stay_here(self, error: BaseException) -> None:
        why = f"{type(error).__name__}: {one_line(error, 80)}"
        warnings.warn(f"structures are retrained one after the other, slower than by processes: {why}", stacklevel=3)
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
        self._waiting += self._at_work.values()
        self._at_work.clear()
        self._executor, self.size = None, 1


_here: list[RetrainingTask] = []
"""In a process that trains for another: what it does."""


def _begin(sent: Path, threads: int) -> None:
    _here[:] = [received(sent, threads)]


def _train_here(one: Candidate, config: RetrainConfig, device: str) -> tuple[dict[str, Any], list[tuple[Any, str]]]:
    """What the storage notes of a training, and what was warned of: its kind and text."""
    with warnings.catch_warnings(record=True) as caught:
        facts = _here[0].run(one, config, device, progress=False)
    return facts, [(warning.category, str(warning.message)) for warning in caught]
