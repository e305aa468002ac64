"""Commands about a study file, before anything is trained: init writes one, inspect looks into its network."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.errors import SecateurError
from backbones.files import write_text
from backbones.inspect_table import describe, mac_shares, minimum
from search.commands.options import STUDIES, Command, add_path, add_study_file
from search.formatting import WIDTH
from search.run.console import Console
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.run.template import EXAMPLE_FILES, example_file, template
from search.space.feasibility import criterion_line

SEEN = 8
"""Training images that `inspect` runs the network on, to see whether filters can be measured."""


def _add_new(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "path", offers=STUDIES, nargs="?", default=Path("study.toml"), help="the file (study.toml)")
    tasks = ", ".join(EXAMPLE_FILES)
    parser.add_argument("--task", choices=EXAMPLE_FILES, metavar="TASK", help=f"an example of your own task: {tasks}")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def _init(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    path: Path = arguments.path
    texts = {path: template(arguments.task)}
    if arguments.task is not None:
        texts[path.parent / EXAMPLE_FILES[arguments.task]] = example_file(arguments.task)
    for one in texts:
        if one.exists() and not arguments.force:
            raise SecateurError(f"{one} exists; choose another name, or --force to replace it")
    if not path.parent.is_dir():
        raise SecateurError(f"{path} cannot be written: the folder {path.parent} does not exist")
    for one, text in texts.items():
        write_text(one, text)
    console.result(f"wrote {' and '.join(map(str, texts))}; to run it: secateur run {path}")
    return {"study": str(path), "files": [str(one) for one in texts]}


INIT = Command(
    "init",
    "write a commented study file to start from",
    "Writes a study file that runs as it is (on digits), with every key explained.\n"
    "With --task it has a Python file beside it, with network, data, loss and metric,\nto put your own into.",
    (_add_new,),
    _init,
)


def _inspect(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    study = read_study(arguments.study, arguments.scale)
    inputs = load_inputs(study, arguments.study.resolve().parent, "cpu")
    graph, space = inputs.graph, study.space.space()
    few = min(SEEN, study.search.batch, len(inputs.data.train))
    criterion, reason = space.foreseen(inputs.model, graph, inputs.data.batch(few, study.seed)[0])
    again = space.of_weights.criterion if study.retrain.way.chooses_again else criterion
    console.result(describe(graph))
    console.result("\n" + criterion_line(criterion, reason))
    if again != criterion:
        console.result(
            textwrap.fill(f"the flow {study.retrain.flow} chooses them again as weights change, by {again}", WIDTH)
        )
    share = mac_shares(graph)
    return {
        "name": study.name,
        "dense": asdict(graph.costs.dense),
        "minimum": asdict(minimum(graph)),
        "groups": [
            {
                "name": group.name,
                "size": group.size,
                "macs_share": share[group.name],
                "layers": list(dict.fromkeys(member.layer for member in group.members)),
            }
            for group in graph.groups
        ],
        "criterion": {"name": criterion, "reason": reason, "in_flow": again},
        "frozen": [asdict(record) for record in graph.frozen],
        "unreached": list(graph.unreached),
    }


INSPECT = Command(
    "inspect",
    "show what can be pruned in a network, what cannot and why",
    """\
Traces the network that a study file names and prints its groups of coupled
channels (size, member layers, share of the MACs), the channels that stay with
the reason and the line of code, the dense cost and the smallest that can be
reached, and by what filters go. Nothing is trained or written.

  secateur inspect study.toml""",
    (add_study_file,),
    _inspect,
)
