"""From a network and an example to its channel graph."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils._pytree import tree_leaves

from backbones.arguments import explained
from backbones.assemble import assemble
from backbones.checkpoint import is_finite
from backbones.errors import SecateurError
from backbones.export_program import export, run
from backbones.graph import ChannelGraph, Fixed, Frozen, owner
from backbones.inputs import NamedInputs, move_tensors, named, output_of
from backbones.interpret import Interpreter
from backbones.masked_reference import relative_difference
from backbones.modes import evaluating
from backbones.module_copy import copy_with, runs_apart
from backbones.program import Program
from backbones.pruning_check import PruningCheck, eval_output, nonconstant_weights, random_inputs
from backbones.rules import RULES
from backbones.samples import count_samples
from backbones.size_attributes import (
    HeadAttributes,
    check_size_attributes,
    declared_attributes,
    fitting_attributes,
)
from backbones.state import State, untouched
from backbones.surgery import check_model

UNEQUAL = 0.1
"""Relative difference of outputs above which code is other code; autocast to half precision makes hundredths."""


@explained
def trace(
    model: nn.Module,
    example: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    samples: int | None = None,
    sizes: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    only: Sequence[str] = (),
) -> ChannelGraph:
    """Finds the coupled channels of a network.

    The forward pass is exported once by `torch.export` and interpreted on label tensors; see `backbones.rules`.
    The model is traced in eval mode, after one run on the example, and left as it was: with all that its code keeps
    between calls, on its class and in its modules too (`backbones.state`).

    Args:
        model: any module that torch.export can follow.
        example: one input tensor, or a tuple of inputs, the empty one where all have names; `Data.example` is one. One
            sample is enough.
        kwargs: inputs by name, for a forward pass that takes some so.
        samples: how many samples the example holds, for MACs are those of one. By default found out: the size of the
            first or second dimension, whichever samples stand along (`backbones.samples`).
        sizes: attributes that hold how many channels a layer makes, `{"block.c": "conv1"}`: they are set in pruned
            networks. Those whose value is that of one group alone are found without.
        ignore: globs of module paths (`layer3.*`) whose filters stay.
        only: if given, globs of module paths; all other filters stay.

    Raises:
        SecateurError: when the model does not run on the example, cannot be exported, has NaN weights, a pattern
            matches no module, an attribute of `sizes` holds another number, the number of samples cannot be found out,
            or no channel of the network can be pruned.
    """
    given = example if isinstance(example, (tuple, list)) else (example,)
    inputs = NamedInputs(given, {**named(given), **(kwargs or {})})
    if samples is not None and samples < 1:
        raise SecateurError(f"1 <= samples must hold, but got samples={samples}")
    _check_weights(model)
    modules = [name for name, _ in model.named_modules()]
    for pattern in (*ignore, *only):
        if not fnmatch.filter(modules, pattern):
            raise SecateurError(f"pattern {pattern!r} matches no module; modules are named like {modules[-1]!r}")
    with evaluating(model), untouched(model):
        run(model, inputs)  # what the code keeps between calls is there from now on
        state = State(model)
        live, noisy = nonconstant_weights(model), random_inputs(inputs)
        try:
            with torch.no_grad():
                runs_apart(model, copy_with(model, {id(value): _cloned(value) for value in model.parameters()}), inputs)
            state.restore()
            batch = samples or count_samples(lambda some: eval_output(live, some), noisy)
            state.restore()
            program = export(model, inputs, batch)
        finally:
            state.restore()
        check = partial(PruningCheck, model, live, example=noisy, state=state)
        fixed = Fixed(tuple(ignore), tuple(only), sizes=declared_attributes(model, sizes or {}))
        graph = _verified(model, check, program, inputs, fixed)
    if not graph.groups:
        reasons = "; ".join(
            dict.fromkeys(f"{frozen.layer}: {frozen.reason}" for frozen in sorted(graph.frozen, key=_is_output)[:3])
        )
        raise SecateurError(f"the network has no prunable group ({reasons or 'no layer with filters'})")
    return graph


def check_traced(model: nn.Module, graph: ChannelGraph) -> None:
    """Raises SecateurError unless the graph is of this model as it is: also of its classes and of what its code does.

    The traced operations, run with the model's weights, must give about what the model gives. Code that draws at
    random or holds constants of its own cannot be compared so, and passes; so do weights that are not finite, which
    have an error of their own.
    """
    check_model(model, graph)
    traced = graph.program.tensors
    for path, module in model.named_modules():
        if traced.classes.get(path) != (found := type(module).__name__):
            place = f"layer {path!r}" if path else "the network"
            was = f"{place} a {traced.classes[path]}" if path in traced.classes else f"no {place}"
            raise SecateurError(f"the graph was traced with {was}, in this model it is a {found}; trace the same model")
    strange = [name for name, _ in model.named_parameters() if name not in traced.names]
    if strange:
        raise SecateurError(f"the graph was traced without {strange[0]}, which this model has; trace the same model")
    try:
        with evaluating(model), untouched(model), torch.no_grad():
            example = move_tensors(random_inputs(graph.example), next(model.parameters()).device)
            once = tree_leaves(output_of(model, example))
            replayed = graph.program.replay(model, (tuple(example), named(example)))
            if len(replayed) != len(once) or not relative_difference(replayed, once) > UNEQUAL:
                return
            again = tree_leaves(output_of(model, example))
    except Exception:  # code that cannot be replayed, on another device perhaps
        return
    if relative_difference(again, once) <= UNEQUAL:
        raise SecateurError(
            f"the graph was traced with other code: it gives other outputs than this {type(model).__name__} with the "
            f"same weights; trace the model as it is now"
        )


def _check_weights(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise SecateurError("the model is a TorchScript module; pass the nn.Module it was made from")
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise SecateurError(
                f"layer {path!r} is a TorchScript module; put the nn.Module it was made from in its place"
            )
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            place = f"layer {path!r}" if path else "the model"
            raise SecateurError(f"{place} is wrapped in {type(module).__name__}; pass the network inside: model.module")
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
            raise SecateurError(f"{name} has no shape yet; run the model once on an example")
        if value.is_floating_point() and not is_finite(value):
            raise SecateurError(f"{name} holds NaN or infinite values; every weight must be finite")


def _is_output(record: Frozen) -> bool:
    return record.op == "output"


def _cloned(value: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), value.requires_grad)


def _verified(
    model: nn.Module, check: Callable[..., PruningCheck], program: Program, inputs: tuple[Any, ...], fixed: Fixed
) -> ChannelGraph:
    """The channel graph of which a trial pruning (`check` of it) has found every group to be prunable."""
    heads = HeadAttributes(model)
    while True:
        constraints = Interpreter(program, fixed.literal).run(RULES, {}, ())
        check_size_attributes(constraints, fixed.sizes)
        graph = assemble(constraints, program, inputs, fixed)
        found = heads.begin(graph, constraints)
        if found != fixed.heads:
            fixed = replace(fixed, heads=found)
            graph = assemble(constraints, program, inputs, fixed)
        failed = check(graph=graph).failures() if graph.groups else ()
        if not failed:
            return replace(graph, fixed=replace(fixed, irremovable=check(graph=graph).irremovable()))
        if heads.retry(failed):
            continue
        known = {attribute for attribute, _, _ in fixed.sizes}
        held = tuple(found for found in fitting_attributes(model, graph, failed) if found[0] not in known)
        if held:
            fixed = replace(fixed, sizes=(*fixed.sizes, *held))
            continue
        layers = {record.layer for record in failed}
        filters = [binding.labels for binding in constraints.bindings.values() if owner(binding.tensor) in layers]
        roots = constraints.components()
        broken = {int(root) for labels in filters for root in roots[labels[labels >= 0]]}
        doubtful = {number for number, labels in constraints.assumed if broken & set(roots[labels].tolist())}
        if doubtful - fixed.literal:
            fixed = replace(fixed, literal=fixed.literal | doubtful)
        else:
            fixed = replace(fixed, failed=(*fixed.failed, *failed))
