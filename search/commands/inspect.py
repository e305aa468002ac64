"""`secateur inspect`: what a trace finds in the network of a study, before anything is trained or searched."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from backbones.inspect_table import describe, mac_shares, minimum
from search.commands.options import add_study_file
from search.run.console import Console
from search.run.inputs import load_inputs
from search.run.study_file import read_study

SUMMARY = "show what can be pruned in a network, what cannot and why"
DESCRIPTION = """\
Traces the network that a study file names and prints its groups of coupled
channels (size, member layers, share of the MACs), the channels that stay with
the reason and the line of code, the dense cost and the smallest that can be
reached. Nothing is trained or written.

  secateur inspect study.toml"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_study_file(parser)


def execute(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prints the table."""
    study = read_study(arguments.study, arguments.scale)
    graph = load_inputs(study, arguments.study.resolve().parent, "cpu").graph
    console.result(describe(graph))
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
        "frozen": [asdict(record) for record in graph.frozen],
        "unreached": list(graph.unreached),
    }
