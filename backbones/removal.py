"""Whole layers replaced by the identity: which can be, and what that does to the channel graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from backbones.arguments import explained
from backbones.assemble import assemble
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Index
from backbones.interpret import Interpreter
from backbones.program import Program, references
from backbones.rules import RULES
from backbones.structure import Structure, keep_mask

NORMALISATIONS = frozenset(["batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"])


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """A channel graph with some modules replaced by the identity, derived without a new export.

    Attributes:
        graph: the coupling that is left.
        modules: every module replaced (a removed convolution takes its normalisation along).
        sources: per group of `graph`, the (size, copies) channel units of the original graph that became its channels.
        original: the graph it was derived from.
    """

    graph: ChannelGraph
    modules: tuple[str, ...]
    sources: Mapping[str, tuple[Index, ...]]
    original: ChannelGraph

    def translate(self, structure: Structure) -> Structure:
        """A structure of the original graph as one of the reduced graph.

        Raises:
            SecateurError: when groups that the removal unites keep different channels.
        """
        mask = keep_mask(self.original, structure)
        kept = {}
        for name, sources in self.sources.items():
            agreed = mask[sources[0]]
            for other in sources[1:]:
                if not np.array_equal(mask[other], agreed):
                    raise SecateurError(
                        f"removing {', '.join(self.modules)} unites the channels of {_owners(self, sources)}; "
                        "they must keep equal indices"
                    )
            kept[name] = np.flatnonzero(agreed).tolist()
        return Structure.of(self.graph, kept)


@explained
def removable(graph: ChannelGraph) -> Mapping[str, tuple[str, ...]]:
    """The layers that can be replaced by the identity.

    A module qualifies when it has weights, one tensor in and one of the same shape out: a residual block, a
    convolution of equal width and stride 1. A layer directly followed by normalisation takes it along. Left out are
    those that a trial at trace time found the code not to do without, in training maybe (`Fixed.irremovable`).

    Returns:
        module path -> all modules that go with it (itself first), outermost modules before inner ones.
    """
    held = {record.layer for record in graph.fixed.irremovable}
    return {path: modules for path, modules in _removable(graph.program).items() if path not in held}


def residual_blocks(graph: ChannelGraph) -> tuple[str, ...]:
    """The removable modules that add something to their own input, innermost only: without one its input goes on.

    A module that is only such a summand (the `block` of `x + self.block(x)`) is none: in its place the identity would
    double the input.
    """
    steps, found = graph.program.steps, []
    for path, modules in removable(graph).items():
        bypass = _bypass(graph.program, modules)
        assert not isinstance(bypass, str)
        [(result, source)] = bypass[0].items()
        sums = (steps[number] for number in (*bypass[1], result) if steps[number].op.startswith("aten.add"))
        if any(ref.step == source for step in sums for ref in references((step.args, step.kwargs))):
            found.append(path)
    return tuple(path for path in found if not any(other.startswith(path + ".") for other in found))


@lru_cache(maxsize=64)
def _removable(program: Program) -> Mapping[str, tuple[str, ...]]:
    weighted = {program.tensors.names[name].rpartition(".")[0] for name in program.tensors.parameters}
    paths = dict.fromkeys(path for step in program.steps if step.kind == "call" for path in step.modules)
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        if not any(layer == path or layer.startswith(path + ".") for layer in weighted):
            continue
        if _is_norm(program, path):
            continue
        modules = (path, *_norms_behind(program, path))
        if not isinstance(_bypass(program, modules), str):
            found[path] = modules
    return found


def _is_norm(program: Program, path: str) -> bool:
    ops = {step.op.removeprefix("aten.") for step in program.steps if step.kind == "call" and step.module == path}
    return bool(ops) and ops <= NORMALISATIONS


def _norms_behind(program: Program, path: str) -> tuple[str, ...]:
    """The normalisation module that alone reads a plain layer's output."""
    inside = [n for n, step in enumerate(program.steps) if step.kind == "call" and step.module == path]
    readers = program.users.get(inside[-1], ()) if inside else ()
    if len(readers) == 1 and _is_norm(program, program.steps[readers[0]].module):
        return (program.steps[readers[0]].module,)
    return ()


@lru_cache(maxsize=256)
def _reduce(graph: ChannelGraph, removed: tuple[str, ...]) -> Reduction:
    known = removable(graph)
    for path in removed:
        if path not in known:
            held = {record.layer: record.reason for record in graph.fixed.irremovable}
            why = held.get(path) or _bypass(graph.program, (path,))
            reason = why if isinstance(why, str) else "it has no weights"
            raise SecateurError(f"layer {path!r} cannot be removed: {reason}")
    modules = tuple(dict.fromkeys(module for path in removed for module in known[path]))
    bypass, skip = _bypass_all(graph.program, modules)
    constraints = Interpreter(graph.program, graph.fixed.literal).run(RULES, bypass, skip)
    smaller = assemble(constraints, graph.program, graph.example, graph.fixed, modules)
    return Reduction(smaller, modules, _sources(graph, smaller), graph)


def reduced(graph: ChannelGraph, removed: Sequence[str]) -> Reduction:
    """The graph with layers removed (cached).

    Raises:
        SecateurError: for a layer that cannot be removed, with the reason.
    """
    return _reduce(graph, tuple(sorted(removed)))


def _sources(graph: ChannelGraph, smaller: ChannelGraph) -> dict[str, tuple[Index, ...]]:
    sources = {}
    for group in smaller.groups:
        rows: dict[bytes, Index] = {}
        for member in group.members:
            units = graph.tensors[member.tensor].units.get(member.dim) if member.tensor in graph.tensors else None
            if units is not None:
                for column in member.index.T:
                    rows.setdefault(units[column].tobytes(), units[column])
        sources[group.name] = tuple(rows.values())
    return sources


def _owners(reduction: Reduction, sources: Sequence[Index]) -> str:
    starts = np.array(list(reduction.original.offsets.values()))
    names = list(reduction.original.offsets)
    owners = {
        names[int(np.searchsorted(starts, unit, side="right")) - 1] for row in sources for unit in row if unit >= 0
    }
    return " and ".join(sorted(owners))


def _bypass_all(program: Program, modules: Sequence[str]) -> tuple[dict[int, int], set[int]]:
    bypass: dict[int, int] = {}
    skip: set[int] = set()
    for module in modules:
        found = _bypass(program, (module,))
        assert not isinstance(found, str)
        bypass.update(found[0])
        skip |= found[1]
    return bypass, skip - set(bypass)


def _bypass(program: Program, modules: tuple[str, ...]) -> tuple[dict[int, int], set[int]] | str:
    """How to bypass modules: (result step -> step it takes its value from, steps to skip), or why it cannot be done."""
    inside = {
        number
        for number, step in enumerate(program.steps)
        if step.kind == "call"
        and any(path == module or path.startswith(module + ".") for path in step.modules for module in modules)
    }
    if not inside:
        return "the forward pass never calls it"
    sources = {
        ref.step
        for number in inside
        for ref in references((program.steps[number].args, program.steps[number].kwargs))
        if ref.step not in inside and program.steps[ref.step].kind in ("input", "call")
    }
    results = {number for number in inside if any(user not in inside for user in program.users.get(number, ()))}
    if len(sources) != 1 or len(results) != 1:
        return f"it has {len(sources)} tensor inputs and {len(results)} outputs, not one of each"
    source, result = sources.pop(), results.pop()
    if program.steps[source].shape != program.steps[result].shape:
        return (
            f"its output {program.steps[result].shape} has another shape than its input {program.steps[source].shape}"
        )
    return {result: source}, inside - {result}
