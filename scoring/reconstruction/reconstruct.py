"""The public way in: a pruned network that works before it is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from backbones.arguments import explained
from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.reconstruction.channels import CHANNEL_RIDGE, refit_channels
from scoring.reconstruction.grams import DenseGrams, gather_grams
from scoring.reconstruction.refit import RIDGE, refit
from scoring.reconstruction.targets import ROWS, DenseTargets, gather_targets

METHODS = ("layers", "channels")


@explained
def reconstruct(
    model: nn.Module,
    graph: ChannelGraph,
    structure: Structure,
    images: Any,
    *,
    method: str = "layers",
    rows: int = ROWS,
    ridge: float | None = None,
) -> nn.Module:
    """Prunes a network and refits every layer behind the cut in closed form: no labels, no training, one forward pass.

    Each layer is solved for just before it runs, on what the refitted layers before it really give, so that its outputs
    are as near as can be (least squares) to those of the dense layer on the same images. Convolutions (1d to 3d,
    grouped, depthwise, dilated, strided, transposed) and linear layers are refitted, with what stands behind them in
    mind: a bias or batch norm takes up a constant, a residual branch makes up for what the stream has lost, a ReLU
    leaves targets free where the dense network is silent. Batch norms are set in the same pass. Layers that cannot be
    refitted stay as cut.

    He et al., "Channel pruning for accelerating very deep neural networks" (ICCV 2017) fit single layers so.

    Args:
        model: the traced network; not changed. Its training flags, hooks, dtype, device and memory format are kept.
        graph: what `trace` made of it.
        structure: what is kept.
        images: (B, …) as the network takes them, some hundreds, of the training set; a tuple of tensors for a network
            of several inputs; a list of such batches. Or what `gather_targets` (for "channels": `gather_grams`) made of
            them, to refit many structures.
        method: "layers", as above, or "channels": each layer takes on what its lost inputs say through the kept ones,
            from the dense network's channel statistics alone, with no forward pass of the pruned network.
        rows: output positions a layer is fitted at, as many from every image as from every other.
        ridge: how strongly weights are drawn to the cut ones, relative to the mean square of a layer's inputs; > 0.
            By default what is best for the method.

    Returns:
        the pruned network, as `prune` gives it. `secateur_as_cut`: layer that was not refitted -> why.

    Raises:
        SecateurError: for images of another shape, dtype or device than the network's, fewer than two, or not finite;
            for an unknown method, rows < 1 or ridge <= 0; for a structure of another graph.
    """
    check_name("method", method, METHODS)
    if ridge is not None and not ridge > 0:
        raise SecateurError(f"ridge > 0 must hold, but got ridge={ridge}")
    if method == "channels":
        grams = images if isinstance(images, DenseGrams) else gather_grams(model, graph, images, rows=rows)
        return refit_channels(grams, structure, ridge=CHANNEL_RIDGE if ridge is None else ridge)
    targets = images if isinstance(images, DenseTargets) else gather_targets(model, graph, images, rows=rows)
    return refit(targets, structure, ridge=RIDGE if ridge is None else ridge)
