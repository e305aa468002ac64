"""From a module to a program, through `torch.export`."""

from __future__ import annotations

import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from backbones.errors import SecateurError, first_line, source_line
from backbones.inputs import named, output_of, without_dataclasses
from backbones.program import Program, Ref, Step, Tensors

WRAPPERS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Blocks under `torch.no_grad` and `torch.autocast` -> position of their body among the arguments: read as if plain."""


def export(model: nn.Module, example: Sequence[Any], batch: int) -> Program:
    """Traces a model on `batch` samples in the mode it is in, through `torch.export` (non-strict).

    Raises:
        SecateurError: when torch.export cannot follow the code; the line names the offending source line.
    """
    try:
        with exporting_quietly():
            exported = exported_program(model, example)
    except Exception as error:
        raise SecateurError(
            f"torch.export cannot trace the model: {first_line(error)}{_where(error)}{_hint(error)}"
        ) from error
    reader = _Reader(exported)
    reader.read(exported.graph_module, {})
    return Program(tuple(reader.steps), Tensors.of(model), batch)


def exported_program(
    model: nn.Module, example: Sequence[Any], dynamic_shapes: Any = None
) -> torch.export.ExportedProgram:
    """What `torch.export` makes of a model; of a dataclass that the model returns, a dictionary of its tensors."""
    hook = model.register_forward_hook(lambda module, inputs, output: without_dataclasses(output))
    try:
        return torch.export.export(model, tuple(example), named(example), dynamic_shapes=dynamic_shapes, strict=False)
    finally:
        hook.remove()


@contextmanager
def exporting_quietly() -> Iterator[None]:
    """Nothing is printed, logged or warned of inside the block: the exporter writes pages around each failure."""
    level, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def run(model: nn.Module, example: Sequence[Any]) -> None:
    """Runs the example in the mode the model is in, without gradients.

    Raises:
        SecateurError: when it does not run; the line names the offending source line.
    """
    try:
        with torch.no_grad():
            output_of(model, example)
    except Exception as error:
        raise SecateurError(
            f"the model does not run on the example {_describe(example)}: {first_line(error)}{_where(error)}"
        ) from error


@dataclass
class _Reader:
    """Appends the nodes of a graph, and of the graphs wrapped inside it, as steps."""

    exported: torch.export.ExportedProgram
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        signature = self.exported.graph_signature
        self.names = {
            **{name: ("parameter", target) for name, target in signature.inputs_to_parameters.items()},
            **{name: ("buffer", target) for name, target in signature.inputs_to_buffers.items()},
            **{name: ("constant", name) for name in signature.inputs_to_lifted_tensor_constants},
            **{name: ("constant", name) for name in signature.inputs_to_lifted_custom_objs},
        }

    def read(self, module: torch.fx.GraphModule, values: dict[torch.fx.Node, Any], *, outer: bool = True) -> Any:
        """Reads one graph; `values` maps its placeholders. Returns what its output node refers to."""
        for node in module.graph.nodes:
            args, kwargs = _filled((node.args, node.kwargs), values)
            body = self._body(module, node)
            if node.op == "output" and not outer:
                return args[0]
            if node.op == "placeholder" and node in values:
                continue
            if _is_assertion(node):
                continue
            if body is not None:
                start = WRAPPERS[node.target.__name__]
                inputs = [found for found in body.graph.nodes if found.op == "placeholder"]
                results = self.read(body, dict(zip(inputs, args[start + 1 :], strict=True)), outer=False)
                values[node] = results
            elif getattr(node.target, "__name__", "") == "getitem" and isinstance(args[0], (tuple, list)):
                values[node] = args[0][args[1]]
            else:
                values[node] = Ref(len(self.steps))
                self.steps.append(self._step(node, args, kwargs))
        return None

    def _body(self, module: torch.fx.GraphModule, node: torch.fx.Node) -> torch.fx.GraphModule | None:
        name = getattr(node.target, "__name__", "")
        if node.op != "call_function" or name not in WRAPPERS:
            return None
        source = node.args[WRAPPERS[name]]
        assert isinstance(source, torch.fx.Node)
        body = getattr(module, str(source.target))
        assert isinstance(body, torch.fx.GraphModule)
        return body

    def _step(self, node: torch.fx.Node, args: Any, kwargs: Any) -> Step:
        target = node.target if callable(node.target) else None
        if node.op == "placeholder":
            kind, op = self.names.get(node.name, ("input", node.name))
        elif node.op == "call_function":
            packet = getattr(target, "overloadpacket", None)
            kind, op = "call", str(packet) if packet is not None else getattr(target, "__name__", str(target))
        else:
            kind, op = ("output" if node.op == "output" else "constant"), node.name
        shape = _shape(node.meta.get("val"))
        return Step(kind, op, target, tuple(args), dict(kwargs), shape, _modules(node), _line(node))


def _is_assertion(node: torch.fx.Node) -> bool:
    """Whether a node only checks something, such as the type that a cast begins from."""
    name = getattr(node.target, "__name__", "")
    return node.op == "call_function" and name.startswith(("_assert", "sym_constrain_range", "_check"))


def _filled(value: Any, values: Mapping[torch.fx.Node, Any]) -> Any:
    """Graph arguments as plain values: nodes become what they stand for, immutable lists and dicts plain ones."""
    if isinstance(value, torch.fx.Node):
        return values[value]
    if isinstance(value, tuple):
        return tuple(_filled(item, values) for item in value)
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return value


def _shape(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(int(size) for size in value.shape)
    if isinstance(value, (tuple, list)):
        return tuple(_shape(item) for item in value)
    return None


def _modules(node: torch.fx.Node) -> tuple[str, ...]:
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(re.sub(r"@\d+", "", str(path)) for path, _ in stack.values() if path)


_FRAME = re.compile(r'File "([^"]+)", line (\d+), in \S+\s*\n\s*(.*)')


def _line(node: torch.fx.Node) -> str:
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/nn/" not in frame[0] and "/torch/_" not in frame[0]]
    if not (own or frames):
        return ""
    path, number, source = (own or frames)[-1]
    return f"{path.rpartition('/')[2]}:{number}: {source.strip()}"


def _where(error: BaseException) -> str:
    found = source_line(error)
    return f" (at {found})" if found else ""


def _hint(error: BaseException) -> str:
    frames = [frame.f_locals.values() for frame, _ in traceback.walk_tb(error.__traceback__)]
    packed = any(isinstance(value, PackedSequence) for values in frames for value in values)
    return "; the sizes of packed sequences depend on values: give the layer padded ones" if packed else ""


def _describe(example: Sequence[Any]) -> str:
    inputs = [*(("", item) for item in example), *((f"{name}=", item) for name, item in named(example).items())]
    return ", ".join(
        f"{name}{f'tensor{tuple(item.shape)}' if isinstance(item, torch.Tensor) else type(item).__name__}"
        for name, item in inputs
    )
