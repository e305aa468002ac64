"""Does searching by a score pay? One network, one budget, one short recipe, several ways to the structure.

    SECATEUR_DATA=... python studies/search_pays.py --scorers fidelity --jobs 2

ResNet-20 on CIFAR-10 at 33 % MACs from the reference checkpoint. Every way gives one structure: a search of 500 TPE
trials by each scorer, as many parameters as possible (a search by `params`), uniform widths, one global L2 threshold,
equal sensitivity of all layers (the rule of ModelOpt's FastNAS, which itself did not run beside this torch), the best
of 20 random structures after retraining all of them with another seed, and Torch-Pruning where it is installed:

    pip install torch-pruning==1.6.1        # for this comparison only

All are retrained with the same seeds and recipe and looked at on the test images once, at the last epoch. Results are
kept in runs/search-pays/ and added to; studies/results/search_pays.json holds the table.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch_pruning_peer import torch_pruning_structure  # type: ignore[import-not-found] # the script beside this one

import secateur as sc
from backbones.cost import recount
from backbones.files import write_text
from backbones.surgery import prune
from search.data.data import subset
from search.evaluate.measurements import TrainingResult, TrainingTask, retrain_all
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.families import FAMILIES, draw
from search.space.problem import SearchProblem
from search.study.rules import structure_of

HERE = Path(__file__).resolve().parent
RUN = Path("runs/search-pays")
EVALUATED = Path("runs/scorers-resnet20/evaluate/set-0/trainings")
"""`secateur evaluate studies/scorers_resnet20.toml` retrains the same random structures by the same recipe."""
RANDOM = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorers", nargs="+", default=["fidelity"], help="each searches on its own")
    parser.add_argument("--space", default="ratios")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "search_pays.json")
    options = parser.parse_args()
    RUN.mkdir(parents=True, exist_ok=True)
    file = read_study(HERE / "scorers_resnet20.toml")
    start = load_inputs(file, HERE, "cpu")
    plan, data = file.evaluate, subset(start.data, file.evaluate.images, file.evaluate.recipe.seed)
    study = partial(sc.Study, model=start.model, graph=start.graph, data=start.data, budget=file.budget.budget())
    networks: dict[str, nn.Module] = {}
    facts: dict[str, dict[str, Any]] = {}

    def keep(name: str, make: Callable[[], sc.Structure]) -> None:
        """The network that a way gives; its structure is kept in a file."""
        path = RUN / f"{slug(name)}.json"
        if not path.is_file():
            begun = time.perf_counter()
            made = make()
            seconds = round(time.perf_counter() - begun, 1)
            write_text(path, json.dumps({"seconds": seconds, "structure": json.loads(made.to_json())}) + "\n")
        known = json.loads(path.read_text())
        structure = sc.Structure.from_json(json.dumps(known["structure"]))
        networks[name] = prune(start.model, start.graph, structure, check=False)
        spent = asdict(recount(networks[name], (start.data.example,)))
        facts[name] = {"seconds": known["seconds"], "structure": structure.id, **spent}

    def searched(scorer: str) -> sc.Structure:
        name = slug(f"by {scorer} {options.space} {options.trials}")
        made = study(name, scorer=scorer, space=options.space, storage=f"sqlite:///{RUN}/{name}.db", folder=RUN / name)
        made.search(options.trials)
        best = made.front().best(measure="score").structure
        assert best is not None
        return best

    for scorer in dict.fromkeys([*options.scorers, "params"]):
        keep(f"{options.trials} trials by {scorer}", partial(searched, scorer))
    problem = study("ground", space="ratios", storage="sqlite:///:memory:", folder=RUN / "ground").problem
    [target] = problem.targets
    for rule in ("uniform", "global", "sensitivity"):
        keep(f"{rule}, L2", partial(structure_of, rule, problem, target))
    keep("best of 20 random", partial(best_of_random, problem, target, plan.recipe, data, options.jobs))
    peer = (start.model, start.graph, start.data.example, target.bounds[0].high)
    try:
        keep("Torch-Pruning", partial(torch_pruning_structure, *peer))
    except ImportError as error:
        print(f"Torch-Pruning is left out: {error}")
    seeds = range(1, options.seeds + 1)  # the random structures were chosen with seed 0
    wanted = [
        TrainingTask(slug(name), partial(copy.deepcopy, network), replace(plan.recipe, seed=seed))
        for seed in seeds
        for name, network in networks.items()
    ]
    results = retrain_all(wanted, data, RUN / "trainings", test=True, processes=options.jobs)
    report(facts, results, seeds, options)


def best_of_random(problem: SearchProblem, target: Any, recipe: sc.Recipe, data: sc.Data, jobs: int) -> sc.Structure:
    """Draws 20 structures of all families, retrains each once, takes the best on validation images."""
    drawn = draw(problem, target, RANDOM, FAMILIES, 0)
    make = partial(prune, problem.task.model, problem.graph, check=False)
    wanted = [TrainingTask(one.structure.id, partial(make, one.structure), recipe) for one in drawn]
    done = retrain_all(wanted, data, EVALUATED, test=False, processes=jobs)
    return max((one.structure for one in drawn), key=lambda one: done[one.id, recipe.seed].validation)


def slug(name: str) -> str:
    """A name for files."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)


def report(
    facts: dict[str, dict[str, Any]],
    results: dict[tuple[str, int], TrainingResult],
    seeds: range,
    options: argparse.Namespace,
) -> None:
    """Writes and prints the table, the best mean first."""
    rows = []
    for name, known in facts.items():
        tests = [float(results[slug(name), seed].test or 0.0) for seed in seeds]
        rows.append(
            {"way": name, "test": tests, "mean": statistics.mean(tests), "std": statistics.stdev(tests), **known}
        )
    rows.sort(key=lambda row: -row["mean"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"environment": environment(), "seeds": list(seeds), "rows": rows}
    write_text(options.out, json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(f"{row['way']:32} {row['macs']:>11,} {row['params']:>8,} {row['mean']:.2%} +- {row['std']:.2%}")


if __name__ == "__main__":
    main()
