"""Scores of refitted networks against retrainings that are on record: no training here, a second or three a structure.

    SECATEUR_DATA=... python studies/benchmarks/refitted_scores.py

The structures and accuracies are those of `studies/results/scorers_*/evidence.json` (sets A, B and C of
studies/README.md: short retrainings from cut weights); scored are the refitted networks, on 256 training images to fit
and 1,024 others. Kendall's tau with 95 % bootstrap intervals over structures, over all and inside the top third, and
the accuracy lost by retraining only the structure on top. Scores are kept in refitted_scores.json beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.files import write_text
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.evaluate.evidence import with_rank_sums
from search.evaluate.statistics import bootstrap_tau, regret, top
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.families import FAMILIES, draw
from search.space.prepare import prepare_problem, scoring_task
from search.space.space import Space

HERE = Path(__file__).resolve().parent
OUT = HERE / "refitted_scores.json"
SETS = (("A", "resnet20", 0, "validation"), ("B", "resnet20", 1, "test"), ("C", "resnet56", 0, "validation"))
SINGLE = ("reconstruction", "refitted:region_kernel", "refitted:naswot", "refitted:naswot_last")
SUMS = ("reconstruction+naswot", "reconstruction+naswot_last", "reconstruction+region_kernel", "reconstruction+params")
BESIDE = ("region_kernel", "naswot", "naswot_last", "params")
"""Scores of networks as cut, as the evidence has them."""


def scores(network: str, number: int, rows: list[dict[str, Any]], known: dict[str, dict[str, float]]) -> None:
    """Adds what `known` lacks: structure id -> scorer -> score; written after every structure."""
    file = read_study(HERE.parent / f"scorers_{network}.toml")
    inputs = load_inputs(file, HERE.parent, "cpu")
    task = scoring_task(inputs.model, inputs.graph, inputs.data, 128, 0, scorer="reconstruction")
    problem = prepare_problem(Space("ratios", criterion="l2"), task, file.budget.budget(), scorer="params")
    drawn = {one.structure.id: one.structure for one in draw(problem, problem.targets[0], len(rows), FAMILIES, number)}
    for row in rows:
        if row["structure"] in known:
            continue
        scored = ScoredStructure(task, drawn[row["structure"]])
        known[row["structure"]] = {name: scorer_of(name)(scored) for name in SINGLE}
        write_text(OUT, json.dumps({"environment": environment(), "scores": known}, indent=1) + "\n")


def main() -> None:
    torch.set_num_threads(1)
    known: dict[str, dict[str, float]] = json.loads(OUT.read_text())["scores"] if OUT.is_file() else {}
    for label, network, number, split in SETS:
        path = HERE.parent / "results" / f"scorers_{network}_set{number}" / "evidence.json"
        rows = json.loads(path.read_text())["rows"]
        scores(network, number, rows, known)
        truth = np.array([np.mean(row[split]) for row in rows])
        values = {name: np.array([known[row["structure"]][name] for row in rows]) for name in SINGLE}
        values |= {name: np.array([row["scores"][name] for row in rows], dtype=float) for name in BESIDE}
        best = top(truth)
        print(f"\n{label}: {network}, {len(rows)} structures, {split}")
        for name, value in with_rank_sums(values, (*SINGLE, *SUMS, *BESIDE)).items():
            whole, inside = bootstrap_tau(value, truth), bootstrap_tau(value[best], truth[best])
            print(f"| `{name}` | {whole} | {inside} | {100 * regret(value, truth):.1f} |", flush=True)


if __name__ == "__main__":
    main()
