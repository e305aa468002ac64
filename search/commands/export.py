"""`secateur export`: the network of a run in a format that other runtimes read, compared with the module."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import nn

from backbones.artefact import load as load_artefact
from backbones.errors import SecateurError
from backbones.exports import export_onnx, export_program
from backbones.inputs import first_samples, split_samples
from backbones.onnx_network import OnnxNetwork, export_onnx_int8
from search.commands.options import FOLDERS, add_path, add_run
from search.data.data import Data
from search.formatting import byte_size, text_table
from search.review.footprint import footprints
from search.run.console import Console
from search.run.folder import RunFolder, find_run
from search.run.inputs import load_run_inputs
from search.training.metrics import measure

SUMMARY = "export the network of a run: ONNX, 8-bit ONNX, torch program"
EXPORT_ENDINGS = {"onnx": ".onnx", "program": ".pt2", "onnx-int8": ".int8.onnx"}
"""Format -> ending of its file."""
CALIBRATION, CALIBRATED_AT_ONCE = 256, 32
"""Training samples that scales of 8-bit numbers are found on, and how many of them at a time."""
DESCRIPTION = """\
Writes the best network of a run in a format that other runtimes read, for any
number of samples where its code allows that, and compares outputs with the
module's before the file is there:

  onnx       32-bit floats, for onnxruntime and others
  onnx-int8  8-bit integers, by onnxruntime's static quantisation, its scales
             found on training samples; a network with a layer that cannot be
             quantised is refused with its operation
  program    of torch.export (.pt2)

ONNX files are then measured beside the module, in onnxruntime on the CPU: the
task's metric on the test split, milliseconds of one sample, bytes.

  secateur export runs/digits --to onnx
  secateur export runs/digits --to onnx-int8 -o small.onnx"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_run(parser)
    parser.add_argument("--to", choices=tuple(EXPORT_ENDINGS), default="onnx", help="the format (onnx)")
    add_path(parser, "--output", "-o", offers=FOLDERS, metavar="FILE", help="where to (the run folder)")


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Writes the file and measures it."""
    folder, study = find_run(arguments.run)
    source = exportable(folder)
    path = arguments.output or source.with_suffix(EXPORT_ENDINGS[arguments.to])
    if not path.parent.is_dir():
        raise SecateurError(f"--output {path}: the folder {path.parent} does not exist")
    inputs = load_run_inputs(study, folder, "cpu")
    model, example = load_artefact(source, inputs.model).cpu().eval(), inputs.graph.example
    found: dict[str, Any] = {"file": str(path), "format": arguments.to}
    if arguments.to == "onnx-int8":
        samples = inputs.data.batch(min(CALIBRATION, len(inputs.data.train)), study.seed)[0]
        export_onnx_int8(model, path, example, split_samples(samples, CALIBRATED_AT_ONCE))
    else:
        export = export_onnx if arguments.to == "onnx" else export_program
        found["difference"] = export(model, path, example)
        console.say(f"largest relative difference from the module: {found['difference']:.1e}")
    if arguments.to != "program":
        found |= _measured(model, path, inputs.data, console)
    folder.note(exports=folder.record().get("exports", {}) | {path.name: found})
    console.result(f"wrote {path}")
    return found


def exportable(folder: RunFolder) -> Path:
    """The best network of a run: retrained, or else refitted.

    Raises:
        SecateurError: when the run has none yet.
    """
    for path in (folder.best, folder.refitted):
        if path.is_file():
            return path
    raise SecateurError(f"{folder.shown} has no network yet; secateur resume {folder.shown} makes one")


def _measured(model: nn.Module, path: Path, data: Data, console: Console) -> dict[str, Any]:
    """The metric on the test split, seconds of one sample and bytes: of the module and the file."""
    networks: dict[str, nn.Module] = {"module": model, path.name: OnnxNetwork(path)}
    sample = first_samples(next(data.batches("test", 1))[0], 1)
    speed = footprints(networks, sample)
    metric = data.task.spec
    figures = {
        name: measure(network, data, "test", batch_size=getattr(network, "samples", None))
        for name, network in networks.items()
    }
    sizes = {"module": speed["module"].disk, path.name: path.stat().st_size}
    rows = [
        (name, metric.text(figures[name]), f"{1e3 * speed[name].latency:.3g}", byte_size(sizes[name]))
        for name in networks
    ]
    console.say(text_table(("", f"test {metric.heading}", "ms, one sample", "size"), rows))
    names = {"module": "module", path.name: "export"}
    return {
        names[name]: {"test": figures[name], "seconds": speed[name].latency, "bytes": sizes[name]} for name in networks
    }
