"""A network in the formats that other runtimes read, checked by numbers before the file is there."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from backbones.errors import SecateurError, first_line
from backbones.files import atomic_write
from backbones.masked_reference import relative_difference
from backbones.modes import evaluating
from backbones.state import untouched

EXPORT_TOLERANCE = 1e-4
"""Largest relative difference between the exported network's output and the module's."""


def export_program(model: nn.Module, path: str | os.PathLike[str], example: Sequence[Any]) -> float:
    """Writes a `torch.export` program (`.pt2`), reads it back and compares outputs.

    Args:
        model: any module; exported in eval mode.
        path: where the file goes; it is written whole or not at all.
        example: a tuple of inputs.

    Returns:
        the largest relative difference found.

    Raises:
        SecateurError: when the module cannot be exported or the program computes something else.
    """
    with evaluating(model), untouched(model), torch.no_grad(), atomic_write(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = model(*example)
        whole = part.with_name(part.name + ".pt2")  # torch asks for the ending
        try:
            torch.export.save(_exported(model, example), whole)
            found = torch.export.load(whole).module()(*example)
            whole.replace(part)
        finally:
            whole.unlink(missing_ok=True)
        return _checked(found, wanted, "torch.export")


def export_onnx(model: nn.Module, path: str | os.PathLike[str], example: Sequence[Tensor]) -> float:
    """Writes an ONNX file for inputs of the example's shapes, runs it in onnxruntime and compares outputs.

    Args:
        model: any module; exported in eval mode, from the CPU.
        path: where the file goes; it is written whole or not at all.
        example: a tuple of input tensors.

    Returns:
        the largest relative difference found.

    Raises:
        SecateurError: when the onnx packages are missing, the module cannot be exported, or ONNX computes something
            else.
    """
    runtime = _onnxruntime()
    with evaluating(model), untouched(model), torch.no_grad(), atomic_write(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = model(*example)
        program = torch.onnx.export(_exported(model, example), tuple(example), dynamo=True, verbose=False)
        assert program is not None
        part.write_bytes(program.model_proto.SerializeToString())
        session = runtime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        outputs = session.run(None, {name: item.cpu().numpy() for name, item in zip(names, example, strict=True)})
        return _checked([torch.from_numpy(item) for item in outputs], tree_leaves(wanted), "ONNX")


def _exported(model: nn.Module, example: Sequence[Any]) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(model, tuple(example), strict=False)
    except Exception as error:
        raise SecateurError(f"torch.export cannot export the model: {first_line(error)}") from error


def _onnxruntime() -> Any:
    try:
        for name in ("onnx", "onnxscript"):
            importlib.import_module(name)
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise SecateurError(f"ONNX export needs {error.name}; install it with: pip install 'secateur[onnx]'") from None


def _checked(found: Any, wanted: Any, kind: str) -> float:
    gap = relative_difference(found, wanted)
    if not gap <= EXPORT_TOLERANCE:
        raise SecateurError(f"the {kind} program computes something else: relative difference {gap:.2e}")
    return gap
