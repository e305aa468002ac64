"""What are more trials worth? The best of a search after so many trials, on images that it did not see.

    SECATEUR_DATA=... secateur compare studies/system3_hybrid.toml --scale full --variants search
    SECATEUR_DATA=... python studies/benchmarks/trials.py --network resnet56 runs/system3-full/compare/search/study.db

Of each storage the best structure by the search's own score after 5 (the rules), 50, 100, 200, 500 and 800 trials, as
far as it has them: that score, the mean of the score `reconstruction` on three other draws of images, and the accuracy
of the refitted network on the validation images, nothing trained. With `--train N` also its test accuracy after each of
N short trainings (one pass over 10,000 images, as in `search_pays.py`). Kept in trials.json under the path of the
storage, each number as it is known: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn

import secateur as sc
from backbones.files import write_text
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.data.data import subset
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
FACTS = ("others", "validation", "test")


class Bench:
    """One network, and what its structures are worth."""

    def __init__(self, network: str) -> None:
        inputs = load_inputs(read_study(HERE.parent / f"scorers_{network}.toml"), HERE.parent, "cpu")
        self.model, self.graph, self.data = inputs.model.eval(), inputs.graph, inputs.data
        task = scoring_task(self.model, self.graph, self.data, 128, 0, scorer="reconstruction")
        self.others = [confirming_task(task, self.data, seed) for seed in OTHERS]
        self.short = subset(self.data, 10_000, 0)
        self.targets = sc.gather_targets(self.model, self.graph, self.data.batch(512, 0)[0])

    def best(self, storage: Path) -> Iterator[tuple[int, float, sc.Structure]]:
        """Numbers of trials, with the best score and its structure after so many."""
        url = f"sqlite:///{storage}"
        [name] = [one.study_name for one in optuna.get_all_study_summaries(url) if "(" not in one.study_name]
        trials = optuna.load_study(study_name=name, storage=url).get_trials(deepcopy=False)
        for number in [one for one in AFTER if one <= len(trials)]:
            done = [one for one in trials[:number] if one.state is optuna.trial.TrialState.COMPLETE and one.values]
            best = max(done, key=lambda one: one.values[0])
            yield number, best.values[0], unpack(self.graph, best.user_attrs)

    def look(self, structure: sc.Structure, facts: dict[str, Any], trainings: int) -> Iterator[None]:
        """Adds what is not known of a structure; yields when there is something to keep, at least once."""
        if "others" not in facts:
            score = scorer_of("reconstruction")
            facts["others"] = float(np.mean([score(ScoredStructure(other, structure)) for other in self.others]))
            facts["validation"] = sc.accuracy(self._refitted(structure), self.data, "validation")
        yield
        for seed in range(len(facts.get("test", ())), trainings):
            recipe = sc.Recipe(epochs=1, batch_size=64, distill=0.0, schedule="one-cycle", lr=0.02, seed=seed)
            history = sc.train(self._refitted(structure), self.short, recipe, progress=False)
            facts["test"] = [*facts.get("test", ()), history.test_accuracy]
            yield

    def _refitted(self, structure: sc.Structure) -> nn.Module:
        return sc.reconstruct(self.model, self.graph, structure, self.targets)


def main() -> None:
    """Looks at what is not known yet, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("resnet20", "resnet56"), required=True)
    parser.add_argument("--train", type=int, default=0, metavar="N", help="short trainings of each structure")
    parser.add_argument("storages", nargs="+", type=Path, help="SQLite files of searches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options.network)
    searches = json.loads(OUT.read_text())["searches"] if OUT.is_file() else {}
    for path in options.storages:
        best = list(bench.best(path))
        seen = {row["structure"]: row for row in searches.get(str(path), {"rows": []})["rows"]}
        facts = {
            one.id: {name: seen[one.id][name] for name in FACTS if name in seen.get(one.id, ())} for *_, one in best
        }
        for *_, structure in best:
            for _ in bench.look(structure, facts[structure.id], options.train):
                rows = [{"trials": n, "structure": one.id, "search": own, **facts[one.id]} for n, own, one in best]
                found = {"network": options.network, "rows": rows}
                if found != searches.get(str(path)):
                    searches[str(path)] = found
                    write_text(OUT, json.dumps({"environment": environment(), "searches": searches}, indent=1) + "\n")
                    print(structure.id, facts[structure.id], flush=True)


if __name__ == "__main__":
    main()
