"""Milliseconds against MACs for widths in multiples of 1, 4, 8 and 16: what a MAC saved is worth on this machine.

    python studies/benchmarks/divisors.py                                        # on an idle machine; hours
    python studies/benchmarks/divisors.py --engines eager onnxruntime --seeds 1  # minutes: nothing is compiled

ResNet-56 (32 x 32) and MobileNetV3 (128 x 128), random weights, random structures of the same MACs, one thread; torch
eager and compiled and onnxruntime, one sample and a batch of 64. Each structure is timed in turns with the dense
network; what stands in the file is the ratio of the least times, as other work on a machine only ever adds. Every row
is kept in divisors.json beside this file as it is done, and not done again; divisors.png is drawn of what is there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import secateur as sc
from backbones.files import write_text
from backbones.measure import timings
from backbones.onnx_network import ENGINES, on_engine
from search.review.chart_style import write_chart
from search.run.folder import environment
from search.space.prepare import prepare_problem, scoring_task
from search.study.rules import RuleSettings, structure_of

HERE = Path(__file__).resolve().parent
NETWORKS = {"resnet56": 32, "mobilenet_v3_small": 128}
DIVISORS = (1, 4, 8, 16)
BUDGETS = (0.2, 0.35, 0.5, 0.7)
BATCHES = (1, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=HERE / "divisors.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in NETWORKS:
        measured(name, options)
    write_chart(chart(read(options.out)["rows"]), options.out.with_suffix(".png"))


def measured(name: str, options: argparse.Namespace) -> None:
    """Adds the rows of one network that are not there yet."""
    size = NETWORKS[name]
    torch.manual_seed(0)
    model = sc.build(name, 10).eval()
    images, labels = torch.randn(128, 3, size, size), torch.arange(128) % 10
    data = sc.Data.from_tensors("noise", (images, labels), (images, labels))
    graph = sc.trace(model, images[:1])
    task = scoring_task(model, graph, data, 8, 0)
    whole = {
        (engine, batch): on_engine(model, engine, (images[:batch],)) for engine in options.engines for batch in BATCHES
    }
    for divisor in DIVISORS:
        space = sc.Space("ratios", criterion="l2", limits=sc.Limits(divisor=divisor))
        for macs in BUDGETS:
            try:
                problem = prepare_problem(space, task, sc.Budget(macs=macs), scorer="macs")
            except sc.SecateurError as error:
                print(f"{name}, divisor {divisor}: {error}", flush=True)
                continue
            for seed in range(options.seeds):
                structure = structure_of("random", problem, problem.targets[0], RuleSettings(seed=seed))
                pruned = sc.prune(model, graph, structure).eval()
                share = sc.cost(graph, structure).macs / graph.costs.dense.macs
                for engine in options.engines:
                    for batch in BATCHES:
                        key = {
                            "network": name, "divisor": divisor, "budget": macs, "seed": seed, "engine": engine,
                            "batch": batch,
                        }  # fmt: skip
                        if known(options.out, key):
                            continue
                        inputs = (images[:batch],)
                        pair = [whole[engine, batch], on_engine(pruned, engine, inputs)]
                        dense, ours = (1e3 * min(times) for times in timings(pair, inputs, options.rounds))
                        times = {"time": ours / dense, "dense_ms": dense, "ms": ours}
                        add(options.out, {**key, "macs": share, **times})


def read(path: Path) -> dict[str, Any]:
    """The file, empty before its first row."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": []}
    return record


def known(path: Path, key: dict[str, Any]) -> bool:
    """Whether the row is there."""
    return any(all(row[name] == value for name, value in key.items()) for row in read(path)["rows"])


def add(path: Path, row: dict[str, Any]) -> None:
    """Keeps a row at once."""
    record = read(path)
    write_text(path, json.dumps({"environment": environment(), "rows": [*record["rows"], row]}, indent=1) + "\n")
    print(row, flush=True)


def chart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Time against MACs, both over the dense network's: a panel for each network, engine and batch."""
    labelled = [{**row, "panel": f"{row['network']}, {row['engine']}, batch {row['batch']}"} for row in rows]
    times = [row["time"] for row in rows]
    return {
        "data": {"values": labelled},
        "facet": {"field": "panel", "title": None},
        "columns": 3,
        "spec": {
            "mark": {"type": "point", "filled": True},
            "encoding": {
                "x": {"field": "macs", "type": "quantitative", "title": "MACs / dense"},
                "y": {
                    "field": "time",
                    "type": "quantitative",
                    "title": "time / dense",
                    "scale": {"type": "log", "domain": [min(0.25, *times), max(2.0, *times)]},
                },
                "color": {"field": "divisor", "type": "nominal"},
            },
            "width": 220,
            "height": 160,
        },
    }


if __name__ == "__main__":
    main()
