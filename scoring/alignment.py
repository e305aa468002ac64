"""Which channel every unit of the last non-linearity belongs to, so that units of two structures can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backbones.assemble import ACTIVATIONS
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Index
from backbones.interpret import Interpreter
from backbones.labels import varying
from backbones.program import Step
from backbones.removal import reduced
from backbones.rules import RULES
from backbones.structure import Structure, keep_mask


def activation_units(graph: ChannelGraph) -> dict[int, Index | None]:
    """Interprets the traced program once more, looking at its non-linearities.

    Returns:
        Step number of each non-linearity, in order -> (N,) channel unit of each of a sample's N pre-activations (-1: it
        always stays); None where the first dimension is not the batch.
    """
    seen: dict[int, Tensor] = {}

    def remembering(rule: Callable[..., Any]) -> Callable[..., Any]:
        def remember(run: Interpreter, step: Step, *args: Any, **kwargs: Any) -> Any:
            seen[run.number] = rule(run, step, *args, **kwargs)  # of the same shape and channels as the input
            return seen[run.number]

        return remember

    rules = {name: remembering(rule) if name in ACTIVATIONS else rule for name, rule in RULES.items()}
    book = Interpreter(graph.program, graph.fixed.literal).run(rules, {}, ())
    roots = book.components()
    units = np.full(book.count + 1, -1, dtype=np.int64)  # the last entry is for labels that name no channel
    for binding in book.bindings.values():
        tensor = graph.tensors.get(binding.tensor)
        if tensor is not None and binding.dim in tensor.units:
            named = binding.labels >= 0
            units[roots[binding.labels[named]]] = tensor.units[binding.dim][named]
    of_atom = np.append(units[roots], -1)
    return {
        number: None if 0 in varying(labels) else of_atom[labels[0].flatten().clamp(min=-1).numpy()]
        for number, labels in seen.items()
    }


def kept_units(graph: ChannelGraph, structure: Structure, units: dict[int, Index | None]) -> NDArray[np.bool_]:
    """(N,) which units of the dense network's last non-linearity the pruned network's last one consists of, in order.

    Args:
        graph: of the dense network.
        structure: what is kept.
        units: of `activation_units`.

    Raises:
        SecateurError: when the two cannot be told to hold the same channels.
    """
    gone = tuple(f"{path}." for path in reduced(graph, structure.removed).modules) if structure.removed else ()
    left = [n for n in units if not any(f"{path}.".startswith(gone) for path in graph.program.steps[n].modules)]
    if not left:
        raise SecateurError(f"structure {structure.id} leaves no non-linearity to compare with the dense network's")
    ours, dense = units[left[-1]], units[next(reversed(units))]
    if ours is None or dense is None or not np.array_equal(ours, dense):
        raise SecateurError(
            f"the last non-linearity of structure {structure.id} stands in {_named(graph, left[-1])} and cannot be "
            f"mapped unit by unit onto the dense network's in {_named(graph, next(reversed(units)))}"
        )
    return np.asarray(keep_mask(graph, structure)[dense])


def _named(graph: ChannelGraph, number: int) -> str:
    return graph.program.steps[number].module or "the network itself"
