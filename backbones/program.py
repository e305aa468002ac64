"""The traced forward pass as plain data: one step per ATen operation, with its module and source line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.utils._pytree import tree_leaves, tree_map

from backbones.architectures.resnet_cifar import ZeroPadShortcut
from backbones.multihead import drops_heads

TensorShape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """The value that step number `step` produced."""

    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node of the exported graph.

    Attributes:
        kind: `parameter`, `buffer`, `constant`, `input`, `call` or `output`.
        op: the ATen packet, `aten.conv2d`; for a parameter or buffer its name in the state dict.
        target: what the graph calls, to run it on labels.
        args, kwargs: as in the graph, with `Ref` for values.
        shape: the result's shape; a tuple of shapes for several results, None for what is no tensor.
        modules: paths of the enclosing module calls, outermost first.
        line: `file.py:12: source`, the innermost line outside torch.
    """

    kind: str
    op: str
    target: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: Any
    modules: tuple[str, ...]
    line: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Torch's operators cannot be pickled; they are by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        operator = self.target
        if isinstance(operator, OpOverload):
            values["target"] = (*operator._schema.name.split("::"), operator._overloadname)
        return _read, (values,)

    @property
    def module(self) -> str:
        """The innermost module, empty for the network itself."""
        return self.modules[-1] if self.modules else ""


def _read(values: dict[str, Any]) -> Step:
    """A step as `Step.__reduce__` wrote it."""
    operator = values["target"]
    if isinstance(operator, tuple):
        library, name, overload = operator
        values = {**values, "target": getattr(getattr(getattr(torch.ops, library), name), overload)}
    return Step(**values)


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """The parameters and buffers of the traced model.

    Attributes:
        names: every name -> the first name of the same tensor (tied weights have several).
        shapes: first name -> shape.
        parameters: the first names that are parameters.
        padding: modules whose channel padding surgery can adapt (`ZeroPadShortcut`).
        attention: `nn.MultiheadAttention`, whose heads surgery can drop (`PrunedMultiheadAttention`).
        classes: module path -> class name.
        computed: module path whose weight is no parameter -> what makes it, and what to call first.
    """

    names: Mapping[str, str]
    shapes: Mapping[str, TensorShape]
    parameters: tuple[str, ...]
    padding: frozenset[str]
    attention: frozenset[str]
    classes: Mapping[str, str]
    computed: Mapping[str, str]

    @staticmethod
    def of(model: nn.Module) -> Tensors:
        """Reads them off a model."""
        first: dict[int, str] = {}
        names: dict[str, str] = {}
        shapes: dict[str, TensorShape] = {}
        parameters = [name for name, _ in model.named_parameters()]
        for name, value in [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]:
            names[name] = first.setdefault(id(value), name)
            shapes[names[name]] = tuple(value.shape)
        modules = dict(model.named_modules())
        padding = frozenset(name for name, module in modules.items() if isinstance(module, ZeroPadShortcut))
        attention = frozenset(name for name, module in modules.items() if drops_heads(module))
        classes = {name: type(module).__name__ for name, module in modules.items()}
        computed = {name: cause for name, module in modules.items() if (cause := _maker_of_weight(module))}
        return Tensors(names, shapes, tuple(parameters), padding, attention, classes, computed)


def _maker_of_weight(module: nn.Module) -> str:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            return f"by a mask; call torch.nn.utils.prune.remove(layer, {hook._tensor_name!r}) first"
        for kind in ("weight_norm", "spectral_norm"):
            if type(hook).__module__ == f"torch.nn.utils.{kind}":
                return f"by {kind}; call torch.nn.utils.remove_{kind}(layer) first"
    if is_parametrized(module, "weight"):
        return "by a parametrization; call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') first"
    return ""


@dataclass(frozen=True, eq=False)
class Program:
    """The steps in order; every `Ref` points backwards.

    Attributes:
        steps: the traced operations.
        tensors: the parameters and buffers they use.
        batch: number of samples in the example.
    """

    steps: tuple[Step, ...]
    tensors: Tensors
    batch: int

    @cached_property
    def users(self) -> Mapping[int, tuple[int, ...]]:
        """Step number -> numbers of the steps that read its value."""
        users: dict[int, list[int]] = {}
        for number, step in enumerate(self.steps):
            for ref in references((step.args, step.kwargs)):
                users.setdefault(ref.step, []).append(number)
        return {number: tuple(readers) for number, readers in users.items()}

    @cached_property
    def id(self) -> str:
        """12 hex digits over the operations with their arguments: equal for equal code, whatever the weights hold.

        Another version of torch may make other operations of the same code.
        """
        text = repr([(step.kind, step.op, _plain(step.args), _plain(step.kwargs)) for step in self.steps])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def replay(self, model: nn.Module, inputs: Any) -> list[Any]:
        """What the operations give with the weights that a model has now: its outputs, taken out of their containers.

        Args:
            model: has the tensors that the program names.
            inputs: as the example was, positions and names, all that stands in them.

        Raises:
            LookupError: where the code holds constants, whose values are not kept, or names a tensor that is gone.
        """
        tensors = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
        leaves = iter(tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree_leaves(inputs)))
        values: list[Any] = []
        for step in self.steps:
            args, kwargs = tree_map(
                lambda leaf: values[leaf.step] if isinstance(leaf, Ref) else leaf, (step.args, dict(step.kwargs))
            )
            if step.kind == "output":
                return tree_leaves(args)
            if step.kind == "input":
                values.append(next(leaves))
            elif step.kind == "call" and step.target is not None:
                values.append(step.target(*args, **kwargs))
            else:
                tensor = tensors[step.op]
                values.append(tensor.clone() if step.kind == "buffer" else tensor)
        raise LookupError("the program has no output")


def _plain(value: Any) -> Any:
    """An argument of a step as text that is equal wherever the code is."""
    if isinstance(value, Ref):
        return f"#{value.step}"
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return sorted((str(key), _plain(item)) for key, item in value.items())
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    written = (
        isinstance(value, (bool, int, float, str, torch.dtype, torch.memory_format, torch.layout)) or value is None
    )
    return repr(value) if written else type(value).__name__


def references(value: Any) -> list[Ref]:
    """All `Ref`s inside nested tuples, lists and dicts."""
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, (tuple, list)):
        return [ref for item in value for ref in references(item)]
    if isinstance(value, Mapping):
        return [ref for item in value.values() for ref in references(item)]
    return []
