"""Retrainings of two structures: one after the other on all threads, or at the same time in processes of their own.

    SECATEUR_DATA=... python studies/benchmarks/retrainings.py    # needs the machine for itself; minutes

ResNet-56 from the reference checkpoint at 20 % of its MACs, the default recipe (it distils from the dense network, and
does not compile trainings as short as this) from cut weights, `--images` of CIFAR-10. The seconds of `Study.retrain`,
beginning of the processes, validation and test included, the ways in turns, each round another seed; kept in
retrainings.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import secateur as sc
from backbones.files import write_text
from search.data.data import subset
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    inputs = load_inputs(read_study(HERE.parent / "scorers_resnet56.toml"), HERE.parent, "cpu")
    data = subset(inputs.data, options.images, 0)
    count = torch.get_num_threads()
    seconds: dict[int, list[float]] = {1: [], count: []}
    with tempfile.TemporaryDirectory() as folder:
        url, budget = f"sqlite:///{folder}/s.db", sc.Budget(macs=0.2)
        study = sc.Study(
            "s", inputs.model.eval(), inputs.graph, data, budget=budget, storage=url, scorer="params", folder=folder
        )
        study.search(8, progress=False)
        study.dense_accuracy()  # measured once a study
        recipe = sc.Recipe(epochs=options.epochs)
        for number in range(options.rounds):
            for jobs, spent in seconds.items():
                start = time.perf_counter()
                one = replace(recipe, seed=2 * number + (jobs > 1))
                study.retrain(2, recipe=one, start="cut", jobs=jobs, progress=False)
                spent.append(round(time.perf_counter() - start, 1))
                print(f"{jobs} at the same time: {spent[-1]} s", flush=True)
    ratios = [alone / together for alone, together in zip(seconds[1], seconds[count], strict=True)]
    print(f"side by side {statistics.median(ratios):.2f} times as fast")
    record = {
        "environment": environment(),
        "settings": vars(options),
        "threads": count,
        "seconds": seconds,
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    write_text(HERE / "retrainings.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
