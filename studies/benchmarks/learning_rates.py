"""Which learning rate a training wants by its length, and by what it starts from.

    python studies/benchmarks/learning_rates.py digits                       # minutes
    SECATEUR_DATA=... python studies/benchmarks/learning_rates.py resnet20   # hours; --images 0 for all, --epochs 1 2

Equal sensitivity's structure at 33 % of the MACs by the criterion "reconstruction", trained by the default recipe (it
distils from the dense network) but for length and rate, from cut weights, from refitted ones, or (`scratch`) the dense
network from random ones, without a teacher. Accuracy on validation images at the last epoch; the test images are not
looked at. Every row is kept in learning_rates.json beside this file as it is done, and not done again; the tables of
all rows are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateur as sc
from backbones.files import write_text
from backbones.registry import build
from search.data.data import Data, subset
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.prepare import prepare_problem, scoring_task
from search.study.rules import RuleSettings, structure_of

HERE = Path(__file__).resolve().parent
OUT = HERE / "learning_rates.json"
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
STARTS = ("cut", "refitted", "scratch")
Row = dict[str, Any]


class Networks:
    """What trainings of one network start from.

    Attributes:
        data: as many images of the training split as were asked for.
        dense: the trained network, and the teacher.
    """

    def __init__(self, name: str, images: int) -> None:
        path = HERE.parent / f"scorers_{name}.toml"
        inputs = load_inputs(read_study(path), path.parent, "cpu")
        self.data: Data = subset(inputs.data, images, 0) if images else inputs.data
        self.dense, self._graph, self._backbone = inputs.model.eval(), inputs.graph, name
        if name == "digits":
            self._backbone = "resnet20"
            folder = Path("runs/learning-rates") / name
            sc.train(self.dense, inputs.data, sc.Recipe(lr=0.1), folder=folder, progress=False)
        space = sc.Space("ratios", criterion="reconstruction")
        task = scoring_task(self.dense, self._graph, inputs.data, 128, 0)
        problem = prepare_problem(space, task, sc.Budget(macs=0.33), scorer="region_kernel")
        settings = RuleSettings(criterion="reconstruction")
        self._structure = structure_of("sensitivity", problem, problem.targets[0], settings)

    def begin(self, start: str) -> tuple[nn.Module, nn.Module | None]:
        """A fresh network, and its teacher."""
        if start == "scratch":
            torch.manual_seed(0)
            return build(self._backbone, 10, self.data.train.shape[0]), None
        if start == "cut":
            return sc.prune(self.dense, self._graph, self._structure, check=False), self.dense
        batch = self.data.batch(512, 0)[0]
        return sc.reconstruct(self.dense, self._graph, self._structure, batch), self.dense


def measure(networks: Networks, key: Row) -> Row:
    """One training."""
    network, teacher = networks.begin(key["start"])
    recipe = sc.Recipe(epochs=key["epochs"], lr=key["lr"], optimiser=key["optimiser"], seed=key["seed"])
    history = sc.train(network, networks.data, recipe, teacher=teacher, progress=False)
    return {"before": history.start_accuracy, "validation": history.validation_accuracy, "seconds": history.seconds}


def rows() -> list[Row]:
    """Those that are there."""
    return json.loads(OUT.read_text())["rows"] if OUT.is_file() else []


def show(found: list[Row]) -> None:
    """Mean validation accuracy by length and rate."""
    names = ("network", "images", "optimiser", "start")
    for setting in dict.fromkeys(tuple(row[name] for name in names) for row in found):
        own = [row for row in found if tuple(row[name] for name in names) == setting]
        rates = sorted({row["lr"] for row in own})
        print("\n" + ", ".join(map(str, setting)))
        print("| epochs | before |" + "".join(f" {rate:g} |" for rate in rates) + "\n|---|---|" + "---|" * len(rates))
        for epochs in sorted({row["epochs"] for row in own}):
            here = [row for row in own if row["epochs"] == epochs]
            cells = [f"{100 * statistics.mean(row['before'] for row in here):.1f}"]
            for rate in rates:
                values = [100 * row["validation"] for row in here if row["lr"] == rate]
                spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "")
            print(f"| {epochs} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measures what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("digits", "resnet20"))
    parser.add_argument("--images", type=int, default=0, help="of the training split; 0 for all")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--optimiser", default="sgd")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = Networks(options.network, options.images)
    for seed in range(options.seeds):
        for epochs in options.epochs:
            for start in options.starts:
                for rate in options.rates:
                    key = {"network": options.network, "images": options.images, "optimiser": options.optimiser}
                    key |= {"start": start, "epochs": epochs, "lr": rate, "seed": seed}
                    if any(row.items() >= key.items() for row in rows()):
                        continue
                    row = {**key, **measure(networks, key)}
                    kept = [*rows(), row]  # another process may have added rows meanwhile
                    write_text(OUT, json.dumps({"environment": environment(), "rows": kept}, indent=1) + "\n")
                    print(row, flush=True)
    show(rows())


if __name__ == "__main__":
    main()
