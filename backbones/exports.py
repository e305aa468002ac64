"""A network in the formats that other runtimes read, checked by numbers before the file is there."""

from __future__ import annotations

import importlib
import inspect
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from backbones.arguments import explained
from backbones.errors import SecateurError, first_line
from backbones.export_program import exported_program, exporting_quietly
from backbones.files import atomic_write
from backbones.inputs import NamedInputs, named, output_of, sample_count, tensors_in
from backbones.masked_reference import relative_difference
from backbones.modes import evaluating
from backbones.state import untouched

EXPORT_TOLERANCE = 1e-4
"""Largest relative difference between the exported network's output and the module's."""


@explained
def export_program(model: nn.Module, path: str | os.PathLike[str], example: Sequence[Any]) -> float:
    """Writes a `torch.export` program (`.pt2`), reads it back and compares outputs.

    The program takes any number of samples along the first dimension, where the network's code does; else as many as
    the example has.

    Args:
        model: any module; exported in eval mode.
        path: where the file goes; it is written whole or not at all.
        example: a tuple of inputs, such as `graph.example`.

    Returns:
        the largest relative difference found.

    Raises:
        SecateurError: when the module cannot be exported or the program computes something else.
    """
    with evaluating(model), untouched(model), torch.no_grad(), atomic_write(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = part.with_name(part.name + ".pt2")  # torch asks for the ending
        try:
            exported = _exported(model, example)
            torch.export.save(exported.program, whole)
            loaded = torch.export.load(whole).module()
            whole.replace(part)
        finally:
            whole.unlink(missing_ok=True)
        return max(
            _checked(output_of(loaded, some), output_of(model, some), "torch.export") for some in exported.examples
        )


@explained
def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Sequence[Any],
    *,
    dynamic_batch: bool = True,
    names: Sequence[str] | None = None,
) -> float:
    """Writes an ONNX file, runs it in onnxruntime and compares outputs.

    The file takes any number of samples along the first dimension, where the network's code does; else as many as the
    example has. Inputs inside dictionaries and lists become inputs of the file, one a tensor.

    Args:
        model: any module; exported in eval mode, from the CPU.
        path: where the file goes; it is written whole or not at all.
        example: a tuple of inputs, such as `graph.example`.
        dynamic_batch: any number of samples; False for as many as the example has, which some runtimes need.
        names: of the file's inputs, in order; those of the network's code by default.

    Returns:
        the largest relative difference found, over two numbers of samples where it takes any.

    Raises:
        SecateurError: when the onnx packages are missing, the module cannot be exported, or ONNX computes something
            else; for another number of names than inputs, and for several inputs of which the code names none.
    """
    runtime = onnxruntime()
    named_inputs = _input_names(model, example, names)
    with evaluating(model), untouched(model), torch.no_grad(), atomic_write(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = _exported(model, example, dynamic=dynamic_batch)
        with exporting_quietly():
            program = torch.onnx.export(exported.program, input_names=named_inputs, dynamo=True, verbose=False)
        assert program is not None
        part.write_bytes(_with_batch_named(program.model_proto).SerializeToString())
        session = runtime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        entries = [entry.name for entry in session.get_inputs()]
        gaps = []
        for some in exported.examples:
            inputs = [item.cpu().numpy() for item in tensors_in(some)]
            outputs = session.run(None, dict(zip(entries, inputs, strict=True)))
            wanted = tensors_in(output_of(model, some))
            gaps.append(_checked([torch.from_numpy(item) for item in outputs], wanted, "ONNX"))
        return max(gaps)


def _input_names(model: nn.Module, example: Sequence[Any], names: Sequence[str] | None) -> list[str] | None:
    count = len(tensors_in(NamedInputs(example, named(example))))
    if names is not None:
        if len(names) != count or len(set(names)) != count:
            raise SecateurError(f"names: {count} different ones are needed, one an input, but got {list(names)}")
        return list(names)
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    if count > 1 and inspect.Parameter.VAR_POSITIONAL in kinds and len(example) >= len(kinds):
        raise SecateurError(f"the network takes {count} inputs that its code does not name; give names=[...], one each")
    return None


def _with_batch_named(model: Any) -> Any:
    """The ONNX model with "batch" for the symbol that torch makes up for the number of samples."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    sizes = [dim for value in values for dim in value.type.tensor_type.shape.dim if dim.dim_param]
    symbol = sizes[0].dim_param if sizes else ""
    for dim in sizes:
        dim.dim_param = dim.dim_param.replace(symbol, "batch")
    return model


@dataclass(frozen=True, slots=True, eq=False)
class _Exported:
    """A program, and the inputs to hold it to: another number of samples too, where the program takes any."""

    program: torch.export.ExportedProgram
    examples: tuple[tuple[Any, ...], ...]


def _exported(model: nn.Module, example: Sequence[Any], *, dynamic: bool = True) -> _Exported:
    """Exported for any number of samples where that is wanted and gives what the network gives, else the example's."""
    inputs = NamedInputs(example, named(example))
    more = _repeated(inputs) if dynamic else None
    if more is not None:
        try:
            program = _program(model, more, dynamic=True)
            found = relative_difference(output_of(program.module(), inputs), output_of(model, inputs))
            if found <= EXPORT_TOLERANCE:
                return _Exported(program, (inputs, more))
        except Exception:  # code that knows its batch: the export below says what else is wrong
            pass
    try:
        return _Exported(_program(model, inputs, dynamic=False), (inputs,))
    except Exception as error:
        raise SecateurError(f"torch.export cannot export the model: {first_line(error)}") from error


def _program(model: nn.Module, inputs: NamedInputs, *, dynamic: bool) -> torch.export.ExportedProgram:
    shapes = None
    if dynamic:
        size, batch = sample_count(inputs), torch.export.Dim("batch")

        def shape(item: Any) -> Any:
            return {0: batch} if isinstance(item, Tensor) and item.ndim and item.shape[0] == size else None

        shapes = tree_map(shape, [*inputs, *inputs.named.values()])
    with untouched(model), exporting_quietly():
        output_of(model, inputs)  # so that what the code keeps between calls is real by then
        return exported_program(model, inputs, shapes)


def _repeated(inputs: NamedInputs) -> NamedInputs | None:
    """The samples of the inputs three times over; None without any."""
    size = sample_count(inputs)

    def repeat(item: Any) -> Any:
        return torch.cat([item] * 3) if isinstance(item, Tensor) and item.ndim and item.shape[0] == size else item

    return tree_map(repeat, inputs) if size else None


def onnxruntime() -> Any:
    """The package.

    Raises:
        SecateurError: when it, or another that ONNX files are written with, is missing.
    """
    try:
        for name in ("onnx", "onnxscript"):
            importlib.import_module(name)
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise SecateurError(
            f"ONNX needs {error.name}; install it with: pip install onnx onnxruntime onnxscript"
        ) from None


def _checked(found: Any, wanted: Any, kind: str) -> float:
    gap = relative_difference(found, wanted)
    if not gap <= EXPORT_TOLERANCE:
        raise SecateurError(f"the {kind} program computes something else: relative difference {gap:.2e}")
    return gap
