"""One network on its way through a training: its optimiser, its teacher, the average of its weights, and one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.checkpoint import is_finite
from backbones.errors import SecateurError
from backbones.inputs import map_tensors, move_tensors, run_on, tensors_in
from backbones.memory_order import in_order
from backbones.modes import device_of, training_code
from backbones.module_copy import copy_with
from backbones.state import untouched
from search.data.data import Data
from search.data.sources import Stream
from search.data.task import Loss, batch_sum
from search.training.feed import resident, steps_per_epoch
from search.training.losses import check_options, l1_subgradient, teacher_distance, training_loss
from search.training.masks import hold
from search.training.metrics import check_fits, check_task, forward, loss_of
from search.training.parallel import ProcessGroup
from search.training.recipe import Recipe, bfloat16


@dataclass(slots=True, eq=False)
class TrainState:
    """What lives as long as one call of `train`; made by `prepare_training`.

    Attributes:
        model: the network that is trained, in place.
        network: what a step runs: `model`, or `model` wrapped so that whole batches run as compiled code and gradients
            are averaged over all processes.
        data: the task, its training images on the device where they fit.
        recipe: how to train.
        teacher: the dense network to learn from, or None.
        loss: of outputs and targets.
        distance: of outputs and those of the teacher.
        processes: who trains together, and where this process computes.
        optimiser: the optimiser over the parameters of `model`.
        ema: the running average of the weights, or None.
        penalty: adds the slimming penalty to the gradients, before the optimiser's step.
        mask: sets masked weights to zero, after the optimiser's step.
        steps: batches an epoch.
        half: compute in bfloat16.
        compiled: images of the batches that run as compiled code (`search.training.compiling`); 0 where none do.
    """

    model: nn.Module
    network: nn.Module
    data: Data
    recipe: Recipe
    teacher: nn.Module | None
    loss: Loss
    distance: Loss
    processes: ProcessGroup
    optimiser: Optimizer
    ema: EMA | None
    penalty: Callable[[], None]
    mask: Callable[[], None]
    steps: int
    half: bool
    compiled: int = 0

    @property
    def counts(self) -> bool:
        """Whether the metric is followed while learning: where there are classes, and it is a function."""
        return self.data.task.classes and not self.data.task.is_object


def check_trainable(model: nn.Module, data: Data, recipe: Recipe) -> None:
    """Raises SecateurError unless `model` can be trained on `data` with `recipe`."""
    if not isinstance(data.train, Stream) and recipe.batch_size > len(data.train):
        raise SecateurError(
            f"recipe: batch_size <= {len(data.train)} training images must hold, but got batch_size={recipe.batch_size}"
        )
    check_options(data, recipe)
    check_fits(model, data)
    check_finite(model, "the network's", "before training; load other weights")
    check_task(model, data)


def prepare_training(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    teacher: nn.Module | None,
    processes: ProcessGroup,
    masks: Mapping[str, Tensor] | None,
) -> TrainState:
    """Moves the network to the device of this process and builds all that one training needs.

    Raises:
        SecateurError: for a batch size that the processes can't share, or a teacher, masks or slimmed layers that
            do not fit.
    """
    if recipe.batch_size % processes.size:
        raise SecateurError(
            f"recipe: batch_size must be a multiple of the {processes.size} processes, but got {recipe.batch_size}"
        )
    if processes.size > 1 and isinstance(data.train, Stream) and not hasattr(data.train.loader.sampler, "set_epoch"):
        raise SecateurError(
            f"data {data.name!r}: {processes.size} processes would all read the same stream; give its DataLoader a "
            "DistributedSampler"
        )
    order = torch.channels_last if recipe.channels_last else torch.contiguous_format
    move_model(model, processes.device, order)
    processes.same(model.state_dict().values())
    mask = hold(model, masks) if masks else _nothing
    mask()  # before the average starts from these weights
    if teacher is not None and recipe.distill > 0:
        check_fits(teacher, data)
        teacher = teaching(copy_with(teacher, {}).requires_grad_(False), data)
        move_model(teacher, processes.device, order)
    else:
        teacher = None
    return TrainState(
        model=model,
        network=model,
        data=resident(data, processes.device),
        recipe=recipe,
        teacher=teacher,
        loss=training_loss(data, recipe),
        distance=teacher_distance(data, recipe),
        processes=processes,
        optimiser=recipe.build_optimiser(model),
        ema=EMA(model, recipe.ema) if recipe.ema else None,
        penalty=l1_subgradient(model, recipe.slim, recipe.slim_layers) if recipe.slim else _nothing,
        mask=mask,
        steps=steps_per_epoch(data, recipe),
        half=bfloat16(recipe, data, processes.device),
    )


def teaching(teacher: nn.Module, data: Data) -> nn.Module:
    """The teacher in evaluation mode; where its code returns something else in training, with that code.

    Torch's own layers are in evaluation mode in both cases.
    """
    teacher.eval()
    if data.task.classes:
        return teacher
    inputs = move_tensors(data.example, device_of(teacher))
    with torch.no_grad(), untouched(teacher):
        shapes = [one.shape for one in tensors_in(run_on(teacher, inputs))]
        with training_code(teacher):
            same = [one.shape for one in tensors_in(run_on(teacher, inputs))] == shapes
    for module in teacher.modules() if not same else ():
        module.training = not type(module).__module__.startswith("torch.")
    return teacher


def train_step(state: TrainState, inputs: Any, targets: Any, rate: float) -> tuple[Tensor, Tensor]:
    """One update; returns the loss and the number of right answers, without gradient (NaN without classes)."""
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.optimiser.zero_grad(set_to_none=True)
    loss, outputs = step_loss(state, inputs, targets)
    loss.backward()
    state.penalty()
    if state.recipe.clip:
        nn.utils.clip_grad_norm_(state.model.parameters(), state.recipe.clip)
    state.optimiser.step()
    state.mask()
    if state.ema is not None:
        state.ema.update()
    if not state.counts:
        return loss.detach(), torch.full_like(loss.detach(), torch.nan)
    return loss.detach(), batch_sum(state.data.task, outputs.detach(), targets, len(outputs))


def step_loss(state: TrainState, inputs: Any, targets: Any) -> tuple[Tensor, Any]:
    """The forward passes of one step: the loss, with gradient, and the outputs in float32."""
    recipe, device = state.recipe, state.processes.device
    with torch.autocast(device.type, torch.bfloat16) if state.half else nullcontext():
        outputs = forward(state.network, inputs, state.data)
        with torch.no_grad():
            soft = None if state.teacher is None else _widened(run_on(state.teacher, inputs))
    outputs = _widened(outputs)
    loss = loss_of(state.loss, outputs, targets)
    if soft is not None:
        loss = (1 - recipe.distill) * loss + recipe.distill * loss_of(state.distance, outputs, soft)
    return loss, outputs


def _widened(outputs: Any) -> Any:
    """The outputs, those of half precision as float32."""
    half = (torch.bfloat16, torch.float16)
    return map_tensors(lambda tensor: tensor.float() if tensor.dtype in half else tensor, outputs)


def move_model(model: nn.Module, device: torch.device, order: torch.memory_format) -> None:
    """Moves `model` in place, its tensors of four dimensions in this memory order."""
    model.to(device)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = in_order(tensor.data, order)


def check_finite(model: nn.Module, what: str, when: str) -> None:
    """Raises SecateurError `<what> <tensor> holds NaN or infinity <when>` where a tensor does."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not is_finite(tensor):
            raise SecateurError(f"{what} {name} holds NaN or infinity {when}")


def _nothing() -> None:
    return


class EMA:
    """Exponential moving average of every floating-point parameter and buffer of one network.

    The decay starts small, min(decay, (1 + n) / (10 + n)) after n steps, so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._live = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        self._mean = [tensor.clone() for tensor in self._live]
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._mean, self._live, 1 - decay)
        self._steps += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Writes the average into the network."""
        torch._foreach_copy_(self._live, self._mean)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the average inside the block, its own weights again afterwards."""
        kept: list[Tensor] = [tensor.clone() for tensor in self._live]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._live, kept)

    def state_dict(self) -> dict[str, Any]:
        """The average and its number of steps, for a checkpoint."""
        return {"mean": self._mean, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        with torch.no_grad():
            for mean, saved in zip(self._mean, state["mean"], strict=True):
                mean.copy_(saved)
        self._steps = state["steps"]
