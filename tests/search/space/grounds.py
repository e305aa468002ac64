"""A small network with everything that a search proposes from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import optuna
import torch

from backbones.registry import build
from backbones.trace import trace
from scoring.scoring_task import ScoringTask
from search.space.depth import ThinRay
from search.space.ground import Ground, lay
from search.space.rays import Ray
from search.space.space import Space


@lru_cache(maxsize=4)
def task(name: str = "resnet20", side: int = 16) -> ScoringTask:
    """A backbone with random weights and 16 random images of 10 classes."""
    torch.manual_seed(0)
    model = build(name, 10).eval()
    images = torch.randn(16, 3, side, side)
    recalibrate = [torch.randn(8, 3, side, side) for _ in range(2)]
    return ScoringTask(model, trace(model, images[:1]), images, torch.arange(16) % 10, recalibrate)


def ground(space: Space, axes: Sequence[str] = ("macs",), name: str = "resnet20", side: int = 16) -> Ground:
    """The space on that backbone."""
    return lay(space, task(name, side), axes, scorer="naswot_last")


def drawn(place: Ground, seed: int) -> Ray | ThinRay:
    """A random proposal."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return place.propose(study.ask(), place.tables)
