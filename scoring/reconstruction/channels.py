"""The cheap form: in every layer kept channels stand in for the dropped ones, by moments gathered once a network.

Of each layer's input S = E x x' is known from the dense network. Dropped channels are predicted from the kept ones, P:
M = S_:P S_PP^-1, and the prediction is folded into the weights, W' = W M (the closed form of GRAIL, CPAL 2026, drawn to
the cut weights by a ridge). The pruned network is never run, so errors that layers before leave are not made up for; a
batch norm behind takes the mean and the variance that the layer's new weights give by the same moments.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbones.structure import Structure
from backbones.surgery import PruningPlan, prune
from scoring.batch_norm import BatchNorm
from scoring.reconstruction.grams import DenseGrams, InputGram, depthwise
from scoring.reconstruction.layers import TRANSPOSED, RefitLayer, refit_layers
from scoring.reconstruction.norms import LEAST_VARIANCE
from scoring.reconstruction.patches import weight_matrix, weight_of
from scoring.reconstruction.ridge import Ridge, cholesky

CHANNEL_RIDGE = 1e-6
"""Relative to the mean diagonal of the Gram: there are few channels and many rows."""


def refit_channels(grams: DenseGrams, structure: Structure, *, ridge: float = CHANNEL_RIDGE) -> nn.Module:
    """A structure of the dense network in which kept channels make up for dropped ones, without any forward pass.

    Args:
        grams: of `gather_grams`.
        structure: what is kept.
        ridge: how strongly weights are drawn to the cut ones, relative to the mean diagonal of the inputs' Gram; > 0.

    Returns:
        the pruned network, in the training flags of the dense one. `secateur_as_cut` names the layers that were not
        refitted, with the reasons.

    Raises:
        SecateurError: for a structure of another graph.
    """
    pruned = prune(grams.model, grams.graph, structure, check=False)
    plan = pruned.secateur_origin
    assert isinstance(plan, PruningPlan)
    layers, left = refit_layers(grams.model, grams.graph)
    here = dict(pruned.named_modules())
    with torch.no_grad():
        for path, layer in layers.items():
            dense = grams.model.get_submodule(path)
            if type(here.get(path)) is not type(dense) or depthwise(dense):
                continue
            if path not in grams.inputs:
                left[path] = "its module is never called, or its input has no batch dimension"
            elif not _refit(layer, grams.inputs[path], dense, here, plan, ridge):
                left[path] = "no finite solution: its inputs or weights overflow"
    pruned.secateur_as_cut = {path: reason for path, reason in left.items() if path in here}  # type: ignore[assignment]
    return pruned


def _refit(
    layer: RefitLayer, gram: InputGram, dense: nn.Module, here: dict[str, nn.Module], plan: PruningPlan, ridge: float
) -> bool:
    """Sets one layer's weights and the constant behind them; False where nothing finite is found."""
    module, weight = here[layer.path], dense.weight
    assert isinstance(weight, Tensor)
    read = 0 if isinstance(dense, TRANSPOSED) else 1
    kept = plan.tensors.get(f"{layer.path}.weight", {})
    if read not in kept or len(kept[read]) == weight.shape[read]:
        return True
    if 1 - read in kept:
        weight = weight.index_select(1 - read, torch.tensor(kept[1 - read], device=weight.device))
    stays = torch.zeros(weight.shape[read], dtype=torch.bool, device=weight.device)
    stays[list(kept[read])] = True
    wide = weight.double()
    channels = stays[gram.places[:, 0]] if gram.places is not None else stays[: gram.mean.shape[1]]
    if gram.places is not None:
        matrix = wide[:, gram.places].permute(2, 1, 0)[None]  # (parts, taps, channels, outputs)
    else:
        matrix = weight_matrix(dense, wide)
        matrix = matrix.reshape(len(matrix), -1, len(channels), matrix.shape[2])
    gone = matrix[:, :, ~channels]
    added = _stand_in(gram, channels, gone, layer.centred, ridge)
    if added is None:
        return False
    solved = matrix[:, :, channels] + added
    current = module.weight
    assert isinstance(current, Tensor)
    if gram.places is not None:
        whole = torch.zeros_like(wide)
        whole[:, gram.places[channels]] = solved[0].permute(2, 1, 0)
        current.copy_(whole[:, stays])
    else:
        current.copy_(weight_of(module, solved.flatten(1, 2), current))
    if layer.centred:
        mean = gram.mean
        constant = torch.einsum("gc,gtco->go", mean[:, ~channels], gone)
        constant = (constant - torch.einsum("gc,gtco->go", mean[:, channels], added)).flatten()
        _shift(module, here.get(layer.norm) if layer.norm else None, constant)
        _spread(here.get(layer.norm) if layer.norm else None, gram, channels, matrix, solved)
    return True


def _stand_in(gram: InputGram, channels: Tensor, gone: Tensor, centred: bool, ridge: float) -> Tensor | None:
    """What the weights of the kept channels gain from the dropped ones' (parts, taps, dropped, outputs)."""
    if gram.rows is not None:
        rows = gram.sampled(centred).double()
        solver = Ridge.of(rows[:, :, channels], ridge)
        found = None if solver is None else solver.solve(rows[:, :, ~channels] @ gone[:, 0])
        return None if found is None else found[:, None]
    second = gram.second(centred)
    inner = second[:, channels][:, :, channels]
    factor = cholesky(inner, ridge * inner.diagonal(dim1=-2, dim2=-1).mean(-1))
    if factor is None:
        return None
    predict = torch.cholesky_solve(second[:, channels][:, :, ~channels].to(factor[0].dtype), factor[0])
    added = predict[:, None] @ gone.to(predict.dtype)
    return added.double() if bool(added.isfinite().all()) else None


def _shift(module: nn.Module, norm: nn.Module | None, constant: Tensor) -> None:
    """Adds a constant to what a layer gives: by its bias, or by the mean that the batch norm behind takes off."""
    if isinstance(module.bias, Tensor):
        module.bias += constant.to(module.bias)
    elif isinstance(norm, BatchNorm) and norm.running_mean is not None:
        norm.running_mean -= constant.to(norm.running_mean)


def _spread(norm: nn.Module | None, gram: InputGram, channels: Tensor, before: Tensor, after: Tensor) -> None:
    """Scales a batch norm's variance by how far that of its inputs falls with the dropped channels."""
    if not isinstance(norm, BatchNorm) or norm.running_var is None:
        return
    was, now = _variance(gram, slice(None), before), _variance(gram, channels, after)
    ratio = (now + LEAST_VARIANCE) / (was + LEAST_VARIANCE)
    norm.running_var *= ratio.to(norm.running_var)


def _variance(gram: InputGram, channels: Tensor | slice, weight: Tensor) -> Tensor:
    """(outputs,) variance of what (parts, taps, channels, outputs) weights give, taps taken as independent."""
    if gram.rows is not None:
        return (gram.rows[:, None, :, channels].double() @ weight).square().mean(2).sum(1).flatten()
    inner = gram.second(True)[:, channels][:, :, channels]
    return (weight * (inner[:, None] @ weight)).sum((1, 2)).flatten()
