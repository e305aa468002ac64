"""Commands that read what a run or a study has stored: its state, its report, its network in another format."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from backbones.artefact import load as load_artefact
from backbones.errors import SecateurError
from backbones.exports import export_onnx, export_program
from backbones.inputs import first_samples, split_samples
from backbones.onnx_network import OnnxNetwork, export_onnx_int8
from search.commands.options import FOLDERS, Command, add_path, add_run
from search.data.data import Data
from search.formatting import byte_size, text_table
from search.review.footprint import footprints
from search.run.console import Console
from search.run.folder import RunFolder, find_run
from search.run.inputs import load_run_inputs
from search.run.pages import joint_report, run_report
from search.study.stored import status
from search.training.metrics import measure

EXPORT_ENDINGS = {"onnx": ".onnx", "program": ".pt2", "onnx-int8": ".int8.onnx"}
"""Format -> ending of its file."""
CALIBRATION, CALIBRATED_AT_ONCE = 256, 32
"""Training samples that scales of 8-bit numbers are found on, and how many of them at a time."""


def _add_place(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "place", offers=FOLDERS, type=str, metavar="RUN|URL", help="a run folder, or the URL of a storage")
    parser.add_argument("--name", metavar="NAME", help="of the study, where a storage has several")


def _status(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    place: str = arguments.place
    url = place if "://" in place else find_run(Path(place))[0].storage
    found = status(url, arguments.name)
    console.result(str(found))
    return asdict(found)


STATUS = Command(
    "status",
    "what a study is at, also while others work on it",
    """\
Prints trials, best score, workers and retrainings of a study, read from its
storage alone; nothing is loaded, changed or waited for.

  secateur status runs/digits
  secateur status postgresql+psycopg://user@host/studies --name digits""",
    (_add_place,),
    _status,
)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "runs", offers=FOLDERS, nargs="+", metavar="RUN", help="run folders, runs/<name>")
    add_path(parser, "--output", "-o", offers=FOLDERS, metavar="DIR", help="where to (the run folder itself)")


def _report(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    folders = [find_run(path)[0] for path in arguments.runs]
    if len(folders) > 1 and arguments.output is None:
        raise SecateurError(f"{len(folders)} runs in one report need a folder of their own; give one with --output DIR")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
    output = arguments.output or folders[0].path
    page = run_report(folders[0], output) if len(folders) == 1 else joint_report(folders, output)
    console.result(f"wrote {page}")
    return {"report": str(page)}


REPORT = Command(
    "report",
    "write the report of one run, or of several overlaid",
    """\
Writes report.html (one file, no network needed) again from what a run has
stored, beside it every plot as PNG and SVG (plots/, front.png, front.svg) and
every table as CSV and JSON (front.csv, front.json, tables/, report.json).
Several runs are drawn over each other in a folder of their own.

  secateur report runs/digits
  secateur report runs/small runs/large -o compared""",
    (_add_runs,),
    _report,
)


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", choices=tuple(EXPORT_ENDINGS), default="onnx", help="the format (onnx)")
    add_path(parser, "--output", "-o", offers=FOLDERS, metavar="FILE", help="where to (the run folder)")


def _export(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
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


EXPORT = Command(
    "export",
    "export the network of a run: ONNX, 8-bit ONNX, torch program",
    """\
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
  secateur export runs/digits --to onnx-int8 -o small.onnx""",
    (add_run, _add_format),
    _export,
)
