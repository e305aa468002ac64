"""What an evaluation measures of each structure, and keeps so that nothing is done twice: scores, and retrainings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from torch import nn
from tqdm import tqdm

from backbones.errors import SecateurError
from backbones.files import write_text
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure, ScoringTask
from search.data.data import Data
from search.space.families import SampledStructure
from search.training.engine import train
from search.training.parallel import in_processes
from search.training.recipe import Recipe

TIMED = 3
"""Structures on which each scorer works alone, so that its own time is known; on the others they share passes."""


@dataclass(slots=True)
class ScoreTable:
    """The scores of a set of structures, in one JSON file.

    Attributes:
        values: scorer -> structure id -> score; None where the scorer could not score the structure.
        seconds: scorer -> seconds for one structure, the least of a few on which the scorer worked alone.
    """

    values: dict[str, dict[str, float | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes JSON in one step."""
        write_text(path, json.dumps({"values": self.values, "seconds": self.seconds}, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> ScoreTable:
        """What `save` wrote; empty when there is no file."""
        return ScoreTable(**json.loads(path.read_text())) if path.is_file() else ScoreTable()


def score_all(
    task: ScoringTask, structures: Sequence[SampledStructure], scorers: Sequence[str], path: Path, progress: bool = True
) -> ScoreTable:
    """Scores what `path` does not hold yet.

    Args:
        task: the dense network and the images that scorers look at.
        structures: what is scored.
        scorers: names of single scorers.
        path: JSON file of the table, written after every structure.
        progress: show a bar when standard error is a terminal.
    """
    table = ScoreTable.load(path)
    bar = tqdm(structures, desc="scoring", unit="net", disable=None if progress else True)
    for number, one in enumerate(bar):
        new = [name for name in scorers if one.structure.id not in table.values.get(name, {})]
        shared = ScoredStructure(task, one.structure)
        for name in new:
            start = time.perf_counter()
            scored = ScoredStructure(task, one.structure) if number < TIMED else shared
            table.values.setdefault(name, {})[one.structure.id] = _score(name, scored)
            if number < TIMED:
                table.seconds[name] = round(min(time.perf_counter() - start, table.seconds.get(name, 1e9)), 4)
        if new:
            table.save(path)
    return table


def _score(name: str, scored: ScoredStructure) -> float | None:
    try:
        return scorer_of(name)(scored)
    except SecateurError:
        return None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What one retraining gave.

    Attributes:
        key: names the network: the id of its structure.
        seed: the recipe's seed.
        validation: the task's metric (accuracy, with classes) on the validation split after the last epoch; a
            percentage is a fraction, here and below.
        test: the same on the test split; None where the test images were not looked at.
        start: validation before the first step, with renewed batch-norm statistics.
        seconds: that the training took.
    """

    key: str
    seed: int
    validation: float
    test: float | None
    start: float
    seconds: float


def read_results(folder: Path) -> dict[tuple[str, int], TrainingResult]:
    """What has been retrained, by (key, seed)."""
    found = (TrainingResult(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json")))
    return {(one.key, one.seed): one for one in found}


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """One network to retrain.

    Attributes:
        key: names the network: the id of its structure.
        make: builds the network when its turn has come.
        recipe: how to train it, with the seed.
    """

    key: str
    make: Callable[[], nn.Module]
    recipe: Recipe


def retrain_all(
    tasks: Sequence[TrainingTask],
    data: Data,
    folder: Path,
    *,
    test: bool,
    processes: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> dict[tuple[str, int], TrainingResult]:
    """Does every retraining that `folder` does not hold yet, in order.

    Args:
        tasks: what is wanted.
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
    done = {pair for pair, one in read_results(folder).items() if one.test is not None or not test}
    left = [task for task in tasks if (task.key, task.recipe.seed) not in done]
    common = (data, device, test)
    results = _alone(left, *common) if processes == 1 else _together(left, common, processes)
    first, quiet = len(tasks) - len(left), None if progress else True
    with tqdm(total=len(tasks), initial=first, desc="retraining", unit="net", disable=quiet) as bar:
        for result in results:
            write_text(folder / f"{result.key}-{result.seed}.json", json.dumps(asdict(result)) + "\n")
            bar.update()
    return read_results(folder)


def _train_one(small: nn.Module, key: str, recipe: Recipe, data: Data, device: str, test: bool) -> TrainingResult:
    history = train(small, data, recipe, device=device, progress=False, test=test)
    return TrainingResult(
        key,
        recipe.seed,
        history.validation_accuracy,
        history.test_accuracy,
        history.start_accuracy,
        round(history.seconds, 2),
    )


def _alone(tasks: Sequence[TrainingTask], data: Data, device: str, test: bool) -> Iterator[TrainingResult]:
    for task in tasks:
        yield _train_one(task.make(), task.key, task.recipe, data, device, test)


_OF_PROCESS: list[tuple[Data, str, bool]] = []
"""What a worker process was given when it began: the images travel once, not with every network."""


def _begin(common: tuple[Data, str, bool]) -> None:
    _OF_PROCESS[:] = [common]


def _in_process(small: nn.Module, key: str, recipe: Recipe) -> TrainingResult:
    return _train_one(small, key, recipe, *_OF_PROCESS[0])


def _together(
    tasks: Sequence[TrainingTask], common: tuple[Data, str, bool], processes: int
) -> Iterator[TrainingResult]:
    calls = (partial(_in_process, task.make(), task.key, task.recipe) for task in tasks)
    return in_processes(calls, processes, partial(_begin, common))
