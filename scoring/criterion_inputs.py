"""What a criterion looks at: weights always; gradients of the loss and figures of activation maps where it needs data.

HRank and APoZ are defined on maps behind the non-linearity. The layer that makes a channel does not see them (a batch
norm or a residual sum may stand between), but the layers that read the channel do, so the hooks sit on their inputs.
A group that no layer reads is measured at the outputs of the layers that make it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from backbones.errors import SecateurError, first_line
from backbones.graph import ChannelGraph, Group, Member
from backbones.inputs import as_arguments, named, run_on, sample_count, tensors_in
from backbones.modes import evaluating
from scoring.channel_weights import Floats, as_array, filter_members
from scoring.criteria import CRITERIA, CriterionInputs
from scoring.reconstruction.channel_order import channel_errors

#: A batch: images, or inputs of another form, as the model takes them, and int64 labels where the loss is needed.
LabelledImages = tuple[Any, Tensor | None]
#: From (..., rows, columns) maps to (...) figures.
MapFigure = Callable[[Tensor], Tensor]


def gather_inputs(
    model: nn.Module, graph: ChannelGraph, criterion: str, data: LabelledImages | None = None, seed: int = 0
) -> CriterionInputs:
    """Everything that one criterion needs.

    Args:
        model: the traced network; run in eval mode where data is needed, and left as it was.
        graph: what `trace` made of it.
        criterion: a key of `CRITERIA`.
        data: (images, labels); labels only for criteria that need gradients.
        seed: what the criterion "random" draws by.

    Raises:
        SecateurError: for weights that are not finite or not the traced ones, for a criterion without its data.
    """
    tensors = model.state_dict()
    check_weights(graph, tensors)
    norm_layers = frozenset(name for name, module in model.named_modules() if isinstance(module, _BatchNorm))
    needs = CRITERIA[criterion].needs
    if needs == "weights":
        return CriterionInputs(tensors, norm_layers, seed=seed)
    if data is None:
        raise SecateurError(f"criterion {criterion!r} needs data; give data=(images, labels)")
    images, labels = data
    if sample_count(images) == 0:
        raise SecateurError(f"criterion {criterion!r} needs at least one image, but got data of {_shapes(images)}")
    if needs == "gradients":
        if labels is None:
            raise SecateurError(f"criterion {criterion!r} needs labels; give data=(images, labels)")
        return CriterionInputs(tensors, norm_layers, loss_gradients(model, graph, images, labels), seed=seed)
    if needs == "grams":
        with measuring(model, images):
            errors = channel_errors(model, graph, images)
        return CriterionInputs(
            tensors, norm_layers, maps={name: (values,) for name, values in errors.items()}, seed=seed
        )
    measure = map_ranks if needs == "ranks" else map_zeros
    return CriterionInputs(tensors, norm_layers, maps=reading_maps(model, graph, images, measure), seed=seed)


def check_weights(graph: ChannelGraph, tensors: dict[str, Tensor]) -> None:
    """Raises SecateurError when a tensor of the graph is missing, of another shape, or not finite."""
    for group in graph.groups:
        for member in group.members:
            tensor = tensors.get(member.tensor)
            if tensor is None:
                raise SecateurError(f"the graph names {member.tensor!r}, which the model lacks; trace this model")
            if member.dim >= tensor.dim() or int(member.index.max()) >= tensor.shape[member.dim]:
                raise SecateurError(
                    f"{member.tensor!r} has shape {tuple(tensor.shape)}, which the graph does not fit; trace this model"
                )
    for name in {member.tensor: None for group in graph.groups for member in group.members}:
        # By numpy: torch would split this trifle over the cores, and wait for each of them when they are busy.
        if not np.isfinite(as_array(tensors[name])).all():
            raise SecateurError(f"{name!r} holds NaN or infinite weights; finite weights are needed")


def loss_gradients(model: nn.Module, graph: ChannelGraph, images: Any, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean cross entropy over one batch, in eval mode.

    Args:
        model: classifier; its parameters, buffers, gradients and modes stay as they are.
        graph: what `trace` made of it.
        images: (B, C, H, W) on the model's device.
        labels: (B,) int64.

    Returns:
        Per weight that makes channels its gradient, zeros where the loss does not depend on it.

    Raises:
        SecateurError: when the model fails on the images, or the loss on the labels.
    """
    names = dict.fromkeys(member.tensor for group in graph.groups for member in filter_members(group))
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    leaves = [state[name].requires_grad_(True) for name in names]
    with measuring(model, images):
        given = as_arguments(images)
        loss = cross_entropy(functional_call(model, state, tuple(given), named(given)), labels)
        found = grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def map_ranks(maps: Tensor) -> Tensor:
    """Rank of each map as a matrix; (..., rows, columns) -> (...)."""
    ranks: Tensor = torch.linalg.matrix_rank(maps)
    return ranks


def map_zeros(maps: Tensor) -> Tensor:
    """Share of each map that is not exactly zero, so that larger is better; (..., rows, columns) -> (...)."""
    return (maps != 0).double().mean((-2, -1))


def reading_maps(
    model: nn.Module, graph: ChannelGraph, images: Any, measure: MapFigure
) -> dict[str, tuple[Floats, ...]]:
    """One forward pass in eval mode; the mean figure of every channel at every layer that reads it.

    Args:
        model: left as it was.
        graph: what `trace` made of it.
        images: (B, ...) as the model takes them; some tens are enough for a stable order (HRank, section 3).
        measure: `map_ranks` or `map_zeros`.

    Returns:
        Per group one (n,) array for each layer, in the group's order.

    Raises:
        SecateurError: when the model fails on the images, or a group passes no layer that can be watched.
    """
    figures: dict[tuple[str, int], list[Floats]] = {}
    handles = []
    try:
        for group in graph.groups:
            for number, member in enumerate(group.members):
                module = model.get_submodule(member.layer)
                if member.role == "vector" or not isinstance(module, _ConvNd | nn.Linear):
                    continue
                seen = figures.setdefault((group.name, number), [])
                handles.append(_watch(module, member, measure, seen))
        with measuring(model, images), torch.no_grad():
            run_on(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return {group.name: _means_of_group(group, figures) for group in graph.groups}


def _means_of_group(group: Group, figures: Mapping[tuple[str, int], list[Floats]]) -> tuple[Floats, ...]:
    """(n,) mean figures of each layer that reads the channels; where none does, of each layer that makes them."""
    for role in ("input", "filter"):
        members = [i for i, member in enumerate(group.members) if member.role == role and figures.get((group.name, i))]
        if members:
            return tuple(np.mean(figures[group.name, i], axis=0) for i in members)
    raise SecateurError(
        f"no layer that ran shows the activation maps of group {group.name!r}; take a criterion of the weights "
        "or leave the group out with trace(..., ignore=...)"
    )


def _watch(
    module: nn.Module, member: Member, measure: MapFigure, seen: list[Floats]
) -> torch.utils.hooks.RemovableHandle:
    """Appends to `seen` the (n,) figures of the member's channels whenever the module runs."""
    positions = torch.as_tensor(_positions(module, member))
    channels_last = isinstance(module, nn.Linear)

    def look(values: Tensor) -> None:
        figures = measure(_maps(values, positions.to(values.device), channels_last))
        seen.append(figures.double().mean((0, 2)).cpu().numpy())

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        look(args[0] if args else kwargs["input"])

    def after(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        look(output)

    if member.role == "input":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def _positions(module: nn.Module, member: Member) -> NDArray[np.int64]:
    """(n, width) positions of the channels in the activation.

    Dimension 1 of a grouped convolution's weight counts within one part: the channel lies in every part.
    """
    if not isinstance(module, _ConvNd) or module.groups == 1 or member.dim != 1:
        return member.index
    parts = np.arange(module.groups) * module.weight.shape[1]
    return np.asarray((member.index[..., None] + parts).reshape(len(member.index), -1))


def _maps(values: Tensor, positions: Tensor, channels_last: bool) -> Tensor:
    """The (B, n, width, rows, columns) maps of the channels at (n, width) positions.

    Behind a flatten the shape of a map is lost: its elements are laid out as near to a square as they divide.
    """
    if not channels_last:
        picked = values[:, positions]
        spatial = picked.shape[3:]
        return picked.reshape(*picked.shape[:3], math.prod(spatial[:-1]), spatial[-1])
    picked = values[..., positions]
    if picked.dim() > 3:
        return picked.flatten(1, -3).permute(0, 2, 1, 3).unsqueeze(2)
    width = positions.shape[1]
    rows = max(divisor for divisor in range(1, math.isqrt(width) + 1) if width % divisor == 0)
    return picked.reshape(*picked.shape[:2], 1, rows, width // rows)


def _shapes(inputs: Any) -> str:
    return f"shape {', '.join(str(tuple(one.shape)) for one in tensors_in(inputs))}"


@contextmanager
def measuring(model: nn.Module, images: Any) -> Iterator[None]:
    """Eval mode on one core for the length of a block; every module's mode and the thread count come back after it.

    One core, because the order in which several cores add up gradients is not theirs to promise.

    Args:
        model: what runs inside the block.
        images: what it runs on, for the message.

    Raises:
        SecateurError: when the model fails on the images.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(model):
            yield
    except SecateurError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise SecateurError(
            f"the model cannot be measured on data of {_shapes(images)}: {first_line(error)}"
        ) from error
    finally:
        torch.set_num_threads(threads)
