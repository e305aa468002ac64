"""Which layers of a network can be refitted, what stands behind each, and why the others stay as cut."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod

from torch import nn

from backbones.graph import ChannelGraph
from backbones.program import Program, Ref

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
REFITTABLE = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
RECTIFIERS = ("aten.relu", "aten.relu_")
SUMS = ("aten.add", "aten.add_")


@dataclass(frozen=True, slots=True)
class RefitLayer:
    """A layer whose weight is solved for.

    Attributes:
        path: of its module.
        centred: whether a constant per output does not matter: a bias takes it up, or the batch norm behind.
        norm: path of the batch norm that alone reads the layer, or None.
        summed: whether an addition alone reads what the layer (and its norm) gives, as at the end of a residual branch;
            then the layer also makes up for what the other summand has lost.
        rectified: whether a ReLU alone reads that, or the sum.
    """

    path: str
    centred: bool
    norm: str | None = None
    summed: bool = False
    rectified: bool = False

    @property
    def end(self) -> str:
        """The module whose output is fitted: the norm where there is one."""
        return self.norm or self.path


def refit_layers(model: nn.Module, graph: ChannelGraph) -> tuple[dict[str, RefitLayer], dict[str, str]]:
    """The layers that can be refitted, and the reasons of those that cannot.

    Args:
        model: the traced network.
        graph: of `trace`.

    Returns:
        module path -> layer, and module path -> reason, over all layers with a weight of two or more dimensions.
    """
    names, shapes = graph.program.tensors.names, graph.program.tensors.shapes
    owners = Counter(
        names[f"{path}.weight"]
        for path, module in model.named_modules(remove_duplicate=False)
        if f"{path}.weight" in names and "weight" in module._parameters
    )
    found: dict[str, RefitLayer] = {}
    left: dict[str, str] = {}
    sums: dict[int, list[str]] = {}
    for path in graph.layers:
        own = [name for name in graph.program.tensors.parameters if name.rpartition(".")[0] == path]
        if not any(len(shapes[name]) >= 2 for name in own):
            continue
        module = model.get_submodule(path)
        calls = _readers(graph.program, f"{path}.weight")
        reason = _refusal(module, owners[names.get(f"{path}.weight", "")], calls)
        if reason is not None:
            left[path] = reason
            continue
        found[path], addition = _layer(graph.program, path, module, calls[0])
        if addition is not None:
            sums.setdefault(addition, []).append(path)
    for rivals in sums.values():  # one summand makes up for the other, the one with more weights to do so
        for path in sorted(rivals, key=lambda path: -prod(shapes[names[f"{path}.weight"]]))[1:]:
            found[path] = replace(found[path], summed=False, rectified=False)
    return found, left


def _readers(program: Program, tensor: str) -> list[int]:
    """The steps that read a parameter, under whatever name."""
    first = program.tensors.names.get(tensor)
    return [
        user
        for number, step in enumerate(program.steps)
        if step.kind == "parameter" and first is not None and program.tensors.names.get(step.op) == first
        for user in program.users.get(number, ())
    ]


def _refusal(module: nn.Module, owners: int, calls: list[int]) -> str | None:
    kind = next((kind for kind in REFITTABLE if isinstance(module, kind)), None)
    if kind is None:
        return f"{type(module).__name__} is not refitted"
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "its weight is computed"
    if type(module).forward is not kind.forward or "forward" in vars(module):
        return f"{type(module).__name__} has a forward of its own"
    if not module.weight.requires_grad:
        return "its weight is frozen (requires_grad=False)"
    if owners > 1:
        return "its weight is shared with another layer"
    if len(calls) != 1:
        return "it is called several times" if calls else "the forward pass never calls it"
    return None


def _layer(program: Program, path: str, module: nn.Module, call: int) -> tuple[RefitLayer, int | None]:
    """The layer, and the step of the addition that alone reads it."""
    norm = _only_reader(program, call, ("aten.batch_norm",))
    norm_path = None if norm is None else _norm_path(program, norm)
    behind = norm if norm is not None and norm_path is not None else call
    addition = _only_reader(program, behind, SUMS)
    behind = behind if addition is None else addition
    rectified = _only_reader(program, behind, RECTIFIERS) is not None
    centred = isinstance(module.bias, nn.Parameter) or norm_path is not None
    return RefitLayer(path, centred, norm_path, addition is not None, rectified), addition


def _only_reader(program: Program, number: int, ops: tuple[str, ...]) -> int | None:
    """The one step that reads a value, if it is one of these operations on it."""
    readers = program.users.get(number, ())
    if len(readers) != 1 or program.steps[readers[0]].op not in ops:
        return None
    places = program.steps[readers[0]].args[: 2 if ops is SUMS else 1]
    return readers[0] if list(places).count(Ref(number)) == 1 else None


def _norm_path(program: Program, number: int) -> str | None:
    """The module of a batch norm's running mean; None when it keeps no statistics."""
    step = program.steps[number]
    mean = step.args[3] if len(step.args) > 3 else None
    if not isinstance(mean, Ref) or program.steps[mean.step].kind != "buffer":
        return None
    return program.steps[mean.step].op.rpartition(".")[0]
