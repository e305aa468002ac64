"""Several structures scored at once: one after the other on all cores, by threads, by processes; and a search's rules.

    SECATEUR_DATA=... python studies/benchmarks/at_once.py        # needs the machine for itself; three minutes

ResNet-56 at 20 % of the MACs, score `reconstruction`, random structures of all families; wall seconds a structure, the
ways in turns, median of the rounds, and seconds that each rule of the warm start takes. Kept in at_once.json.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from unittest import mock

from joblib import cpu_count

import secateur as sc
from backbones.files import write_text
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.families import FAMILIES, draw
from search.space.prepare import prepare_problem, scoring_task
from search.study import scores
from search.study.rules import RuleSettings, structure_of
from search.study.scores import ScoreCache
from search.study.warm_start import RULES

HERE = Path(__file__).resolve().parent
ROUNDS, STRUCTURES = 3, 8
WAYS = {"one after the other": (1, 0.0), "threads": (cpu_count(), float("inf")), "processes": (cpu_count(), 0.0)}
"""Jobs, and seconds of a score from which processes are begun."""


def main() -> None:
    """Measures, prints and writes."""
    inputs = load_inputs(read_study(HERE.parent / "scorers_resnet56.toml"), HERE.parent, "cpu")
    model = inputs.model.eval()
    task = scoring_task(model, inputs.graph, inputs.data, 128, 0, scorer="reconstruction")
    problem = prepare_problem(sc.Space("ratios"), task, sc.Budget(macs=0.2), scorer="reconstruction")
    target = problem.targets[0]
    rules = {}
    for rule in RULES:
        start = time.perf_counter()
        structure_of(rule, problem, target, RuleSettings())
        rules[rule] = round(time.perf_counter() - start, 2)
        print(rule, rules[rule], flush=True)
    structures = [one.structure for one in draw(problem, target, STRUCTURES, FAMILIES, 0)]
    cache, spent = ScoreCache("reconstruction", task), {way: list[float]() for way in WAYS}
    for number in range(ROUNDS + 1):
        for way, (jobs, processes_from) in WAYS.items():
            cache.known.clear()
            start = time.perf_counter()
            with mock.patch.object(scores, "PROCESSES_FROM", processes_from):
                for first in range(0, STRUCTURES, jobs):  # in batches, as a search does
                    list(cache.of(structures[first : first + jobs], jobs))
            if number:  # the first round begins the processes
                spent[way].append((time.perf_counter() - start) / STRUCTURES)
    found = {way: round(statistics.median(seconds), 3) for way, seconds in spent.items()}
    print(found)
    record = {"environment": environment(), "cores": cpu_count(), "rules": rules, "seconds a structure": found}
    write_text(HERE / "at_once.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
