"""Retrains many networks, several at once, each result a file of its own: a kill loses what was running."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from torch import nn
from tqdm import tqdm

from backbones.files import write_text
from search.data.data import Data
from search.training.engine import train
from search.training.parallel import in_processes
from search.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Trained:
    """One retraining.

    Attributes:
        key: names the network; of a structure its id.
        seed: of the retraining.
        validation: accuracy at the last epoch, a fraction.
        test: likewise; None where nobody wanted to know yet.
        start: validation accuracy before the first step, batch-norm statistics renewed.
        seconds: it took.
    """

    key: str
    seed: int
    validation: float
    test: float | None
    start: float
    seconds: float


def read(folder: Path) -> dict[tuple[str, int], Trained]:
    """What has been retrained, by (key, seed)."""
    found = (Trained(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json")))
    return {(one.key, one.seed): one for one in found}


@dataclass(frozen=True, slots=True)
class Job:
    """One retraining that is wanted.

    Attributes:
        key: names the network; of a structure its id.
        make: gives the network, when its turn has come.
        recipe: with the seed.
    """

    key: str
    make: Callable[[], nn.Module]
    recipe: Recipe


def retrain_all(
    jobs: Sequence[Job],
    data: Data,
    folder: Path,
    *,
    test: bool,
    processes: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> dict[tuple[str, int], Trained]:
    """Does every retraining that `folder` does not hold yet, in order.

    Args:
        jobs: what is wanted.
        data: the task, its training split cut to what the retraining may see.
        folder: one JSON file a result.
        test: look at the test images too, after the last epoch.
        processes: at the same time, the cores divided among them.
        device: where to train.
        progress: show a bar when standard error is a terminal.

    Returns:
        all results in the folder, by (key, seed).

    Raises:
        SecateurError: for a recipe or data that cannot be trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = {pair for pair, one in read(folder).items() if one.test is not None or not test}
    left = [job for job in jobs if (job.key, job.recipe.seed) not in done]
    task = (data, device, test)
    results = _alone(left, *task) if processes == 1 else _together(left, task, processes)
    first, quiet = len(jobs) - len(left), None if progress else True
    with tqdm(total=len(jobs), initial=first, desc="retraining", unit="net", disable=quiet) as bar:
        for result in results:
            write_text(folder / f"{result.key}-{result.seed}.json", json.dumps(asdict(result)) + "\n")
            bar.update()
    return read(folder)


def _train_one(small: nn.Module, key: str, recipe: Recipe, data: Data, device: str, test: bool) -> Trained:
    history = train(small, data, recipe, device=device, progress=False, test=test)
    return Trained(
        key,
        recipe.seed,
        history.validation_accuracy,
        history.test_accuracy,
        history.start_accuracy,
        round(history.seconds, 2),
    )


def _alone(jobs: Sequence[Job], data: Data, device: str, test: bool) -> Iterator[Trained]:
    for job in jobs:
        yield _train_one(job.make(), job.key, job.recipe, data, device, test)


_OF_PROCESS: list[tuple[Data, str, bool]] = []
"""What a worker process was given when it began: the images travel once, not with every network."""


def _begin(task: tuple[Data, str, bool]) -> None:
    _OF_PROCESS[:] = [task]


def _in_process(small: nn.Module, key: str, recipe: Recipe) -> Trained:
    return _train_one(small, key, recipe, *_OF_PROCESS[0])


def _together(jobs: Sequence[Job], task: tuple[Data, str, bool], processes: int) -> Iterator[Trained]:
    calls = (partial(_in_process, job.make(), job.key, job.recipe) for job in jobs)
    return in_processes(calls, processes, partial(_begin, task))
