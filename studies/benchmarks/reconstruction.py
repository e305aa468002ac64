"""What refitting is worth: accuracy as cut and refitted, against images and rows, and after retraining.

    SECATEUR_DATA=... python studies/benchmarks/reconstruction.py accuracy     # minutes; --network resnet56 likewise
    SECATEUR_DATA=... python studies/benchmarks/reconstruction.py images       # settings likewise
    SECATEUR_DATA=... python studies/benchmarks/reconstruction.py speed        # one thread; processor seconds
    SECATEUR_DATA=... python studies/benchmarks/reconstruction.py quick        # accuracy of the ways that speed times
    SECATEUR_DATA=... python studies/benchmarks/reconstruction.py retrain      # hours with --long

Reference checkpoints of ResNet-20 and ResNet-56 on CIFAR-10. Images to fit come from the training split; accuracy
before retraining is on 2,000 images of the validation split (the checkpoints saw both), after it on the test images,
at the last epoch. Every row is kept in reconstruction.json beside this file as it is done, and not done again.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import secateur as sc
from backbones.files import write_text
from backbones.modes import evaluating, fast_precision
from scoring.logit_scores import SCORED_AT_ONCE
from scoring.reconstruction import fit as fit_module
from scoring.reconstruction import refit as refit_module
from scoring.reconstruction import ridge as ridge_module
from scoring.reconstruction.refit import ROUNDS, refit
from search.data.data import subset
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.sections import ModelSection
from search.run.study_file import read_study
from search.space.families import FAMILIES, draw
from search.space.prepare import prepare_problem, scoring_task
from search.space.problem import SearchProblem
from search.study.rules import RuleSettings, structure_of

HERE = Path(__file__).resolve().parent
FILES = {name: HERE.parent / f"scorers_{name}.toml" for name in ("resnet20", "resnet56")}
TRAINED = {"vgg16_bn_cifar": sc.Recipe(epochs=4, lr=0.1, distill=0.0, schedule="one-cycle")}
"""Networks without a reference checkpoint, and how they are trained here; kept in runs/reconstruction/."""
PEERS = {("resnet20", 0.30): "torch_pruning_resnet20_30", ("resnet56", 0.20): "torch_pruning_resnet56_20"}
CASES = (
    ("resnet20", 0.50),
    ("resnet20", 0.33),
    ("resnet20", 0.30),
    ("resnet20", 0.20),
    ("resnet56", 0.50),
    ("resnet56", 0.20),
    ("vgg16_bn_cifar", 0.50),
    ("vgg16_bn_cifar", 0.20),
)
SETS = {("resnet20", 0.33): 40, ("resnet56", 0.20): 16}
"""Random structures of all families, as `secateur evaluate` draws them (sets A and C)."""
IMAGES, ROWS, LOOKED_AT = 512, 16_384, 2_000
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
IMAGES_AND_ROWS = (
    *((64, 8192), (128, 8192), (256, 4096), (256, 8192), (256, 32768), (512, 16384), (512, 65536)),
    *((1024, 16384), (1024, 65536), (2048, 16384), (2048, 65536), (4096, 65536)),
)


class Bench:
    """One network on CIFAR-10, and the results so far."""

    def __init__(self, backbone: str, out: Path) -> None:
        self.backbone, self.out = backbone, out
        path = FILES.get(backbone, FILES["resnet20"])
        file = read_study(path)
        if backbone in TRAINED:
            file = replace(file, model=ModelSection(backbone))
        inputs = load_inputs(file, path.parent, "cpu")
        if backbone in TRAINED:
            torch.set_num_threads(1)
            folder = Path("runs/reconstruction") / backbone
            print(sc.train(inputs.model, inputs.data, TRAINED[backbone], folder=folder, progress=False), flush=True)
        self.model, self.graph, self.data = inputs.model.eval(), inputs.graph, inputs.data
        held_out = self.data.validation
        assert isinstance(held_out, sc.Split)
        self.images = self.data.normalise(held_out.images[:LOOKED_AT])
        self.labels = held_out.labels[:LOOKED_AT]

    def targets(self, images: int = IMAGES, rows: int = ROWS, seed: int = 0, **options: Any) -> sc.DenseTargets:
        """The dense network's part, on images of the training split."""
        batch = self.data.batch(images, seed)[0].contiguous(memory_format=torch.channels_last)
        return sc.gather_targets(self.model, self.graph, batch, rows=rows, **options)

    def problem(self, macs: float, criterion: str = "l2") -> SearchProblem:
        """The rules' view of a budget."""
        space = sc.Space("ratios", criterion=criterion)
        task = scoring_task(self.model, self.graph, self.data, 128, 0)
        return prepare_problem(space, task, sc.Budget(macs=macs), scorer="region_kernel")

    def structures(self, macs: float) -> Iterator[tuple[str, sc.Structure]]:
        """The rules', Torch-Pruning's where it is committed, and a set of random ones."""
        for criterion in ("l2", "reconstruction"):
            problem = self.problem(macs, criterion)
            for rule in ("uniform", "global", "sensitivity"):
                settings = RuleSettings(criterion=criterion)
                yield f"{rule}, {criterion}", structure_of(rule, problem, problem.targets[0], settings)
        peer = PEERS.get((self.backbone, macs))
        if peer is not None:
            yield "Torch-Pruning", sc.Structure.from_json((HERE.parent / "peers" / f"{peer}.json").read_text())
        problem = self.problem(macs)
        for number, one in enumerate(
            draw(problem, problem.targets[0], SETS.get((self.backbone, macs), 0), FAMILIES, 0)
        ):
            yield f"random {number}", one.structure

    def accuracy(self, network: nn.Module) -> float:
        """On the images that were held out, in evaluation mode."""
        right = 0
        with evaluating(network), torch.no_grad():
            for images, labels in zip(self.images.split(250), self.labels.split(250), strict=True):
                given: Tensor = network(images.contiguous(memory_format=torch.channels_last))
                right += int((given.argmax(1) == labels).sum())
        return right / len(self.labels)

    def keep(self, table: str, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> None:
        """Makes a row unless it is there, and writes the file at once."""
        key = {"network": self.backbone, **key}
        if any(all(row.get(name) == value for name, value in key.items()) for row in self._read().get(table, [])):
            return
        row = {**key, **make()}
        record = self._read()  # another process may have added rows meanwhile
        record.setdefault(table, []).append(row)
        write_text(self.out, json.dumps({"environment": environment(), **record}, indent=1) + "\n")
        print(table, row, flush=True)

    def _read(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.out.read_text()) if self.out.is_file() else {}
        return record


def accuracy_table(bench: Bench, budgets: list[float]) -> None:
    """As cut (statistics renewed), by channel statistics, layer by layer."""
    targets, batch = bench.targets(), bench.data.batch(IMAGES, 0)[0]
    grams = sc.gather_grams(bench.model, bench.graph, batch)
    for macs in budgets:
        for name, structure in bench.structures(macs):

            def make(structure: sc.Structure = structure) -> dict[str, Any]:
                cut = sc.prune(bench.model, bench.graph, structure, check=False)
                sc.recalibrate(cut, batch.split(64))
                by_channels = sc.reconstruct(bench.model, bench.graph, structure, grams, method="channels")
                found = {"cut": cut, "channels": by_channels, "layers": refit(targets, structure)}
                return {way: bench.accuracy(network) for way, network in found.items()}

            bench.keep("accuracy", {"macs": macs, "structure": name}, make)


def images_table(bench: Bench) -> None:
    """Uniform widths and equal sensitivity at 33 %, by images and rows."""
    problem = bench.problem(0.33)
    for images, rows in IMAGES_AND_ROWS:
        for rule in ("uniform", "sensitivity"):

            def make(rule: str = rule, images: int = images, rows: int = rows) -> dict[str, Any]:
                structure = structure_of(rule, problem, problem.targets[0])
                found = [bench.accuracy(refit(bench.targets(images, rows, seed), structure)) for seed in range(3)]
                return {"mean": statistics.mean(found), "std": statistics.stdev(found)}

            bench.keep("images", {"images": images, "rows": rows, "structure": rule}, make)


def settings_table(bench: Bench) -> None:
    """What each part of the method is worth: uniform widths and equal sensitivity at 33 %."""
    problem, whole = bench.problem(0.33), bench.targets()
    alone = replace(whole, layers={path: replace(target, other=None) for path, target in whole.layers.items()})
    ways: dict[str, tuple[sc.DenseTargets, dict[str, Any]]] = {"default": (whole, {})}
    ways |= {f"ridge {ridge}": (whole, {"ridge": ridge}) for ridge in (0.003, 0.01, 0.1)}
    ways |= {f"{rounds} rounds with the ReLU": (whole, {"rounds": rounds}) for rounds in (0, 1, 4)}
    ways["branches do not make up for the stream"] = (alone, {})
    makers = {name: partial(refit, targets, **options) for name, (targets, options) in ways.items()}
    makers["a second sweep"] = partial(_swept_twice, whole)
    makers |= {f"ridge of each layer by {how}": partial(_ridges_chosen, whole, how) for how in ("GCV", "other images")}
    for name, make_network in makers.items():
        for rule in ("uniform", "sensitivity"):

            def make(rule: str = rule, make_network: Callable[..., nn.Module] = make_network) -> dict[str, Any]:
                return {"layers": bench.accuracy(make_network(structure_of(rule, problem, problem.targets[0])))}

            bench.keep("settings", {"way": name, "structure": rule}, make)


def _swept_twice(targets: sc.DenseTargets, structure: sc.Structure) -> nn.Module:
    """Refits once more, now drawn to the weights that the first pass has found."""
    first = refit(targets, structure)
    with mock.patch.object(refit_module, "prune", return_value=copy.deepcopy(first)):
        return refit(targets, structure)


def _ridges_chosen(targets: sc.DenseTargets, how: str, structure: sc.Structure) -> nn.Module:
    """Refits with the ridge of every layer that fits best, out of `RIDGES`, to its targets before any is freed.

    By generalised cross-validation (Golub, Heath, Wahba, Technometrics 1979, equation 1.4), which takes rows for
    independent, or on the images of the last quarter of the rows (rows lie image by image) with weights of the rest.
    """
    plain = fit_module.fit

    def fit(patches: Tensor, wanted: Tensor, old: Tensor, **options: Any) -> Any:
        rows, (inputs, residual) = patches.shape[1], (patches.double(), (wanted - patches @ old).double())
        if options["centred"]:
            inputs, residual = inputs - inputs.mean(1, keepdim=True), residual - residual.mean(1, keepdim=True)
        first = rows if how == "GCV" else rows * 3 // 4
        values, turn = torch.linalg.eigh(inputs[:, :first].mT @ inputs[:, :first])
        along = turn.mT @ (inputs[:, :first].mT @ residual[:, :first])
        mean = values.clamp(min=0).mean(1)[:, None]

        def error(ridge: float) -> float:
            shrunk = values.clamp(min=0) + ridge * mean + 1e-12
            weights = turn @ (along / shrunk[..., None])
            left = (residual[:, first:] if first < rows else residual) - inputs[:, first % rows :] @ weights
            used = (values / shrunk).sum(1) / rows if how == "GCV" else torch.zeros(len(values))
            return float((left.square().sum((1, 2)) / (1 - used).clamp(min=1e-3).square()).sum())

        return plain(patches, wanted, old, **{**options, "ridge": min(RIDGES, key=error)})

    with mock.patch.object(refit_module, "fit", fit):
        return refit(targets, structure)


def _ways(bench: Bench) -> dict[str, tuple[sc.DenseTargets, int]]:
    """Targets and rounds: as for a network that is kept, and faster ones for networks that are compared."""
    return {
        "8192 rows, 2 rounds": (bench.targets(256, 8192), ROUNDS),
        "8192 rows, 1 round": (bench.targets(256, 8192), 1),
        "16 rows an unknown, 1 round": (bench.targets(256, 8192, rows_per_unknown=16), 1),
        "8 rows an unknown, 1 round": (bench.targets(256, 8192, rows_per_unknown=8), 1),
        "6 rows an unknown, 1 round": (bench.targets(256, 8192, rows_per_unknown=6), 1),
    }


def quick_table(bench: Bench, macs: float) -> None:
    """What the faster ways cost: accuracy of the rules' structures and the random ones, and the order they are in."""
    structures = {name: structure for name, structure in bench.structures(macs) if not name.endswith("reconstruction")}
    first: list[float] = []
    for way, (targets, rounds) in _ways(bench).items():
        found = {
            name: bench.accuracy(refit(targets, one, rounds=rounds, forward_only=True))
            for name, one in structures.items()
        }
        first = first or list(found.values())
        row = {
            "random": statistics.mean(value for name, value in found.items() if name.startswith("random")),
            "tau": float(kendalltau(first, list(found.values())).statistic),
            **found,
        }
        bench.keep("quick", {"way": way, "images": 256, "macs": macs}, lambda row=row: row)  # type: ignore[misc]


def speed_table(bench: Bench) -> None:
    """Processor seconds of one thread: a refit by its parts, and a forward pass over as many other images.

    Uniform widths at 20 %, 256 images, for forward passes only, as a score does it. The ways take turns, seven
    rounds; medians, and the median of a round's ratio to its own forward pass, which a busy machine moves less.
    """
    torch.set_num_threads(1)
    problem = bench.problem(0.20)
    ways = _ways(bench)
    others = bench.data.batch(256, 1)[0].contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(7):
        start = time.process_time()
        structure = structure_of("uniform", problem, problem.targets[0])
        projecting = time.process_time() - start
        for way, (targets, rounds) in ways.items():
            network, spent = _timed_refit(targets, structure, rounds)
            start = time.process_time()
            with evaluating(network), torch.no_grad(), fast_precision(others):
                for piece in others.split(SCORED_AT_ONCE):
                    network(piece)
            spent["forward"] = time.process_time() - start
            whole = projecting + spent["refit"] + spent["forward"]
            ratio = spent["refit"] / spent["forward"]
            seconds[way].append({"project": projecting, **spent, "trial": whole, "refit in forward passes": ratio})
    for way, rows in seconds.items():
        found = {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}
        bench.keep("speed", {"way": way, "images": 256}, lambda found=found: found)  # type: ignore[misc]


PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "surgery": ((refit_module, "prune"),),
    "patches": ((refit_module, "gather"),),
    "products": ((fit_module, "multiply"), (ridge_module, "multiply")),
    "solve": ((ridge_module, "cholesky"), (ridge_module.Ridge, "_divided")),
    "layers": ((refit_module._Layer, "plain_with"),),
}
"""Parts of a refit, and the functions that they are spent in."""


def _timed_refit(targets: sc.DenseTargets, structure: sc.Structure, rounds: int) -> tuple[nn.Module, dict[str, float]]:
    """The network, and processor seconds by part."""
    spent = dict.fromkeys(PARTS, 0.0)

    def timing(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[part] += time.process_time() - start

        return timed

    with ExitStack() as stack:
        for part, places in PARTS.items():
            for place, name in places:
                stack.enter_context(mock.patch.object(place, name, timing(part, getattr(place, name))))
        start = time.process_time()
        network = refit(targets, structure, rounds=rounds, forward_only=True)
        whole = time.process_time() - start
    return network, {**spent, "rest": whole - sum(spent.values()), "refit": whole}


def retrain_table(bench: Bench, long: bool, seeds: int, rates: dict[str, list[float]], rules: list[str]) -> None:
    """From cut and refitted weights: one pass over 10,000 images, or four over all; no teacher, one-cycle."""
    torch.set_num_threads(1)
    targets, problem = bench.targets(), bench.problem(0.33)
    data = bench.data if long else subset(bench.data, 10_000, 0)
    recipe = sc.Recipe(epochs=4 if long else 1, batch_size=64, distill=0.0, schedule="one-cycle")
    for seed in range(seeds):
        for rule in rules:
            structure = structure_of(rule, problem, problem.targets[0])
            for start, tried in rates.items():
                for rate in tried:

                    def make(
                        structure: sc.Structure = structure, start: str = start, rate: float = rate, seed: int = seed
                    ) -> dict[str, Any]:
                        cut = sc.prune(bench.model, bench.graph, structure, check=False)
                        network = cut if start == "cut" else refit(targets, structure)
                        history = sc.train(network, data, replace(recipe, lr=rate, seed=seed), progress=False)
                        return {
                            "start": history.start_accuracy,
                            "validation": history.validation_accuracy,
                            "test": history.test_accuracy,
                            "seconds": history.seconds,
                        }

                    key = {"structure": rule, "from": start, "rate": rate, "seed": seed, "passes": recipe.epochs}
                    bench.keep("retrain", key, make)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("accuracy", "images", "settings", "speed", "quick", "retrain"))
    parser.add_argument("--network", choices=(*FILES, *TRAINED), default="resnet20")
    parser.add_argument("--macs", type=float, nargs="*", default=[])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cut", type=float, nargs="*", default=[0.02, 0.05, 0.1], help="rates from cut weights")
    parser.add_argument("--refitted", type=float, nargs="*", default=[0.01, 0.02, 0.05], help="from refitted ones")
    parser.add_argument("--rules", nargs="+", default=["uniform", "sensitivity"])
    parser.add_argument("--out", type=Path, default=HERE / "reconstruction.json")
    options = parser.parse_args()
    bench = Bench(options.network, options.out)
    if options.table == "accuracy":
        accuracy_table(bench, options.macs or [macs for name, macs in CASES if name == options.network])
    elif options.table == "images":
        images_table(bench)
    elif options.table == "settings":
        settings_table(bench)
    elif options.table == "speed":
        speed_table(bench)
    elif options.table == "quick":
        quick_table(bench, (options.macs or [0.20])[0])
    else:
        rates = {"cut": options.cut, "refitted": options.refitted}
        retrain_table(bench, options.long, options.seeds, rates, options.rules)


if __name__ == "__main__":
    main()
