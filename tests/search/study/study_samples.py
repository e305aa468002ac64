"""A small network, small data and a study of them, and one process of a search that a test can kill."""

from __future__ import annotations

import argparse
import resource
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor, nn

import search.study.heartbeat
import search.study.loops
import search.study.retrain
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring import scorers
from scoring.scoring_task import ScoredStructure
from search.data.data import Data
from search.space.budget import Budget
from search.space.space import Space
from search.study.samplers import DEFAULT_SAMPLER
from search.study.study import Study
from search.training.recipe import Recipe
from tests.graphs import known_trace as trace
from tests.launcher import Launcher, Process

BUDGETS = {"cap": Budget(macs=0.3), "targets": Budget(macs=[0.2, 0.4]), "band": Budget(macs="20%..40%")}
BY_L2 = Space("ratios", criterion="l2")
"""Asks for no forward pass; most tests need any criterion."""


class Small(nn.Module):
    """Three convolutions and a linear layer: traced in a moment, pruned in three groups."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 24), (24, 32), (32, 40)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(40, 4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(images).mean((2, 3)))
        return out


def small_data() -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (160, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(160) % 4
    images[:, 0, :2, :2] = (labels * 60)[:, None, None].to(torch.uint8)
    train, test = (images[:120], labels[:120]), (images[120:], labels[120:])
    return Data.from_tensors("small", train, test, validation=0.2)


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Small().eval()


def small_graph(model: nn.Module) -> ChannelGraph:
    return trace(model, torch.zeros(1, 1, 8, 8))


def make(url: str, folder: Path, parts: tuple[nn.Module, ChannelGraph, Data], **options: Any) -> Study:
    settings: dict[str, Any] = {"budget": BUDGETS["cap"], "space": BY_L2, "scorer": "random", "batch": 16}
    model, graph, data = parts
    name = options.pop("name", "s")
    return Study(name, model, graph, data, storage=url, folder=folder, **(settings | options))


def journal(folder: Path) -> str:
    """A storage of its own. A trial costs a third of what it does in SQLite, which counts where there are many."""
    return f"journal:///{folder}/{uuid.uuid4().hex}.log"


def finished(study: Study) -> list[tuple[Any, ...]]:
    """What must be equal after an interruption, from the storage."""
    keep = ("structure", "kept", "macs", "reason")
    return [
        (t.number, t.params, t.values, {k: t.user_attrs.get(k) for k in keep})
        for t in study.optuna_study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    ]


class StopError(Exception):
    """Ends a search in the middle of a score."""


def searched_with_kills(
    patch: pytest.MonkeyPatch, begun: Callable[[], Study], trials: int, every: int, jobs: int = 1
) -> Study:
    """A search by the scorer "random" that is stopped in every so many-th score, and gone on with until it is whole."""
    calls, plain = 0, scorers.SCORERS["random"]

    def fragile(scored: ScoredStructure) -> float:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            raise StopError
        return plain(scored)

    patch.setitem(scorers.SCORERS, "random", fragile)
    for _ in range(trials):
        study = begun()
        try:
            study.search(trials, progress=False, jobs=jobs)
            break
        except StopError:
            continue
    assert calls > every
    return study


def begin(launcher: Launcher, url: str, folder: Path, *options: str) -> Process:
    """A process of its own that runs `main`."""
    return launcher.start(f"{__name__}:main", url, str(folder), *options, folder=folder)


def main(arguments: list[str]) -> None:
    """Searches, or works, as the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--sampler", default=DEFAULT_SAMPLER)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a score takes at least")
    parser.add_argument("--heartbeat", type=float, default=3.0)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--finalists", type=int)
    parser.add_argument("--room", type=int, help="bytes that a file may hold")
    parser.add_argument("--log", type=Path, help="gets the id of each structure that is scored")
    options = parser.parse_args(arguments)
    if options.room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.room, options.room))
    search.study.heartbeat.SECONDS = options.heartbeat
    search.study.retrain.RETRAIN_POLL = search.study.loops.SCORE_POLL = 0.05
    known = scorers.SCORERS["random"]

    def slow(scored: ScoredStructure) -> float:
        if options.log and scored.structure != Structure.full(scored.task.graph):  # every new study begins with it
            with options.log.open("a") as file:
                file.write(scored.structure.id + "\n")
        time.sleep(options.pause)
        return known(scored)

    scorers.SCORERS["random"] = slow
    study = make(options.url, options.folder, small_parts(), sampler=options.sampler)
    if options.work:
        recipe = Recipe(epochs=2, lr=0.05, batch_size=16)
        study.work(options.trials, top=options.top, finalists=options.finalists, recipe=recipe, progress=False)
    else:
        study.search(options.trials, progress=False, jobs=options.jobs)


@cache
def small_parts() -> tuple[nn.Module, ChannelGraph, Data]:
    model = small_model()
    return model, small_graph(model), small_data()
