"""How far does the score tell the best of a search apart? They are scored again on images of other draws.

    SECATEUR_DATA=... python studies/search_pays.py --ways search --criterion reconstruction --trials 150 --seeds 1
    SECATEUR_DATA=... python studies/benchmarks/top_of_search.py runs/search-pays/resnet20/search-reconstruction-0.db

The best 24 structures of a finished search of ResNet-20, and their scores on the images that the search saw and on
three other draws of training images: as many as the search has, twice as many to fit and rows, and those with twice as
many to score too. Kendall's tau between the draws, mean and deviation in each. Scores are kept in top_of_search.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import torch
from scipy.stats import kendalltau

import scoring.scoring_task as scoring_task_module
from backbones.files import write_text
from backbones.inputs import pick_samples
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.prepare import scoring_task
from search.space.proposals import unpack

HERE = Path(__file__).resolve().parent
OUT = HERE / "top_of_search.json"
BEST = 24
DRAWS = {"as searched": (256, 1024, 8_192), "twice to fit": (512, 1024, 16_384), "twice": (512, 2048, 16_384)}
"""Images to fit, images to score, rows."""


def scores(storage: Path, seed: int) -> dict[str, list[float]]:
    """Draw -> the scores of the best of a search, the best first."""
    inputs = load_inputs(read_study(HERE.parent / "scorers_resnet20.toml"), HERE.parent, "cpu")
    graph = inputs.graph
    [summary] = optuna.get_all_study_summaries(f"sqlite:///{storage}")
    study = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{storage}")
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    different = {one.user_attrs["structure"]: one for one in reversed(trials)}
    best = sorted(different.values(), key=lambda one: -one.values[0])[:BEST]
    found = {"the search": [one.values[0] for one in best]}
    task = scoring_task(inputs.model.eval(), graph, inputs.data, 128, seed, scorer="reconstruction")
    drawn, _ = inputs.data.batch(sum(fit + held_out for fit, held_out, _ in DRAWS.values()), seed + 1_000)
    start, score = 0, scorer_of("reconstruction")
    for name, (fit, held_out, rows) in DRAWS.items():
        scoring_task_module.FIT_ROWS = rows
        here = replace(
            task,
            fit=pick_samples(drawn, range(start, start + fit)),
            held_out=pick_samples(drawn, range(start + fit, start + fit + held_out)),
            reference_scores={},
        )
        found[name] = [score(ScoredStructure(here, unpack(graph, one.user_attrs))) for one in best]
        start += fit + held_out
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storages", nargs="+", type=Path, help="SQLite files of studies/search_pays.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(OUT.read_text())["scores"] if OUT.is_file() else {}
    for path in options.storages:
        if path.stem not in known:
            known[path.stem] = scores(path, int(path.stem.rpartition("-")[2]))
            write_text(OUT, json.dumps({"environment": environment(), "scores": known}, indent=1) + "\n")
    for name, found in known.items():
        print(f"\n{name}\n\n| images | mean | deviation | tau with the others |\n|---|---|---|---|")
        for draw, values in found.items():
            taus = [kendalltau(values, others).statistic for other, others in found.items() if other != draw]
            print(f"| {draw} | {np.mean(values):.3f} | {np.std(values):.3f} | {', '.join(f'{t:+.2f}' for t in taus)} |")


if __name__ == "__main__":
    main()
