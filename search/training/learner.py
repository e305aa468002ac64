"""One network on its way through a training: its optimiser, its teacher, and a single step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.sources import Split, Stream
from search.training import feed
from search.training.average import Average
from search.training.distill import distillation_loss
from search.training.masks import hold
from search.training.measure import check_fits, forward
from search.training.recipe import Recipe, bfloat16
from search.training.slimming import l1_subgradient
from search.training.team import Team


@dataclass(slots=True, eq=False)
class Learner:
    """One network on its way: what lives as long as one call of `train`. Made by `prepare`."""

    model: nn.Module
    network: nn.Module  # the model, or the model wrapped for the team
    data: Data
    recipe: Recipe
    teacher: nn.Module | None
    team: Team
    optimiser: Optimizer
    average: Average | None
    penalty: Callable[[], None]
    mask: Callable[[], None]
    steps: int
    half: bool  # compute in bfloat16


def check(model: nn.Module, data: Data, recipe: Recipe) -> None:
    """Raises SecateurError unless `model` can be trained on `data` with `recipe`."""
    if isinstance(data.train, Split) and recipe.batch_size > len(data.train):
        raise SecateurError(
            f"recipe: batch_size <= {len(data.train)} training images must hold, but got batch_size={recipe.batch_size}"
        )
    check_fits(model, data)
    check_finite(model, "the network's", "before training; load other weights")


def prepare(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    teacher: nn.Module | None,
    team: Team,
    masks: Mapping[str, Tensor] | None,
) -> Learner:
    """Moves the network to the team's device and builds all that one training needs.

    Raises:
        SecateurError: for a batch size that the team can't share, a teacher, masks or slimmed layers that do not fit.
    """
    if recipe.batch_size % team.size:
        raise SecateurError(
            f"recipe: batch_size must be a multiple of the {team.size} processes, but got {recipe.batch_size}"
        )
    if team.size > 1 and isinstance(data.train, Stream) and not hasattr(data.train.loader.sampler, "set_epoch"):
        raise SecateurError(
            f"data {data.name!r}: {team.size} processes would all read the same stream; give its DataLoader a "
            "DistributedSampler"
        )
    order = torch.channels_last if recipe.channels_last else torch.contiguous_format
    move(model, team.device, order)
    mask = hold(model, masks) if masks else _nothing
    mask()  # before the average starts from these weights
    if teacher is not None and recipe.distill > 0:
        check_fits(teacher, data)
        teacher = copy.deepcopy(teacher).requires_grad_(False).eval()
        move(teacher, team.device, order)
    else:
        teacher = None
    return Learner(
        model=model,
        network=team.wrap(model),
        data=feed.resident(data, team.device),
        recipe=recipe,
        teacher=teacher,
        team=team,
        optimiser=recipe.build_optimiser(model),
        average=Average(model, recipe.ema) if recipe.ema else None,
        penalty=l1_subgradient(model, recipe.slim, recipe.slim_layers) if recipe.slim else _nothing,
        mask=mask,
        steps=feed.steps(data, recipe),
        half=bfloat16(recipe, data, team.device),
    )


def step(run: Learner, images: Tensor, labels: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """One update; returns the loss and the number of right answers, without gradient."""
    recipe = run.recipe
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, torch.bfloat16) if run.half else nullcontext():
        logits = forward(run.network, images, run.data.num_classes)
        with torch.no_grad():
            soft = None if run.teacher is None else run.teacher(images).float()
    logits = logits.float()
    if soft is None:
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    else:
        loss = distillation_loss(
            logits,
            soft,
            labels,
            weight=recipe.distill,
            temperature=recipe.temperature,
            label_smoothing=recipe.label_smoothing,
        )
    loss.backward()
    run.penalty()
    if recipe.clip:
        nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
    run.optimiser.step()
    run.mask()
    if run.average is not None:
        run.average.update()
    return loss.detach(), (logits.detach().argmax(1) == labels).sum()


def move(model: nn.Module, device: torch.device, order: torch.memory_format) -> None:
    """Moves `model` in place."""
    mover: Any = model  # torch's annotations know either a device or a memory format
    mover.to(device, memory_format=order)


def check_finite(model: nn.Module, what: str, when: str) -> None:
    """Raises SecateurError `<what> <tensor> holds NaN or infinity <when>` where a tensor does."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise SecateurError(f"{what} {name} holds NaN or infinity {when}")


def _nothing() -> None:
    return
