"""From a dense network to a trained small one: at once, step by step, or with filters that may grow back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from backbones.arguments import explains
from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from backbones.module_copy import copy_with
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from search.data.data import Data
from search.space.budget import Target
from search.training.checkpoint import History
from search.training.choosing import Choose, intermediate_target
from search.training.engine import train
from search.training.recipe import Recipe
from search.training.soft import Growth, SoftPruningCallback, asymptotic, nonzero_structure, whole

Cut = Callable[[Structure], nn.Module]


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Flow:
    """How pruning and training alternate.

    Attributes:
        name: a key of `FLOWS`: "one-shot" (choose, cut, train), "iterative" (the same in steps, the target split into
            equal factors; Molchanov et al., ICLR 2017), "soft" (train the whole network, silence channels after each
            epoch, cut at the end; He et al., IJCAI 2018) or "asymptotic" (soft with a cut that grows).
        steps: number of steps of "iterative"; each is a training with the whole recipe.
    """

    name: str = "one-shot"
    steps: int = 3

    @property
    def count(self) -> int:
        """Trainings that it takes."""
        return self.steps if self.name == "iterative" else 1

    @property
    def chooses_again(self) -> bool:
        """Whether the structure is chosen anew as the weights change."""
        return self.name != "one-shot"

    def __post_init__(self) -> None:
        check_name("flow", self.name, FLOWS)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise SecateurError(f"flow: steps must be a whole number >= 1, but got steps={self.steps!r}")


@dataclass(frozen=True, slots=True, eq=False)
class FlowResult:
    """The small network that a flow ends with.

    Attributes:
        model: the small trained network, cut out of the given one (`save` knows where it comes from).
        structure: the kept channels, in terms of the graph of the given network.
        histories: one per training.
    """

    model: nn.Module
    structure: Structure
    histories: tuple[History, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FlowContext:
    """What every flow starts from.

    Attributes:
        model: the dense network; it is not changed, and is the teacher where the recipe distils.
        graph: the channel graph of `model`.
        data: the task.
        recipe: how each network is trained.
        choose: picks a structure for the weights as they are (`search.training.choosing.Chooser`).
        target: what the small network may cost.
        cut: makes the network that a one-shot training starts from.
        folder: holds one folder per training, so that a killed flow goes on where it was; None for no files.
        device: where training computes: "cpu", "cuda", ...
        progress: show bars when standard error is a terminal.
        test: look at the test split after the last epoch.
    """

    model: nn.Module
    graph: ChannelGraph
    data: Data
    recipe: Recipe
    choose: Choose
    target: Target
    cut: Cut
    folder: Path | None = None
    device: str | torch.device = "cpu"
    progress: bool = True
    test: bool = True

    def part(self, name: str) -> Path | None:
        """The folder of one training."""
        return None if self.folder is None else self.folder / name


def run_flow(  # noqa: PLR0913 - the parts of a `FlowContext`
    flow: Flow,
    model: nn.Module,
    graph: ChannelGraph,
    data: Data,
    recipe: Recipe,
    choose: Choose,
    target: Target,
    *,
    cut: Cut | None = None,
    folder: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    test: bool = True,
) -> FlowResult:
    """Prunes and trains a network in the order that `flow` says.

    Args:
        flow: the order.
        model: the dense network; a copy is worked on.
        graph: the channel graph of `model`, from `trace`.
        data: the task.
        recipe: how each network is trained; the dense network is the teacher.
        choose: criterion and space (`search.training.choosing.Chooser`).
        target: the budget, from `Budget.targets`.
        cut: makes the pruned network that a one-shot training starts from, such as one that is refitted; by default
            `prune`. The other flows train before they cut, or cut what was trained: they start as they always do.
        folder: holds one folder per training, so that a killed flow goes on where it was; None for no files.
        device: where training computes: "cpu", "cuda", ...
        progress: show bars when standard error is a terminal.
        test: look at the test split after the last epoch; not wanted where trainings are still compared.

    Returns:
        the small network within `target`, its structure and the curves.

    Raises:
        SecateurError: when the target is out of reach, or a step by step flow is asked to remove layers.
    """
    place = None if folder is None else Path(folder)
    cut = cut or partial(prune, model, graph)
    context = FlowContext(model, graph, data, recipe, choose, target, cut, place, device, progress, test)
    return FLOWS[flow.name](context, flow.steps)


def compose(graph: ChannelGraph, outer: Structure, inner: Structure) -> Structure:
    """The structure of `graph` that is left when `inner` is cut out of what `outer` keeps.

    Args:
        graph: the channel graph of the dense network.
        outer: a structure of `graph`.
        inner: a structure of the graph that is traced anew on the network pruned to `outer`; groups that this graph no
            longer has stay as they are in `outer`.

    Raises:
        SecateurError: when the two do not fit, or `inner` removes layers.
    """
    if inner.removed:
        raise SecateurError(
            f"a step by step flow removes no layers, but the structure removes {inner.removed[0]!r}; take 'one-shot'"
        )
    kept = dict(outer.keep)
    for name, channels in inner.kept:
        if name not in kept or channels[-1] >= len(kept[name]):
            raise SecateurError(f"group {name!r} of the later structure does not fit what the earlier one keeps")
        kept[name] = tuple(kept[name][channel] for channel in channels)
    return Structure.of(graph, kept, outer.removed)


def _one_shot(context: FlowContext, steps: int) -> FlowResult:
    structure = context.choose(context.model, context.graph, context.target)
    small = context.cut(structure)
    return FlowResult(small, structure, (_train(context, small, "training"),))


def _iterative(context: FlowContext, steps: int) -> FlowResult:
    small, graph = context.model, context.graph
    structure = Structure.full(context.graph)
    histories = []
    for step in range(1, steps + 1):
        inner = context.choose(
            small, graph, intermediate_target(context.graph.costs.dense, context.target, step / steps, "factors")
        )
        weights = prune(small, graph, inner).state_dict()
        structure = compose(context.graph, structure, inner)
        # Cut anew out of the dense network, so that the result's origin is that network and not the step before.
        small = prune(context.model, context.graph, structure)
        small.load_state_dict(weights)
        histories.append(_train(context, small, f"step-{step}"))
        if step < steps:
            fixed = context.graph.fixed
            sizes = {attribute: layer for attribute, layer, _ in fixed.sizes}
            graph = trace(small, context.data.example, sizes=sizes, ignore=fixed.ignore, only=fixed.only)
    return FlowResult(small, structure, tuple(histories))


def _soft(context: FlowContext, steps: int) -> FlowResult:
    return _with_zeros(context, whole)


def _asymptotic(context: FlowContext, steps: int) -> FlowResult:
    return _with_zeros(context, asymptotic)


def _with_zeros(context: FlowContext, growth: Growth) -> FlowResult:
    live = copy_with(context.model, {})
    after_epoch = SoftPruningCallback(
        live, context.graph, context.data, context.recipe, context.choose, context.target, growth
    )
    history = train(
        live,
        context.data,
        context.recipe,
        teacher=context.model,
        folder=context.part("training"),
        device=context.device,
        progress=context.progress,
        after_epoch=after_epoch,
        test=context.test,
    )
    structure = nonzero_structure(context.graph, live, scales=after_epoch.scales)
    return FlowResult(prune(live, context.graph, structure), structure, (history,))


def _train(context: FlowContext, small: nn.Module, name: str) -> History:
    return train(
        small,
        context.data,
        context.recipe,
        teacher=context.model,
        folder=context.part(name),
        device=context.device,
        progress=context.progress,
        test=context.test,
    )


FLOWS: dict[str, Callable[[FlowContext, int], FlowResult]] = {
    "one-shot": _one_shot,
    "iterative": _iterative,
    "soft": _soft,
    "asymptotic": _asymptotic,
}
