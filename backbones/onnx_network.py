"""ONNX files run by onnxruntime as a module, and made smaller: 8-bit integers in the place of floats."""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError, first_line
from backbones.exports import export_onnx, onnxruntime
from backbones.files import atomic_write
from backbones.inputs import as_arguments, tensors_in
from backbones.modes import device_of

WEIGHT_DIMENSIONS = 2
"""A constant with so many dimensions and more is a weight, one with fewer a bias or a number."""


class OnnxNetwork(nn.Module):
    """An ONNX file as a module, run by onnxruntime on the CPU, with as many threads as torch has.

    Its outputs are a tensor, or a tuple of several.

    Args:
        path: of the file.

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
        self.names = [entry.name for entry in self.session.get_inputs()]

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
    with tempfile.TemporaryDirectory() as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        floats, prepared = Path(made) / "float.onnx", Path(made) / "prepared.onnx"
        export_onnx(model, floats, example)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # folds batch norms
        options.optimized_model_filepath, options.log_severity_level = str(prepared), 3
        runtime.InferenceSession(str(floats), options, providers=["CPUExecutionProvider"])
        _check_quantisable(prepared)
        with atomic_write(path) as part:
            try:
                quantization.quantize_static(
                    str(prepared),
                    str(part),
                    _Reader([entry.name for entry in OnnxNetwork(floats).session.get_inputs()], calibration),
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
                f"onnxruntime does not quantise {node.op_type} ({node.name or 'without a name'}); export the network in "
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
