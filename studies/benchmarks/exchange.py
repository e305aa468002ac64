"""Is a last pass over single filters worth it? Exchanges that the refitted score welcomes, judged on other images.

    SECATEUR_DATA=... python studies/benchmarks/exchange.py --tries 100

ResNet-20 at 33 % of its MACs, equal sensitivity's structure with filters by the criterion "reconstruction". Each try
exchanges one kept filter of a random group for one that was dropped, and stays where the refitted score on the search's
images (256 to fit, 1,024 to compare on) is better. Beside it the same score on three other draws of images, which
decide nothing. Kept in exchange.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import secateur as sc
from backbones.files import write_text
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.prepare import confirming_task, prepare_problem, scoring_task
from search.study.rules import RuleSettings, structure_of

HERE = Path(__file__).resolve().parent
OTHERS = (0, 1, 2)
"""Draws of other images."""


def main() -> None:
    """Tries, and writes what became of the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100)
    tries = parser.parse_args().tries
    torch.set_num_threads(1)
    inputs = load_inputs(read_study(HERE.parent / "scorers_resnet20.toml"), HERE.parent, "cpu")
    model, graph, data, score = inputs.model.eval(), inputs.graph, inputs.data, scorer_of("reconstruction")
    task = scoring_task(model, graph, data, 128, 0, scorer="reconstruction")
    space = sc.Space("ratios", criterion="reconstruction")
    problem = prepare_problem(space, task, sc.Budget(macs=0.33), scorer="reconstruction")
    others = [confirming_task(task, data, seed) for seed in OTHERS]
    best = structure_of("sensitivity", problem, problem.targets[0], RuleSettings("reconstruction"))
    here = score(ScoredStructure(task, best))
    rng, rows, taken = np.random.default_rng(0), [], 0
    for number in range(tries + 1):
        if number % 25 == 0:
            fresh = [score(ScoredStructure(other, best)) for other in others]
            rows.append({"tries": number, "taken": taken, "search": here, "others": fresh})
            print(rows[-1], flush=True)
        kept = dict(best.kept)
        cut = [one for one in graph.groups if len(kept[one.name]) < one.size]
        group = cut[rng.integers(len(cut))]
        gone = rng.choice(kept[group.name])
        back = rng.choice(sorted(set(range(group.size)) - set(kept[group.name])))
        changed = {*kept[group.name], int(back)} - {int(gone)}
        tried = sc.Structure.of(graph, {**kept, group.name: changed})
        if (value := score(ScoredStructure(task, tried))) > here:
            best, here, taken = tried, value, taken + 1
    write_text(HERE / "exchange.json", json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
