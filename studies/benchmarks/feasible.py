"""How many proposals of every space become structures inside a narrow budget, how many differ, and how long it takes.

    python studies/benchmarks/feasible.py [--trials 500] [--band "19.8%..20.2%"] [--weights resnet56.th] [--out x.json]

ResNet-56, 20 % of the MACs, +- 1 % of that target. TPE proposes as in a study, with the same window of history; the
value told to it is the share of the network's L2 norm that a structure keeps, so no forward pass is needed. Weights are
random unless a checkpoint is given: thresholds depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from backbones.checkpoint import load_checkpoint  # noqa: E402
from backbones.files import write_text  # noqa: E402
from backbones.registry import build  # noqa: E402
from backbones.structure import Structure  # noqa: E402
from backbones.trace import trace  # noqa: E402
from scoring.scoring_task import ScoringTask  # noqa: E402
from search.space.budget import Budget  # noqa: E402
from search.space.layer_removal import Removal  # noqa: E402
from search.space.prepare import prepare_problem  # noqa: E402
from search.space.problem import SearchProblem  # noqa: E402
from search.space.projection import project  # noqa: E402
from search.space.proposals import propose  # noqa: E402
from search.space.space import KINDS, Space  # noqa: E402
from search.study.samplers import WINDOWS, SamplerHistory, sampler_for  # noqa: E402


def tried(problem: SearchProblem, trials: int, seed: int) -> dict[str, Any]:
    """What became of so many proposals."""
    directions = [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE][: problem.objectives]
    seen = SamplerHistory(directions, WINDOWS["tpe"])
    history: list[optuna.trial.FrozenTrial] = []
    ids: list[str] = []
    reasons: Counter[str] = Counter()
    spent = []
    for number in range(trials):
        study = seen.at(history, number)
        study.sampler = sampler_for("tpe", seed, number)
        trial = study.ask()
        proposal = propose(problem, trial)
        allocation = problem.suggest(trial)  # the same again: a trial remembers what was suggested
        start = time.perf_counter()
        project(problem, allocation, problem.targets[0])
        spent.append(time.perf_counter() - start)
        values = None
        if proposal.found is None:
            reasons[str(proposal.facts["reason"])] += 1
        else:
            ids.append(proposal.found.structure.id)
            values = problem.values(norm_kept(problem, proposal.found.structure), proposal.found.cost.macs)
        history.append(seen.tell(trial, values))
    return {
        "feasible": 1 - reasons.total() / trials,
        "distinct": len(set(ids)),
        "distinct_in_first_200": len(set(ids[:200])),
        "project_ms_median": round(1e3 * statistics.median(spent), 3),
        "project_ms_p99": round(1e3 * float(np.quantile(spent, 0.99)), 3),
        "reasons": [f"{count} x {reason}" for reason, count in reasons.most_common(3)],
    }


def norm_kept(problem: SearchProblem, structure: Structure) -> float:
    """The share of all filters' normalised norms that stays."""
    kept = sum(float(problem.tables.groups[name].norms[list(rows)].sum()) for name, rows in structure.kept)
    return kept / float(problem.tables.norms.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--band", default="19.8%..20.2%")
    parser.add_argument("--weights", help="a ResNet-56 checkpoint; random weights without one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build("resnet56", 10).eval()
    if options.weights:
        load_checkpoint(model, options.weights)
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    task = ScoringTask(model, graph, torch.randn(32, 3, 32, 32))
    rows: list[dict[str, Any]] = []
    for budget in (Budget(macs=options.band), Budget(macs=0.2)):
        for kind in KINDS:
            for removal in (None, Removal(most=8)):
                problem = prepare_problem(Space(kind, "l2", removal=removal), task, budget, scorer="naswot_last")
                row = {"space": kind, "removal": "up to 8 blocks" if removal else "none", "budget": str(budget.macs)}
                rows.append({**row, **tried(problem, options.trials, options.seed)})
                print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": " ".join(["python", *(Path(one).name if Path(one).is_absolute() else one for one in sys.argv)]),
        "trials": options.trials,
        "weights": Path(options.weights).name if options.weights else "random",
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": 1},
        "versions": {"torch": torch.__version__, "optuna": optuna.__version__, "numpy": np.__version__},
        "rows": rows,
    }
    if options.out:
        write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
