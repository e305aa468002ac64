"""ONNX files run by onnxruntime as a module, and made smaller: 8-bit integers in the place of floats."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones.errors import SecateurError, check_name, first_line
from backbones.export_program import exporting_quietly
from backbones.exports import export_onnx, onnxruntime
from backbones.files import atomic_write
from backbones.inputs import as_arguments, output_of, tensors_in
from backbones.modes import evaluating

ENGINES = ("eager", "compiled", "onnxruntime")
"""What can run a network: torch as it is, code of `torch.compile`, onnxruntime."""
WEIGHT_DIMENSIONS = 2
"""A constant with so many dimensions and more is a weight, one with fewer a bias or a number."""


class OnnxNetwork(nn.Module):
    """An ONNX file as a module, run by onnxruntime on the CPU, with as many threads as torch has.

    Its outputs are a tensor, or a tuple of several.

    Args:
        path: of the file.

    Attributes:
        samples: how many it takes at a time; None for any number.

    Raises:
        SecateurError: without onnxruntime, and for a file that it cannot run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise SecateurError(f"onnxruntime cannot run {path}: {first_line(error)}") from None
        entries = self.session.get_inputs()
        self.names = [entry.name for entry in entries]
        first = next((entry.shape[0] for entry in entries if entry.shape), None)
        self.samples = first if isinstance(first, int) else None

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Runs the file on the tensors among the inputs, in order."""
        arrays = [item.detach().cpu().numpy() for item in tensors_in([inputs, named])]
        outputs = [
            torch.from_numpy(item) for item in self.session.run(None, dict(zip(self.names, arrays, strict=True)))
        ]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def export_onnx_int8(
    model: nn.Module, path: str | os.PathLike[str], example: Sequence[Any], calibration: Sequence[Any]
) -> None:
    """Writes an ONNX file whose layers compute with 8-bit integers, by onnxruntime's static quantisation.

    Weights have a scale for every output channel; activations one scale, from what they reach on the calibration
    samples. How accurate that is only a measurement tells: run `OnnxNetwork(path)` on the data.

    Args:
        model: any module; exported in eval mode.
        path: where the file goes; it is written whole or not at all.
        example: a tuple of inputs, such as `graph.example`.
        calibration: batches of inputs as the network takes them, some hundred samples of the training data.

    Raises:
        SecateurError: as `export_onnx`; without calibration samples; for a network with a layer that onnxruntime does
            not quantise, by the name of its operation.
    """
    runtime = onnxruntime()
    if not calibration:
        raise SecateurError("calibration: at least one batch of inputs is needed, but got none")
    quantization = importlib.import_module("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as made:
        floats, prepared = Path(made) / "float.onnx", Path(made) / "prepared.onnx"
        export_onnx(model, floats, example)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # folds batch norms
        options.optimized_model_filepath, options.log_severity_level = str(prepared), 3
        runtime.InferenceSession(str(floats), options, providers=["CPUExecutionProvider"])
        _check_quantisable(prepared)
        with atomic_write(path) as part:
            try:
                with exporting_quietly():
                    quantization.quantize_static(
                        str(prepared),
                        str(part),
                        _Reader(OnnxNetwork(floats).names, calibration),
                        per_channel=True,
                        activation_type=quantization.QuantType.QUInt8,
                        weight_type=quantization.QuantType.QInt8,
                    )
            except Exception as error:
                raise SecateurError(f"onnxruntime cannot quantise the network: {first_line(error)}") from None
            OnnxNetwork(part)


def _check_quantisable(path: Path) -> None:
    """Raises SecateurError for a layer with weights that would stay in floats, naming its operation."""
    onnx = importlib.import_module("onnx")
    registry = importlib.import_module("onnxruntime.quantization.registry")
    graph = onnx.load(path).graph
    weights = {one.name for one in graph.initializer if len(one.dims) >= WEIGHT_DIMENSIONS}
    layers = [node for node in graph.node if weights & set(node.input)]
    for node in layers:
        if node.op_type not in registry.QDQRegistry:
            raise SecateurError(
                f"onnxruntime does not quantise {node.op_type} ({node.name or 'unnamed'}); export the network in "
                "floats: export_onnx, or --to onnx"
            )
    if not layers:
        kinds = sorted({node.op_type for node in graph.node})
        raise SecateurError(f"the network has no weights that onnxruntime quantises, only {', '.join(kinds)}")


class _Reader:
    """Calibration batches, in the form that onnxruntime asks for."""

    def __init__(self, names: Sequence[str], batches: Sequence[Any]) -> None:
        self._rows: Iterator[dict[str, Any]] = (
            dict(zip(names, [item.cpu().numpy() for item in tensors_in(as_arguments(batch))], strict=True))
            for batch in batches
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None at the end."""
        return next(self._rows, None)


def on_engine(model: nn.Module, engine: str, example: Sequence[Any]) -> nn.Module:
    """A module that computes the same in evaluation mode by another engine.

    Args:
        model: the network; left as it was.
        engine: one of `ENGINES`.
        example: a tuple of inputs of the size that will be run.

    Raises:
        SecateurError: for an unknown engine, and where the engine cannot take the network or is not there.
    """
    check_name("engine", engine, ENGINES)
    if engine == "eager":
        return model
    if engine == "onnxruntime":
        with tempfile.TemporaryDirectory() as made:
            export_onnx(model, Path(made) / "net.onnx", example, dynamic_batch=False)
            return OnnxNetwork(Path(made) / "net.onnx")
    compile_: Any = torch.compile  # torch's annotations lack isolate_recompiles
    # One shape, and a cache of its own: of networks that share a forward torch compiles eight forms, and no more.
    compiled: nn.Module = compile_(model, dynamic=False, isolate_recompiles=True)
    try:
        with evaluating(model), torch.no_grad(), exporting_quietly():
            output_of(compiled, example)
    except Exception as error:
        raise SecateurError(f"torch.compile cannot compile the network: {first_line(error)}") from None
    return compiled
