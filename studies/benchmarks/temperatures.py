"""At which temperature to compare a refitted network's probabilities with the dense network's; nothing is trained.

    SECATEUR_DATA=... python studies/benchmarks/temperatures.py

The structures on record in `studies/results/scorers_*/evidence.json` are refitted on 256 training images and
compared with the dense network on 1,024 others. Kendall's tau with the accuracies on record (the mean of validation and
test, over seeds), over all and inside the top third, for each temperature; the mean of two draws of the 1,024.

Divergences are times the square of the temperature; at "inf" they are the limit, half the mean square of the difference
of centred logits. Kept in temperatures.json, a set as it is known.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import secateur as sc
from backbones.files import write_text
from backbones.inputs import run_on, split_samples
from scoring.logit_scores import SCORED_AT_ONCE
from scoring.scoring_task import ScoredStructure
from search.evaluate.statistics import tau, top
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.families import draw
from search.space.prepare import prepare_problem, scoring_task

HERE = Path(__file__).resolve().parent
OUT = HERE / "temperatures.json"
TEMPERATURES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, math.inf)
SETS = {
    "B, refitted": ("resnet20", "resnet20_refitted_set1"),
    "C, refitted": ("resnet56", "resnet56_refitted_set1"),
    "A, cut": ("resnet20", "resnet20_set0"),
    "B, cut": ("resnet20", "resnet20_set1"),
    "A long, cut": ("resnet20_long", "resnet20_long_set0"),
}
"""Name -> study file and folder of results."""
FIT, LOOK, DRAWS, SEED = 256, 1024, 2, 123
"""Images to refit on and to look at, how many times, and the seed of their draw."""


def divergence(logits: Tensor, dense: Tensor, temperature: float) -> Tensor:
    """(B,) of each image."""
    if math.isinf(temperature):
        apart = logits - dense
        return (apart - apart.mean(1, keepdim=True)).square().mean(1) / 2
    ours, theirs = (F.log_softmax(one / temperature, dim=1) for one in (logits, dense))
    return temperature**2 * F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)


def ranks(study: str, results: str) -> dict[str, Any]:
    """The taus of one set."""
    record = json.loads((HERE.parent / "results" / f"scorers_{results}" / "evidence.json").read_text())
    rows, settings, file = record["rows"], record["settings"], read_study(HERE.parent / f"scorers_{study}.toml")
    inputs = load_inputs(file, HERE.parent, "cpu")
    images, _ = inputs.data.batch(FIT + DRAWS * LOOK, SEED)
    task = scoring_task(inputs.model.eval(), inputs.graph, inputs.data, 128, 0)
    task = replace(task, fit=images[:FIT], held_out=images[FIT:], half=False)
    space = sc.Space("ratios", criterion=settings["space"]["criterion"])
    problem = prepare_problem(space, task, file.budget.budget(), scorer="params")
    drawn = draw(problem, problem.targets[0], len(rows), tuple(settings["families"]), settings["set"])
    known = {one.structure.id: one.structure for one in drawn}
    logits = [refitted_logits(ScoredStructure(task, known[row["structure"]])) for row in rows]
    accuracies = np.array([np.mean([*row["validation"], *row.get("test", ())]) for row in rows])
    best = top(accuracies)
    found: dict[str, Any] = {"structures": len(rows)}
    for temperature in TEMPERATURES:
        scores = -np.array([divergence(one, task.held_out_outputs.double(), temperature).numpy() for one in logits])
        draws = scores.reshape(len(rows), DRAWS, LOOK).mean(2).T
        taus = [(tau(one, accuracies), tau(one[best], accuracies[best])) for one in draws]
        found[f"{temperature:g}"] = dict(zip(("all", "top third"), np.mean(taus, axis=0), strict=True))
    return found


def refitted_logits(scored: ScoredStructure) -> Tensor:
    """(B, classes) float64, of the images to look at."""
    network = scored.refitted("temperatures")
    with torch.no_grad():
        pieces = [run_on(network, one) for one in split_samples(scored.task.held_out_images, SCORED_AT_ONCE)]
    return torch.cat(pieces).double()


def main() -> None:
    """Measures what is not known yet, and prints all of it."""
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(OUT.read_text())["ranks"] if OUT.is_file() else {}
    for name in SETS:
        if name not in found:
            found[name] = ranks(*SETS[name])
            write_text(OUT, json.dumps({"environment": environment(), "ranks": found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
