"""Retrains the structures of a set, several at once, each result a file of its own: a kill loses what was running."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.graph import ChannelGraph
from backbones.surgery import prune
from search.data.data import Data
from search.data.sources import Split, split_off
from search.evaluate.families import Drawn
from search.training.engine import train
from search.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Trained:
    """One retraining.

    Attributes:
        structure: id.
        seed: of the retraining.
        validation, test: accuracy at the last epoch, fractions; the test images chose nothing.
        start: validation accuracy before the first step, batch-norm statistics renewed.
        seconds: it took.
    """

    structure: str
    seed: int
    validation: float
    test: float
    start: float
    seconds: float


def read(folder: Path) -> dict[tuple[str, int], Trained]:
    """What has been retrained, by (structure id, seed)."""
    found = (Trained(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json")))
    return {(one.structure, one.seed): one for one in found}


def retrain_all(
    model: nn.Module,
    graph: ChannelGraph,
    data: Data,
    drawn: Sequence[Drawn],
    seeds: int,
    recipe: Recipe,
    folder: Path,
    *,
    jobs: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Retrains every structure with every seed that `folder` does not hold yet, seed by seed.

    Args:
        model: the dense network.
        graph: of it.
        data: the task, its training split cut to what the retraining may see.
        drawn: structures.
        seeds: `recipe.seed`, `recipe.seed + 1`, ...
        recipe: of each training.
        folder: one JSON file a result.
        jobs: processes at the same time, the cores divided among them.
        device: where to train.
        progress: show a bar when standard error is a terminal.

    Raises:
        SecateurError: for a recipe or data that cannot be trained, or a process that died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = read(folder)
    pairs = [(one, recipe.seed + seed) for seed in range(seeds) for one in drawn]
    left = [(one, seed) for one, seed in pairs if (one.structure.id, seed) not in done]
    bar = tqdm(
        total=len(pairs),
        initial=len(pairs) - len(left),
        desc="retraining",
        unit="net",
        disable=None if progress else True,
    )

    def work() -> Iterator[tuple[nn.Module, str, Recipe]]:
        for one, seed in left:
            small = prune(model, graph, one.structure, check=False)
            yield small, one.structure.id, replace(recipe, seed=seed)

    results = _alone(work(), data, device) if jobs == 1 else _together(work(), data, device, jobs)
    with bar:
        for result in results:
            write_text(folder / f"{result.structure}-{result.seed}.json", json.dumps(asdict(result)) + "\n")
            bar.update()


def cut(data: Data, images: int | None, seed: int) -> Data:
    """The task with at most `images` training images, classes in proportion, drawn once.

    Raises:
        SecateurError: for a stream, or more images than there are.
    """
    if images is None or images == len(data.train):
        return data
    if not isinstance(data.train, Split):
        raise SecateurError("images needs training images in memory; leave it out for a loader")
    if images > len(data.train):
        raise SecateurError(f"images <= {len(data.train)} training images must hold, but got images={images}")
    _, chosen = split_off(
        data.train, images / len(data.train), data.num_classes, seed, f"data {data.name!r}, images={images}"
    )
    return replace(data, train=chosen)


def _train_one(small: nn.Module, structure: str, recipe: Recipe, data: Data, device: str) -> Trained:
    history = train(small, data, recipe, device=device, progress=False)
    last = history.epochs[-1]
    assert history.test_accuracy is not None
    return Trained(
        structure,
        recipe.seed,
        last.validation_accuracy,
        history.test_accuracy,
        history.start_accuracy,
        round(history.seconds, 2),
    )


def _alone(work: Iterator[tuple[nn.Module, str, Recipe]], data: Data, device: str) -> Iterator[Trained]:
    for small, structure, recipe in work:
        yield _train_one(small, structure, recipe, data, device)


_OF_PROCESS: dict[str, tuple[Data, str]] = {}
"""What a worker process was given when it began: the images travel once, not with every network."""


def _begin(data: Data, device: str, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    torch.set_num_threads(threads)
    _OF_PROCESS["task"] = (data, device)


def _in_process(small: nn.Module, structure: str, recipe: Recipe) -> Trained:
    return _train_one(small, structure, recipe, *_OF_PROCESS["task"])


def _together(work: Iterator[tuple[nn.Module, str, Recipe]], data: Data, device: str, jobs: int) -> Iterator[Trained]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, _begin, (data, device, threads))
    running: set[Future[Trained]] = set()
    try:
        for job in work:
            running.add(pool.submit(_in_process, *job))
            if len(running) > jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        pool.shutdown()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(cancel_futures=True)
        raise
