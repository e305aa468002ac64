"""A heavier penalty on the last batch norm: where the scales lie then, and what one threshold leaves of each layer.

    python studies/benchmarks/slimming_penalty.py             # some minutes a network on one core, without a GPU
    python studies/benchmarks/slimming_penalty.py --table     # what is there so far

System 2's B-CNN on digits, by the recipes of `studies/system2_bilinear.toml` at its small scale, trained without
penalty, with the same penalty on every batch norm, with ten times of it on the last one, and with that on the last one
alone; with AdamW as the study does, and with SGD, whose steps are as long as the gradient. Each is cut to the study's
budget by one threshold on the scales as they are (network slimming), and on each scale over its layer's mean, this also
with as many filters of the last layer drawn at random; scored with renewed batch-norm statistics, and retrained as the
study retrains. Results are kept in slimming_penalty.json beside this file, each as it is made and not made again;
weights are kept under --runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateur as sc
from backbones.files import write_text
from scoring.batch_norm import recalibrate
from search.run.folder import environment
from search.run.inputs import RunInputs, load_inputs
from search.run.study_file import StudyFile, read_variants
from search.space.allocations import GlobalThreshold
from search.space.problem import problem_of_weights
from search.space.projection import Infeasible, project
from search.training.losses import gammas
from search.training.metrics import measure

HERE = Path(__file__).resolve().parent
OUT = HERE / "slimming_penalty.json"
RULES: dict[str, tuple[float, int | None]] = {"as they are": (1.0, None), "over the layer's mean": (0.0, None)}
RULES |= {f"over the mean, last layer's at random {seed}": (0.0, seed) for seed in (1, 2)}
"""How the scales are compared -> exponent of `GlobalThreshold`, and a seed where the filters that the last layer keeps
are drawn, as many as the threshold leaves."""
SGD_RATE = 0.05
RENEWED = 512
"""Training images that batch-norm statistics are renewed on."""
Results = dict[str, dict[str, Any]]


def recipes(variants: dict[str, StudyFile], layers: list[str]) -> dict[str, sc.Recipe]:
    """Name of a network -> how it is trained."""
    even, heavy = (replace(variants[name].dense, compile=False) for name in ("one-shot", "one-shot-heavy"))
    alone = replace(heavy, slim_layers={**dict.fromkeys(layers, 0.0), **heavy.slim_layers})
    made = {"no penalty": replace(even, slim=0.0), "even": even, "heavy": heavy, "last alone": alone}
    slow = {name: replace(made[name], optimiser="sgd", lr=SGD_RATE) for name in ("even", "heavy")}
    return made | {f"{name}, sgd": recipe for name, recipe in slow.items()}


def scales(model: nn.Module) -> dict[str, list[float]]:
    """Batch norm -> the 5 %, 50 % and 95 % quantiles of its scales' sizes."""
    places = torch.tensor([0.05, 0.5, 0.95])
    return {name: gamma.detach().abs().quantile(places).tolist() for name, gamma in gammas(model).items()}


def cut(study: StudyFile, inputs: RunInputs, rule: str) -> sc.Structure:
    """What one threshold leaves within the study's budget."""
    targets = study.budget.budget().targets(inputs.graph.costs.dense)
    problem = problem_of_weights(study.space.space(), inputs.model, inputs.graph, targets)
    exponent, seed = RULES[rule]
    found = project(problem, GlobalThreshold(problem.tables, problem.limits, exponent), targets[0])
    assert not isinstance(found, Infeasible), found.reason
    if seed is None:
        return found.structure
    kept, last = dict(found.structure.keep), inputs.graph.groups[-1]
    drawn = torch.randperm(last.size, generator=torch.Generator().manual_seed(seed))[: len(kept[last.name])]
    return sc.Structure.of(inputs.graph, {**kept, last.name: [int(channel) for channel in drawn.sort().values]})


def judged(study: StudyFile, inputs: RunInputs, rule: str, place: Path) -> dict[str, Any]:
    """Widths by a rule, and validation and test accuracy as cut and retrained."""
    structure, data = cut(study, inputs, rule), inputs.data
    small = sc.prune(inputs.model, inputs.graph, structure)
    images, _ = data.batch(RENEWED, study.seed)
    recalibrate(small, images.split(64))
    as_cut = measure(small, data, "validation")
    history = sc.train(small, data, study.retrain.recipe, teacher=inputs.model, folder=place, progress=False)
    cost = sc.cost(inputs.graph, structure)
    return {
        "kept": structure.widths,
        "params": cost.params / inputs.graph.costs.dense.params,
        "macs": cost.macs / inputs.graph.costs.dense.macs,
        "as cut": as_cut,
        "validation": history.validation_accuracy,
        "test": history.test_accuracy,
    }


def run(name: str, seed: int, runs: Path, found: Results, keep: Callable[[], None]) -> None:
    """Adds what is missing of one network and seed."""
    variants = read_variants(HERE.parent / "system2_bilinear.toml", "small")
    study = replace(variants["one-shot"], seed=seed)
    study = replace(
        study, retrain=replace(study.retrain, recipe=replace(study.retrain.recipe, seed=seed, compile=False))
    )
    inputs = load_inputs(study, HERE.parent, "cpu")
    place = runs / f"{name} {seed}".replace(",", "").replace(" ", "-")
    recipe = replace(recipes(dict(variants), list(gammas(inputs.model)))[name], seed=seed)
    history = sc.train(inputs.model, inputs.data, recipe, folder=place / "dense", progress=False)
    known = found.setdefault(f"{name}, seed {seed}", {})
    known["dense"] = {"validation": history.validation_accuracy, "test": history.test_accuracy}
    known["scales"] = scales(inputs.model)
    keep()
    for rule in RULES:
        if rule not in known:
            known[rule] = judged(study, inputs, rule, place / rule.replace(" ", "-"))
            keep()


def table(found: Results) -> str:
    """A row for each network and rule."""
    lines = [
        "| network | median scale, last / others | dense | threshold on scales | last layer keeps | as cut | test |"
    ]
    lines.append("|---" * 7 + "|")
    for name, known in found.items():
        *others, last = (values[1] for values in known["scales"].values())
        middle = f"{last:.3f} / {min(others):.3f} to {max(others):.3f}"
        for rule in (rule for rule in RULES if rule in known):
            one = known[rule]
            cells = [name, middle, f"{known['dense']['test']:.1%}", rule, str(list(one["kept"].values())[-1])]
            cells += [f"{one['as cut']:.1%}", f"{one['test']:.1%}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    names = list(recipes(dict(read_variants(HERE.parent / "system2_bilinear.toml", "small")), []))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/slimming_penalty"), help="folder for the weights")
    parser.add_argument("--table", action="store_true", help="print what is known and stop")
    options = parser.parse_args()
    found: Results = json.loads(OUT.read_text())["networks"] if OUT.is_file() else {}
    torch.set_num_threads(1)

    def keep() -> None:
        write_text(OUT, json.dumps({"environment": environment(), "networks": found}, indent=1) + "\n")

    for seed in options.seeds if not options.table else ():
        for name in options.networks:
            if set(RULES) - set(found.get(f"{name}, seed {seed}", {})):
                run(name, seed, options.runs, found, keep)
    print(table(found))


if __name__ == "__main__":
    main()
