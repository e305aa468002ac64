"""How much a network needs a layer: what is lost when it is replaced by the identity.

Two ways to tell, both used for layer removal before (Azhari 2018 prunes the layers of AlexNet and VGG-16 whose absence
costs least):

- the fall in accuracy, or in any training-free score, when the layer is bypassed and nothing is retrained; and
- 1 - cosine of the layer's input and output on a batch, averaged over samples: a layer that hardly turns its input
  does little (the block influence of Men et al., "ShortGPT", arXiv 2403.03853, for any layer of equal shape).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import SecateurError, check_name
from backbones.graph import ChannelGraph
from backbones.inputs import run_on
from backbones.modes import evaluating, fast_precision
from backbones.removal import removable, residual_blocks
from backbones.structure import Structure
from scoring.scorers import check_scorer, scorer_of
from scoring.scoring_task import ScoredStructure, ScoringTask

EssentialityMeasure = Callable[[ScoringTask, Iterable[str], str], dict[str, float]]


def essentiality(
    measure: str, task: ScoringTask, layers: Iterable[str], scorer: str = "naswot_last"
) -> dict[str, float]:
    """How essential each layer is; the one with the lowest value is missed least.

    Args:
        measure: a key of `ESSENTIALITY`: "cosine" (one forward pass), "accuracy" or "score" (one a layer).
        task: the dense network and the images to look at.
        layers: module paths that `backbones.removal.removable` names.
        scorer: whose fall "score" measures, by name.

    Returns:
        layer -> essentiality, in the unit of the measure.

    Raises:
        SecateurError: for an unknown measure or scorer, a layer that cannot be removed, labels that are missing.
    """
    check_name("essentiality", measure, ESSENTIALITY)
    check_scorer(scorer)
    if measure == "score" and "+" in scorer:
        raise SecateurError(
            f"essentiality by score needs a single scorer, but got the rank sum {scorer!r}; name one, or measure by "
            "'cosine' or 'accuracy'"
        )
    layers = list(layers)
    for layer in layers:
        check_name("removable layer", layer, removable(task.graph))
    return ESSENTIALITY[measure](task, layers, scorer)


def removable_blocks(graph: ChannelGraph) -> tuple[str, ...]:
    """The layers worth removing unless others are named.

    They are the residual blocks; in a network without any the innermost modules with two or more weight matrices, or
    its single layers.
    """
    if blocks := residual_blocks(graph):
        return blocks
    paths = list(removable(graph))
    shapes = graph.program.tensors.shapes
    matrices = [name for name in graph.program.tensors.parameters if len(shapes[name]) >= 2]
    inside = {path: sum(name.startswith(path + ".") for name in matrices) for path in paths}
    composed = [path for path in paths if inside[path] >= 2]
    innermost = [path for path in composed if not any(other.startswith(path + ".") for other in composed)]
    return tuple(innermost or [path for path in paths if inside[path] == 1])


def accuracy_of(model: nn.Module, task: ScoringTask) -> float:
    """The share of the task's batch that a network classifies as labelled, in eval mode.

    The pass is made in the arithmetic of `reconstruction` (`ScoringTask.half`), for rules and removal orders ask a
    hundred times and more.

    Raises:
        SecateurError: without labels, or when the output is not (B, classes).
    """
    labels = task.need_labels("accuracy")
    with evaluating(model), torch.no_grad(), fast_precision(task.images, task.half):
        logits = run_on(model, task.images)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise SecateurError("accuracy needs a classifier that returns logits (B, classes)")
    return float((logits.argmax(1) == labels).double().mean())


def _cosine(task: ScoringTask, layers: Iterable[str], scorer: str) -> dict[str, float]:
    """One forward pass of the dense network; a layer that is called several times counts with its mean."""
    entered: dict[str, Tensor] = {}
    turned: dict[str, list[float]] = {layer: [] for layer in layers}

    def enter(layer: str) -> Callable[..., None]:
        def see(module: nn.Module, args: tuple[object, ...], named: Mapping[str, object]) -> None:
            entered[layer] = next(one for one in (*args, *named.values()) if isinstance(one, Tensor)).detach().clone()

        return see

    def leave(layer: str) -> Callable[..., None]:
        def see(module: nn.Module, args: object, output: Tensor) -> None:
            before, after = entered[layer].flatten(1).double(), output.detach().flatten(1).double()
            turned[layer].append(1.0 - float(F.cosine_similarity(before, after, dim=1).mean()))

        return see

    handles = []
    for layer in turned:
        modules = removable(task.graph)[layer]
        handles.append(task.model.get_submodule(modules[0]).register_forward_pre_hook(enter(layer), with_kwargs=True))
        handles.append(task.model.get_submodule(modules[-1]).register_forward_hook(leave(layer)))
    try:
        with evaluating(task.model), torch.no_grad():
            run_on(task.model, task.batch)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: sum(values) / len(values) for layer, values in turned.items()}


def _accuracy(task: ScoringTask, layers: Iterable[str], scorer: str) -> dict[str, float]:
    """The fall in accuracy on the batch, a fraction."""
    return _fall(task, layers, lambda scored: accuracy_of(scored.folded, task))


def _score(task: ScoringTask, layers: Iterable[str], scorer: str) -> dict[str, float]:
    """The fall in a score."""
    return _fall(task, layers, scorer_of(scorer))


def _fall(task: ScoringTask, layers: Iterable[str], value: Callable[[ScoredStructure], float]) -> dict[str, float]:
    whole = value(ScoredStructure(task, Structure.full(task.graph)))
    return {layer: whole - value(ScoredStructure(task, Structure.of(task.graph, {}, [layer]))) for layer in layers}


ESSENTIALITY: Mapping[str, EssentialityMeasure] = {"cosine": _cosine, "accuracy": _accuracy, "score": _score}
