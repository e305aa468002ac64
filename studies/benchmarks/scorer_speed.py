"""Where the time of a trial goes, and how it compares with Torch-Pruning's surgery and NASWOT by forward hooks.

    pip install torch-pruning==1.6.1        # for the comparison only, no dependency; without it `prune` cuts
    python studies/benchmarks/scorer_speed.py [--weights resnet56-4bfd9763.th] [--threads 2] [--out x.json] [--short]

ResNet-56 at 20 % of the MACs, batch 128; ours in bfloat16 where the processor has instructions for it. The reference
chain cuts the filters inside the blocks to a fifth (19.6 % of the MACs) and computes NASWOT as published: a hook
on every ReLU, codes in float32, two products a layer. Ours are whole trials of a study: ask, propose, project, cost,
cut, score, store. Both take turns, wall clock and processor time; the ratio is the median within a round. Images are
CIFAR-10 where `SECATEUR_DATA` has it, else noise. `--parts` picks among them, `--compared 1` the first scorer of
`chain`; `--short` runs all on a small network in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from backbones.architectures.resnet_cifar import CifarBlock, CifarResNet  # noqa: E402
from backbones.checkpoint import load_checkpoint  # noqa: E402
from backbones.files import write_text  # noqa: E402
from backbones.graph import ChannelGraph  # noqa: E402
from backbones.modes import fast_precision, halves_pay  # noqa: E402
from backbones.registry import build  # noqa: E402
from backbones.structure import Structure  # noqa: E402
from backbones.surgery import prune  # noqa: E402
from backbones.trace import trace  # noqa: E402
from scoring.batch_norm import recalibrate  # noqa: E402
from scoring.codes import CodeAgreement, watch_preactivations  # noqa: E402
from scoring.naswot import log_det, naswot  # noqa: E402
from scoring.scorers import DEFAULT_SCORER, SCORERS  # noqa: E402
from scoring.scoring_task import ScoredStructure, ScoringTask  # noqa: E402
from search.data.cifar import cifar10  # noqa: E402
from search.data.data import Data  # noqa: E402
from search.space.budget import Budget  # noqa: E402
from search.space.families import FAMILIES, draw  # noqa: E402
from search.space.projection import project  # noqa: E402
from search.space.proposals import propose  # noqa: E402
from search.study.identity import versions  # noqa: E402
from search.study.samplers import sampler_for  # noqa: E402
from search.study.study import Study  # noqa: E402

Times = dict[str, float]
Pair = tuple[float, float]
"""Wall clock and processor seconds."""
COMPARED = ("fidelity", "region_kernel", "region_separation")


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    network: str = "resnet56"
    depths: tuple[str, ...] = ("resnet20", "resnet56", "resnet110")
    batches: tuple[int, ...] = (32, 64, 128, 256, 512)
    widths: tuple[float, ...] = (0.1, 0.2, 0.4, 0.7, 1.0)
    batch: int = 128
    renewal: int = 1280
    side: int = 32
    structures: int = 40
    rounds: int = 12
    trials: int = 1000
    smaller: tuple[int, ...] = (96, 64, 48, 32)
    compared: tuple[tuple[str, int], ...] = (
        ("naswot", 128),
        ("naswot", 64),
        ("naswot", 32),
        (DEFAULT_SCORER, 128),
        (DEFAULT_SCORER, 64),
        ("naswot_last+region_kernel", 128),
        ("fidelity", 128),
    )


SHORT = Scale("resnet20", ("resnet20",), (8, 16), (0.2, 1.0), 16, 32, 8, 4, 1, 2, (8,), (("region_kernel", 16),))


@dataclass(frozen=True)
class Bench:
    """A network, its graph, and images."""

    model: nn.Module
    graph: ChannelGraph
    data: Data
    scale: Scale
    folder: str

    def study(self, scorer: str, space: str = "ratios", sampler: str = "random", batch: int | None = None) -> Study:
        """A fresh study at 20 % of the MACs, without the rules that usually come first."""
        batch = batch or self.scale.batch
        name = f"{scorer}-{space}-{sampler}-{batch}".replace("+", "-")
        place: dict[str, Any] = {
            "storage": f"sqlite:///{self.folder}/{name}.db",
            "folder": self.folder,
            "batch": batch,
        }
        options: dict[str, Any] = {
            "budget": Budget(macs=0.2),
            "scorer": scorer,
            "space": space,
            "sampler": sampler,
            "warm_start": (),
        }
        return Study(name, self.model, self.graph, self.data, **options, **place)

    def task(
        self, recalibrate: list[Tensor] | None = None, batch: int | None = None, half: bool | None = None
    ) -> ScoringTask:
        """The network on the scoring batch; `half` as a study decides it."""
        images = self.data.batch(batch or self.scale.batch, 0)
        return ScoringTask(self.model, self.graph, *images, recalibrate, half=half)

    def renewal(self, seed: int = 1) -> list[Tensor]:
        """Recalibration batches as in a study."""
        return list(self.data.batch(self.scale.renewal, seed)[0].split(64))


class HookedBlock(CifarBlock):
    """The residual block with its non-linearities as modules, which is what forward hooks need."""

    relu1: nn.ReLU
    relu2: nn.ReLU

    def forward(self, x: Tensor) -> Tensor:
        """As `CifarBlock`."""
        out = self.relu1(self.bn1(self.conv1(x)))
        result: Tensor = self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))
        return result


class HookedResNet(CifarResNet):
    """The network with its first non-linearity as a module."""

    relu1: nn.ReLU

    def forward(self, x: Tensor) -> Tensor:
        """As `CifarResNet`."""
        out = self.layer3(self.layer2(self.layer1(self.relu1(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(nn.functional.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def hooked(model: nn.Module) -> nn.Module:
    """Changes a CIFAR ResNet in place: a module for every non-linearity."""
    for module in model.modules():
        if isinstance(module, (CifarBlock, CifarResNet)):
            module.__class__ = HookedBlock if isinstance(module, CifarBlock) else HookedResNet
            module.relu1, module.relu2 = nn.ReLU(), nn.ReLU()
    return model


def reference_naswot(model: nn.Module, batch: Tensor) -> float:
    """NASWOT as its authors' code computes it (score_networks.py), without the pass that only finds the used layers."""
    kernels = np.zeros((len(batch), len(batch)))

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        nonlocal kernels
        codes = (inputs[0].view(len(batch), -1) > 0).float()
        kernels = kernels + (codes @ codes.t()).numpy() + ((1.0 - codes) @ (1.0 - codes.t())).numpy()

    handles = [m.register_forward_hook(hook) for name, m in model.named_modules() if name.endswith(("relu1", "relu2"))]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return float(np.linalg.slogdet(kernels)[1])


def fifth(graph: ChannelGraph) -> Structure:
    """A fifth of the filters inside every block, about 20 % of the MACs."""
    inner = [group for group in graph.groups if group.name.startswith("layer") and group.name.endswith("conv1")]
    return Structure.of(graph, {group.name: range(max(1, round(group.size / 5))) for group in inner})


def spent(run: Callable[[], object]) -> Pair:
    """What it takes."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def middle(values: list[float], digits: int = 4) -> float:
    return round(statistics.median(values), digits)


def chain(bench: Bench) -> dict[str, Any]:
    """Whole trials of a study against the reference chain, in turns: after every trial the chain runs once."""
    images, same = bench.task().batch, fifth(bench.graph)
    surgeon, cutter = surgery(bench)
    reference = lambda: reference_naswot(hooked(cutter()), images)  # noqa: E731
    task = bench.task(bench.renewal(), half=halves_pay(images))
    found: dict[str, Any] = {"surgery": surgeon, "rounds": bench.scale.rounds, "rows": {}}
    for scorer, batch in bench.scale.compared:
        pairs = trials_beside(bench.study(scorer, batch=batch), reference, bench.scale.rounds)
        found["rows"][f"{scorer}, batch {batch}, whole trial"] = compared(*pairs)
    rows: dict[str, Callable[[], object]] = {
        "surgery of the reference alone": cutter,
        "naswot, cut and score of the same structure": lambda: SCORERS["naswot"](ScoredStructure(task, same)),
        "fidelity of it, 1280 images in batches of 64": lambda: SCORERS["fidelity"](ScoredStructure(task, same)),
    }
    for name, run in rows.items():
        turns = [(spent(run), spent(reference)) for _ in range(bench.scale.rounds + 1)][1:]
        found["rows"][name] = compared([ours for ours, _ in turns], [other for _, other in turns])
    pruned = prune(bench.model, bench.graph, same)
    published = reference_naswot(hooked(prune(bench.model, bench.graph, same)), images)
    return {**found, "naswot_minus_reference": naswot(pruned, images) - published}


def surgery(bench: Bench) -> tuple[str, Callable[[], nn.Module]]:
    """Torch-Pruning where it is installed."""
    try:
        from surgery import peer  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        structure = fifth(bench.graph)
        return "prune", lambda: prune(bench.model, bench.graph, structure)
    return "Torch-Pruning", lambda: peer(bench.model, bench.data.example, 0.2)


def trials_beside(study: Study, other: Callable[[], object], rounds: int) -> tuple[list[Pair], list[Pair]]:
    """Seconds of every trial of a study but the first, and of what ran after it."""
    ours: list[Pair] = []
    theirs: list[Pair] = []
    clock = [time.perf_counter(), time.process_time()]

    def after(_: Study, __: optuna.trial.FrozenTrial) -> None:
        ours.append((time.perf_counter() - clock[0], time.process_time() - clock[1]))
        theirs.append(spent(other))
        clock[:] = [time.perf_counter(), time.process_time()]

    study.search(rounds + 1, callbacks=[after], progress=False)
    return ours[1:], theirs[1:]


def compared(ours: list[Pair], theirs: list[Pair]) -> dict[str, Any]:
    """Medians, and the median of the quotients within a round."""
    wall, processor = ([b[i] / a[i] for a, b in zip(ours, theirs, strict=True)] for i in (0, 1))
    return {
        "wall_seconds": middle([pair[0] for pair in ours]),
        "processor_seconds": middle([pair[1] for pair in ours]),
        "reference_wall_seconds": middle([pair[0] for pair in theirs]),
        "reference_processor_seconds": middle([pair[1] for pair in theirs]),
        "times_faster_wall": middle(wall, 2),
        "quartiles_wall": [round(float(value), 2) for value in np.percentile(wall, [25, 75])],
        "times_faster_processor": middle(processor, 2),
    }


def profile(bench: Bench) -> Times:
    """Median processor milliseconds of the steps of a trial at 20 % of the MACs."""
    study = bench.study("naswot", sampler="tpe")
    study.search(bench.scale.rounds, progress=False)
    structure = study.structure(0)
    renewal = bench.renewal()
    task = bench.task(renewal, half=study.problem.task.half)
    scored = ScoredStructure(task, structure)
    agreement = CodeAgreement()
    watch_preactivations(scored.folded, task.images, agreement.add)
    kernel = agreement.kernel()

    def watched(see: Callable[[Tensor], None]) -> None:
        with fast_precision(task.images, bool(task.half)):
            watch_preactivations(scored.folded, task.images, see)

    def forward() -> None:
        with fast_precision(task.images, bool(task.half)):
            scored.folded(task.images)

    problem, count = study.problem, len(study.store.finished)

    def ask() -> optuna.Trial:
        seen = study.store.history_at(count)
        seen.sampler = sampler_for("tpe", 0, count)
        return seen.ask()

    trial = ask()
    propose(problem, trial)
    allocation = problem.suggest(trial)  # the same again: a trial remembers what was suggested
    steps: dict[str, Callable[[], object]] = {
        "ask, propose, project, cost": lambda: propose(problem, ask()),
        "of it project and cost": lambda: project(problem, allocation, problem.targets[0]),
        "cut, norms folded": lambda: ScoredStructure(task, structure).folded,
        "cut, norms kept": lambda: prune(bench.model, bench.graph, structure, check=False),
        "forward, norms folded, channels last, in the study's arithmetic": forward,
        "forward, norms folded, channels last": lambda: scored.folded(task.images),
        "forward, as it was": lambda: scored.pruned(task.batch),
        "forward, watched": lambda: watched(lambda preactivation: None),
        "forward, watched, with codes": lambda: watched(CodeAgreement().add),
        "kernel from codes": agreement.kernel,
        "log-determinant": lambda: log_det(kernel),
        "recalibration, 1280 images": lambda: recalibrate(scored.pruned, task.recalibration_images),
    }
    found: Times = {}
    with torch.no_grad():
        scored.folded.eval(), scored.pruned.eval()
        for name, run in steps.items():
            repeats = 1 if name.startswith("recal") else max(1, bench.scale.rounds // 2)
            found[name] = middle([1000 * spent(run)[1] for _ in range(repeats)], 2)
    return found


def growth(bench: Bench) -> dict[str, Times]:
    """Processor milliseconds of cutting and scoring with naswot: by batch, depth and width."""

    def once(task: ScoringTask, structure: Structure) -> float:
        task.images, task.folded  # noqa: B018 - once a study
        return middle(
            [1000 * spent(lambda: SCORERS["naswot"](ScoredStructure(task, structure)))[1] for _ in range(3)], 1
        )

    structure = Structure.random(bench.graph, macs=0.2, seed=1)
    found = {"batch": {str(count): once(bench.task(batch=count), structure) for count in bench.scale.batches}}
    whole = Structure.full(bench.graph)
    shares = {share: Structure.random(bench.graph, macs=share, seed=1) for share in bench.scale.widths if share < 1}
    found["macs"] = {f"{share:.0%}": once(bench.task(), shares.get(share, whole)) for share in bench.scale.widths}
    found["depth"] = {}
    for name in bench.scale.depths:
        model = build(name, 10).eval()
        graph = trace(model, bench.data.example)
        task = ScoringTask(model, graph, bench.task().batch)
        found["depth"][name] = once(task, Structure.random(graph, macs=0.2, seed=1))
    return found


def agreement(bench: Bench) -> dict[str, Any]:
    """Kendall's tau of approximations with the score as it is documented, over structures of one cost."""
    study = bench.study("random")
    study.search(bench.scale.structures, progress=False)
    structures = [study.structure(number) for number in range(bench.scale.structures)]
    base = bench.task(bench.renewal())
    less = bench.renewal()[0]
    tasks = {
        "as documented": base,
        "1280 other images": replace(base, recalibrate=bench.renewal(seed=2)),
        "64 images": replace(base, recalibrate=[less]),
        "scoring batch alone": replace(base, recalibrate=[base.batch]),
    }
    scores: dict[str, dict[str, list[float]]] = {name: {scorer: [] for scorer in COMPARED} for name in tasks}
    plain: dict[str, list[float]] = {"folded": [], "norms kept": [], "another batch": []}
    other = bench.data.batch(bench.scale.batch, 9)[0]
    for structure in structures:
        for name, task in tasks.items():
            scored = ScoredStructure(task, structure)
            for scorer in COMPARED:
                scores[name][scorer].append(SCORERS[scorer](scored))
        plain["folded"].append(SCORERS["naswot"](ScoredStructure(base, structure)))
        plain["norms kept"].append(naswot(ScoredStructure(base, structure).pruned, base.batch))
        plain["another batch"].append(SCORERS["naswot"](ScoredStructure(replace(base, batch=other), structure)))

    def tau(left: list[float], right: list[float]) -> float:
        return round(float(kendalltau(left, right).statistic), 3)

    exact = scores.pop("as documented")
    return {
        "structures": len(structures),
        "naswot, against norms kept": {name: tau(plain["norms kept"], values) for name, values in plain.items()},
        "recalibrated, against 1280 images": {
            name: {scorer: tau(exact[scorer], values[scorer]) for scorer in COMPARED} for name, values in scores.items()
        },
    }


def smaller(bench: Bench) -> dict[str, Any]:
    """Kendall's tau with the score on the whole batch: of fewer images, of bfloat16; structures of all families."""
    problem = bench.study("random").problem
    [target] = Budget(macs=0.2).targets(problem.cost_model.dense)
    drawn = draw(problem, target, bench.scale.structures, FAMILIES, 5)
    base = bench.task()
    found: dict[str, Any] = {"structures": len(drawn)}
    values: dict[int, list[float]] = {}
    for size in (bench.scale.batch, *bench.scale.smaller):
        task, begun = replace(base, batch=base.batch[:size]), time.process_time()
        values[size] = [SCORERS["naswot"](ScoredStructure(task, one.structure)) for one in drawn]
        seconds = (time.process_time() - begun) / len(drawn)
        agreed = float(kendalltau(values[bench.scale.batch], values[size]).statistic)
        found[f"batch {size}"] = {"tau": round(agreed, 3), "processor_seconds": round(seconds, 3)}
    for name in ("naswot", "naswot_last"):
        ways: list[list[float]] = []
        for half in (False, True):
            task, begun = replace(base, half=half), time.process_time()
            ways.append([SCORERS[name](ScoredStructure(task, one.structure)) for one in drawn])
            seconds = (time.process_time() - begun) / len(drawn)
            found[f"{name} in {'bfloat16' if half else 'float32'}"] = {"processor_seconds": round(seconds, 3)}
        agreed = float(kendalltau(*ways).statistic)
        apart = float(np.abs(np.subtract(ways[0], ways[1])).mean() / np.std(ways[0]))
        found[f"{name} in bfloat16"] |= {"tau": round(agreed, 3), "mean_difference_over_spread": round(apart, 4)}
    return found


def thousand(bench: Bench) -> dict[str, Any]:
    """A search of so many trials, for real, by naswot on the smallest batch whose order agrees with the whole one's."""
    found: dict[str, Any] = {"batch": bench.scale.smaller[-1]}
    for space in ("hybrid", "ratios"):
        study = bench.study("naswot", space, "tpe", bench.scale.smaller[-1])
        wall, processor = spent(lambda study=study: study.search(bench.scale.trials, progress=False))  # type: ignore[misc]
        distinct = {trial.user_attrs.get("structure") for trial in study.store.finished}
        row = {"trials": bench.scale.trials, "distinct": len(distinct)}
        found[space] = {**row, "wall_seconds": round(wall, 1), "processor_seconds": round(processor, 1)}
    return found


PARTS = {
    "chain": chain,
    "profile": profile,
    "growth": growth,
    "agreement": agreement,
    "smaller": smaller,
    "thousand": thousand,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--compared", type=int)
    parser.add_argument("--structures", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    changed = {key: getattr(options, key) for key in ("structures", "rounds", "trials") if getattr(options, key)}
    scale = replace(SHORT if options.short else Scale(), **changed)
    scale = replace(scale, compared=scale.compared[: options.compared])
    model = build(scale.network, 10).eval()
    if options.weights:
        load_checkpoint(model, options.weights)
    data = noise(scale.side) if options.short or "SECATEUR_DATA" not in os.environ else cifar10()
    found: dict[str, Any] = {
        "scale": vars(scale),
        "data": data.name,
        "threads": options.threads,
        "versions": versions(),
        "machine": platform.platform(),
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model, trace(model, data.example), data, scale, folder)
        for name in options.parts:
            found[name] = PARTS[name](bench)
            found["load_average"] = os.getloadavg()[0]
            print(json.dumps({name: found[name]}, indent=2), flush=True)
    if options.out:
        known = json.loads(options.out.read_text()) if options.out.is_file() else {}
        write_text(options.out, json.dumps({**known, **found}, indent=2) + "\n")


def noise(side: int) -> Data:
    images = torch.randint(0, 256, (1600, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(1600) % 10
    return Data.from_tensors("noise", (images[:1500], labels[:1500]), (images[1500:], labels[1500:]))


if __name__ == "__main__":
    main()
