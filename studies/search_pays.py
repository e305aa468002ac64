"""Does a search pay? One network, one budget, one recipe, several ways to the structure, several seeds of each.

    SECATEUR_DATA=... python studies/search_pays.py                              # ResNet-20 at 33 % MACs, short
    SECATEUR_DATA=... python studies/search_pays.py --long --seeds 3             # four passes over all images
    SECATEUR_DATA=... python studies/search_pays.py --long --device cuda --jobs 12
    SECATEUR_DATA=... python studies/search_pays.py --network resnet56 --seeds 3 # ResNet-56 at 20 % MACs
    SECATEUR_DATA=... python studies/search_pays.py --table                      # what is there so far

From the reference checkpoints, CIFAR-10. Seed s of a way is its own structure (a search with seed s; a rule gives the
same each time) and its own training with seed s. Every structure is trained from refitted weights and, for scale, from
cut ones; validation images choose, the test images are looked at once, at the last epoch. Torch-Pruning's structures
lie in studies/peers/ (`studies/torch_pruning_peer.py` makes them).

Structures are kept in runs/search-pays/, rows in studies/results/search_pays.json, each written as it is done and not
done again, so that a killed run goes on; `--jobs` makes several at a time, first the structures, then the trainings.
Structures are found on the CPU. "search, moves at random" is the search before its sampler guessed which neighbour is
best, "search, layers by moves alone" that before it tried first which layers may go; in "search" all layers stay.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from filelock import FileLock

import secateur as sc
from backbones.cost import cost
from backbones.files import write_text
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.data.data import subset
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.families import FAMILIES, draw
from search.space.prepare import confirming_task, prepare_problem, scoring_task
from search.study import evolution
from search.study.rules import RuleSettings, structure_of
from search.training.parallel import in_processes

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "search_pays.json"
MACS = {"resnet20": 0.33, "resnet56": 0.20}
PEERS = {"resnet20": "torch_pruning_resnet20_33", "resnet56": "torch_pruning_resnet56_20"}
RULES = ("uniform", "global", "sensitivity", "error")
SEARCHES: dict[str, dict[str, Any]] = {
    "search": {"sampler": "evolution"},
    "search, moves at random": {"sampler": "evolution"},
    "search by tpe": {"sampler": "tpe"},
    "search by tpe, cold": {"sampler": "tpe", "warm_start": ()},
    "search by region_kernel": {"sampler": "evolution", "scorer": "region_kernel"},
    "search, layers may go": {"sampler": "evolution", "removal": sc.Removal(choice="each")},
    "search, layers by moves alone": {"sampler": "evolution", "removal": sc.Removal(choice="each")},
}
WITHOUT: dict[str, dict[str, Any]] = {
    "search, moves at random": {"LEARNED_FROM": sys.maxsize},
    "search, layers by moves alone": {"next_removal": lambda *_: ()},
}
"""What a sampler of local moves did not have yet where a way was measured before: its names and what stands there."""
FINALISTS = "search, 8 finalists"
WAYS = (FINALISTS, *SEARCHES, *RULES, "Torch-Pruning", "best of 20 random")
RATES = {("refitted", 1): 0.02, ("cut", 1): 0.02, ("refitted", 4): 0.02, ("cut", 4): 0.05}
"""Learning rate by start and passes: `benchmarks/reconstruction.py retrain` chose it on validation images."""

Settings = tuple[str, str, int, str]
"""Network, criterion, trials, device."""


class Bench:
    """One network and budget, and what is known of the ways so far."""

    def __init__(self, network: str, criterion: str, trials: int, device: str) -> None:
        self.network, self.criterion, self.trials, self.device = network, criterion, trials, device
        file = read_study(HERE / f"scorers_{self.network}.toml")
        inputs = load_inputs(file, HERE, "cpu")
        self.model, self.graph, self.data = inputs.model.eval(), inputs.graph, inputs.data
        self.budget = sc.Budget(macs=MACS[self.network])
        self.space = sc.Space("ratios", criterion=self.criterion)
        self.runs = Path("runs/search-pays") / self.network
        self.runs.mkdir(parents=True, exist_ok=True)
        task = scoring_task(self.model, self.graph, self.data, 128, 0, scorer="reconstruction")
        self.problem = prepare_problem(self.space, task, self.budget, scorer="reconstruction")
        self.fresh = confirming_task(task, self.data, 0)
        self.short = subset(self.data, 10_000, 0)
        self.targets = sc.gather_targets(self.model, self.graph, self.data.batch(512, 0)[0])

    def structure(self, way: str, seed: int) -> sc.Structure:
        """What a way gives; kept, with the seconds that it took."""
        fixed = way in RULES or way == "Torch-Pruning"
        path = self.runs / f"{self._name(way, 0 if fixed else seed)}.json"
        if not path.is_file():
            start = time.perf_counter()
            structure = self._make(way, seed)
            found = {"seconds": round(time.perf_counter() - start, 1), "structure": json.loads(structure.to_json())}
            write_text(path, json.dumps(found) + "\n")
        return sc.Structure.from_json(json.dumps(json.loads(path.read_text())["structure"]))

    def _name(self, way: str, seed: int) -> str:
        return f"{way.replace(',', '').replace(' ', '-')}-{self.criterion}-{seed}"

    def _make(self, way: str, seed: int) -> sc.Structure:
        if way in SEARCHES:
            return self._found(way, seed, 1)[0]
        if way == FINALISTS:
            return self._best_trained(self._found("search", seed, 8), seed)
        if way == "Torch-Pruning":
            return sc.Structure.from_json((HERE / "peers" / f"{PEERS[self.network]}.json").read_text())
        if way == "best of 20 random":
            drawn = draw(self.problem, self.problem.targets[0], 20, FAMILIES, seed)
            return self._best_trained([one.structure for one in drawn], seed)
        return structure_of(way, self.problem, self.problem.targets[0], RuleSettings(self.criterion))

    def _found(self, way: str, seed: int, number: int) -> list[sc.Structure]:
        """The best of a search by score, confirmed on images that no trial saw."""
        name = self._name(way, seed)
        settings: dict[str, Any] = {"scorer": "reconstruction", **SEARCHES[way]}
        space = replace(self.space, removal=settings.pop("removal", None))
        study = sc.Study(
            name,
            self.model,
            self.graph,
            self.data,
            budget=self.budget,
            space=space,
            seed=seed,
            storage=f"sqlite:///{self.runs}/{name}.db",
            folder=self.runs / name,
            **settings,
        )
        without: dict[str, Any] = WITHOUT.get(way, {})
        with mock.patch.multiple(evolution, **without) if without else nullcontext():
            study.search(self.trials)
        return [one.structure for one in study.finalists(number).members if one.structure is not None]

    def _best_trained(self, structures: list[sc.Structure], seed: int) -> sc.Structure:
        """Trains each once, short, and takes the best on validation images; each accuracy is kept as it is known."""
        recipe = replace(short_recipe(), lr=RATES["refitted", 1], seed=100 + seed)
        path = self.runs / f"trained-{self.criterion}-{seed}.json"
        known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        for structure in structures:
            if structure.id not in known:
                network = sc.reconstruct(self.model, self.graph, structure, self.targets)
                history = sc.train(network, self.short, recipe, progress=False, test=False, device=self.device)
                known[structure.id] = history.validation_accuracy
                write_text(path, json.dumps(known) + "\n")
        return max(structures, key=lambda one: known[one.id])

    def train(self, structure: sc.Structure, start: str, passes: int, seed: int) -> dict[str, Any]:
        """One training: validation and test accuracy at the end."""
        cut = sc.prune(self.model, self.graph, structure, check=False)
        network = cut if start == "cut" else sc.reconstruct(self.model, self.graph, structure, self.targets)
        recipe = replace(short_recipe(), epochs=passes, lr=RATES[start, passes], seed=seed)
        data = self.data if passes > 1 else self.short
        history = sc.train(network, data, recipe, progress=False, device=self.device)
        return {
            "before": history.start_accuracy,
            "validation": history.validation_accuracy,
            "test": history.test_accuracy,
            "seconds": round(history.seconds, 1),
        }

    def row(self, way: str, seed: int, start: str, passes: int) -> dict[str, Any]:
        """One row: a structure, what it costs, its scores, and what training makes of it."""
        structure = self.structure(way, seed)
        spent = cost(self.graph, structure)
        score = scorer_of("reconstruction")
        facts = {
            "structure": structure.id,
            "macs": spent.macs,
            "params": spent.params,
            "score": score(ScoredStructure(self.problem.task, structure)),
            "fresh": score(ScoredStructure(self.fresh, structure)),
            "rate": RATES[start, passes],
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
        }
        return {
            **key_of(self.network, self.criterion, way, seed, start, passes),
            **facts,
            **self.train(structure, start, passes, seed),
        }


def key_of(network: str, criterion: str, way: str, seed: int, start: str, passes: int) -> dict[str, Any]:
    """What tells a row from others."""
    key = {"network": network, "criterion": criterion, "way": way, "seed": seed}
    return key | {"start": start, "passes": passes}


bench_of = functools.cache(Bench)
"""One for each process."""


def make_structure(settings: Settings, way: str, seed: int) -> str:
    """Finds a structure unless it is kept; returns which."""
    bench_of(*settings).structure(way, seed)
    return f"{way}, seed {seed}: the structure is there"


def make_row(settings: Settings, way: str, seed: int, start: str, passes: int) -> dict[str, Any]:
    """A row, in a process of its own."""
    return bench_of(*settings).row(way, seed, start, passes)


def short_recipe() -> sc.Recipe:
    """One pass, batches of 64, one-cycle, no teacher."""
    return sc.Recipe(epochs=1, batch_size=64, distill=0.0, schedule="one-cycle")


def add(made: dict[str, Any]) -> None:
    """Keeps a row; other commands may do so at the same time."""
    with FileLock("runs/search-pays/rows.lock"):
        write_text(OUT, json.dumps({"environment": environment(), "rows": [*rows(), made]}, indent=1) + "\n")
    print(made, flush=True)


def rows() -> list[dict[str, Any]]:
    """What is known."""
    found: list[dict[str, Any]] = json.loads(OUT.read_text())["rows"] if OUT.is_file() else []
    return found


def table() -> str:
    """Mean and deviation of test accuracy over seeds, and the scores on the search's and on fresh images."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows():
        key = ("network", "passes", "start", "way", "criterion")
        groups.setdefault(tuple(row[name] for name in key), []).append(row)

    def mean(some: list[dict[str, Any]], name: str) -> float:
        return statistics.fmean(float(one[name]) for one in some)

    lines = [
        "| network | passes | from | way | filters by | seeds | test | sd | before | score | fresh |",
        "|---" * 11 + "|",
    ]
    for key, some in sorted(groups.items(), key=lambda pair: (*pair[0][:3], -mean(pair[1], "test"))):
        spread = f"{100 * statistics.stdev(one['test'] for one in some):.2f}" if len(some) > 1 else "-"
        cells = [*map(str, key), str(len(some)), f"{100 * mean(some, 'test'):.2f}", spread]
        cells += [f"{100 * mean(some, 'before'):.1f}", f"{mean(some, 'score'):.3f}", f"{mean(some, 'fresh'):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=tuple(MACS), default="resnet20")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--starts", nargs="+", choices=("refitted", "cut"), default=("refitted", "cut"))
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them")
    parser.add_argument("--long", action="store_true", help="four passes over all images")
    parser.add_argument("--device", default="cpu", help="where networks are trained")
    parser.add_argument("--jobs", type=int, default=1, help="at the same time, the cores divided among them")
    parser.add_argument("--table", action="store_true", help="print what is known and stop")
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    settings = (options.network, options.criterion, options.trials, options.device)
    seeds, passes = range(options.first, options.first + options.seeds), 4 if options.long else 1
    wanted = [(way, seed, start, passes) for seed in seeds for way in options.ways for start in options.starts]
    left = [one for one in wanted if not is_known(options, *one)]
    finding = [partial(make_structure, settings, *one) for one in dict.fromkeys((way, seed) for way, seed, *_ in left)]
    for told in in_processes(finding, options.jobs):
        print(told, flush=True)
    for made in in_processes([partial(make_row, settings, *one) for one in left], options.jobs):
        add(made)


def is_known(options: argparse.Namespace, way: str, seed: int, start: str, passes: int) -> bool:
    """Whether there is such a row."""
    key = key_of(options.network, options.criterion, way, seed, start, passes)
    return any(all(row[name] == value for name, value in key.items()) for row in rows())


if __name__ == "__main__":
    main()
