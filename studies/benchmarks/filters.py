"""Which filters? The refitted network's score when the widths are given and only the way of choosing filters differs.

    SECATEUR_DATA=... python studies/benchmarks/filters.py              # ResNet-20 at 33 %, ResNet-56 at 20 % MACs
    SECATEUR_DATA=... python studies/benchmarks/filters.py --table      # what is there so far

Widths are those of the rules (by L2) and of random structures of the evidence's families. Ways: every criterion, and
the representatives of clusters (average linkage, k-means, spectral; the filter with the largest L2 norm of each). The
score is minus the KL divergence of the refitted network from the dense one on 2,048 training images that nothing else
looked at (`confirming_task`); no training. Criteria that look at data see 256 images. Scores are kept in filters.json
beside this file, each as it is made and not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import secateur as sc
from backbones.files import write_text
from scoring.clusters import CLUSTERINGS
from scoring.criteria import CRITERIA
from scoring.ratios import Pick, clusterings, widths_mask
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from scoring.tables import FilterTables, channels_by_group
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.families import FAMILIES, draw
from search.space.prepare import confirming_task, prepare_problem, scoring_task
from search.study.rules import structure_of

HERE = Path(__file__).resolve().parent
OUT = HERE / "filters.json"
NETWORKS = ("resnet20", "resnet56")
RULES = ("uniform", "global", "sensitivity")
RANDOM = 3
RANDOM_SEEDS = 3
BATCH = 256


def measure(network: str, found: dict[str, dict[str, float]]) -> None:
    """Adds what is missing of one network: "network, widths" -> way -> score."""
    file = read_study(HERE.parent / f"scorers_{network}.toml")
    inputs = load_inputs(file, HERE.parent, "cpu")
    model, graph, data = inputs.model.eval(), inputs.graph, inputs.data
    task = scoring_task(model, graph, data, BATCH, 0, scorer="reconstruction")
    problem = prepare_problem(sc.Space("ratios", criterion="l2"), task, file.budget.budget(), scorer="reconstruction")
    fresh, score, target = confirming_task(task, data, 0), scorer_of("reconstruction"), problem.targets[0]
    given = {name: structure_of(name, problem, target) for name in RULES}
    given |= {f"random {n}": one.structure for n, one in enumerate(draw(problem, target, RANDOM, FAMILIES, 0))}
    for way, (tables, pick) in ways(model, graph, (task.batch, task.labels)).items():
        for name, structure in given.items():
            known = found.setdefault(f"{network}, {name}", {})
            if way not in known:
                widths = np.array([structure.widths[group] for group in tables.groups])
                chosen = sc.Structure.of(graph, channels_by_group(tables, widths_mask(tables, widths, pick)))
                known[way] = score(ScoredStructure(fresh, chosen))
                write_text(OUT, json.dumps({"environment": environment(), "scores": found}, indent=1) + "\n")


def ways(
    model: torch.nn.Module, graph: sc.ChannelGraph, data: tuple[Any, torch.Tensor | None]
) -> dict[str, tuple[FilterTables, Pick]]:
    """Every way of choosing filters, with the tables that it goes by."""
    space = sc.Space("ratios")
    made: dict[str, tuple[FilterTables, Pick]] = {
        name: (replace(space, criterion=name).tables(model, graph, data), "norm")
        for name in CRITERIA
        if name != "random"
    }
    by_chance = replace(space, criterion="random")
    made |= {f"random {seed}": (by_chance.tables(model, graph, seed=seed), "norm") for seed in range(RANDOM_SEEDS)}
    by_norm = made["l2"][0]
    made["average linkage"] = (by_norm, "linkage")
    made |= {name: (by_norm, clusterings(model, graph, name)) for name in CLUSTERINGS if name != "agglomerative"}
    return made


def table(found: dict[str, dict[str, float]]) -> str:
    """A row for each way: scores at the given widths, random widths and random filters as means; then the mean."""
    columns: dict[str, list[str]] = {}
    for given in found:
        columns.setdefault(re.sub(r" \d+$", "", given), []).append(given)
    rows: dict[str, list[str]] = {}
    for way in next(iter(found.values())):
        rows.setdefault(re.sub(r" \d+$", "", way), []).append(way)
    lines = ["| filters by | " + " | ".join(columns) + " | mean |", "|---" * (len(columns) + 2) + "|"]
    scores = {
        name: [statistics.fmean(found[one][way] for one in ones for way in group) for ones in columns.values()]
        for name, group in rows.items()
    }
    for name, values in sorted(scores.items(), key=lambda pair: -statistics.fmean(pair[1])):
        lines.append(f"| {name} | {' | '.join(f'{one:.3f}' for one in [*values, statistics.fmean(values)])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--table", action="store_true", help="print what is known and stop")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = json.loads(OUT.read_text())["scores"] if OUT.is_file() else {}
    torch.set_num_threads(1)
    if not options.table:
        for network in options.networks:
            measure(network, found)
    print(table(found))


if __name__ == "__main__":
    main()
