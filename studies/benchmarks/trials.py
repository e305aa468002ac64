"""What are more trials worth? The best of a search after so many trials, on images that it did not see.

    SECATEUR_DATA=... secateur compare studies/system3_hybrid.toml --scale full --variants search
    SECATEUR_DATA=... python studies/benchmarks/trials.py --network resnet56 runs/system3-full/compare/search/study.db

Of each storage the best structure by the search's own score after 5 (the rules), 50, 100, 200, 500 and 800 trials, as
far as it has them: that score, the mean of the same score on three other draws of images, and the accuracy of the
refitted network on the validation images, nothing trained. Kept in trials.json under the path of the storage.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

import secateur as sc
from backbones.files import write_text
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.prepare import confirming_task, scoring_task
from search.space.proposals import unpack

HERE = Path(__file__).resolve().parent
OUT = HERE / "trials.json"
AFTER = (5, 50, 100, 200, 500, 800)
OTHERS = (0, 1, 2)
"""Draws of other images."""


def worth(network: str, storage: Path) -> list[dict[str, Any]]:
    """A row for each number of trials."""
    inputs = load_inputs(read_study(HERE.parent / f"scorers_{network}.toml"), HERE.parent, "cpu")
    model, graph, data, score = inputs.model.eval(), inputs.graph, inputs.data, scorer_of("reconstruction")
    task = scoring_task(model, graph, data, 128, 0, scorer="reconstruction")
    others = [confirming_task(task, data, seed) for seed in OTHERS]
    targets = sc.gather_targets(model, graph, data.batch(512, 0)[0])
    names = [one.study_name for one in optuna.get_all_study_summaries(f"sqlite:///{storage}")]
    [name] = [one for one in names if "(" not in one]
    trials = optuna.load_study(study_name=name, storage=f"sqlite:///{storage}").get_trials(deepcopy=False)
    rows: list[dict[str, Any]] = []
    for number in AFTER:
        if number > len(trials):
            break
        done = [one for one in trials[:number] if one.state is optuna.trial.TrialState.COMPLETE and one.values]
        best = max(done, key=lambda one: one.values[0])
        structure = unpack(graph, best.user_attrs)
        row = {"trials": number, "structure": structure.id, "search": best.values[0]}
        if rows and rows[-1]["structure"] == structure.id:
            row |= {key: rows[-1][key] for key in ("others", "validation")}
        else:
            row["others"] = float(np.mean([score(ScoredStructure(other, structure)) for other in others]))
            refitted = sc.reconstruct(model, graph, structure, targets)
            row["validation"] = sc.accuracy(refitted, data, "validation")
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Looks at storages that are not known yet, and prints all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("resnet20", "resnet56"), required=True)
    parser.add_argument("storages", nargs="+", type=Path, help="SQLite files of searches by the score `reconstruction`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(OUT.read_text())["searches"] if OUT.is_file() else {}
    for path in options.storages:
        if str(path) not in known:
            known[str(path)] = {"network": options.network, "rows": worth(options.network, path)}
            write_text(OUT, json.dumps({"environment": environment(), "searches": known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
