"""A small network with everything that a search proposes from."""

from __future__ import annotations

from functools import lru_cache

import optuna
import torch

from backbones.registry import build
from scoring.scoring_task import ScoringTask
from search.space.allocations import WidthAllocation
from search.space.budget import Budget
from search.space.layer_removal import ReducedAllocation
from search.space.prepare import prepare_problem
from search.space.problem import SearchProblem
from search.space.space import Space
from tests.graphs import known_trace as trace

ANYTHING = Budget(macs="0.1%..100%")


@lru_cache(maxsize=4)
def task(name: str = "resnet20", side: int = 16) -> ScoringTask:
    """A backbone with random weights and 16 random images of 10 classes."""
    torch.manual_seed(0)
    model = build(name, 10).eval()
    images = torch.randn(16, 3, side, side)
    recalibrate = [torch.randn(8, 3, side, side) for _ in range(2)]
    return ScoringTask(model, trace(model, images[:1]), images, torch.arange(16) % 10, recalibrate)


def problem(space: Space, budget: Budget = ANYTHING, name: str = "resnet20", side: int = 16) -> SearchProblem:
    """The space on that backbone."""
    return prepare_problem(space, task(name, side), budget, scorer="naswot_last")


def suggested(here: SearchProblem, seed: int) -> WidthAllocation | ReducedAllocation:
    """A random proposal."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return here.suggest(study.ask())
