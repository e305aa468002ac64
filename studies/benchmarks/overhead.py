"""What a trial costs apart from its score (ResNet-56 at 20 % MACs, TPE, SQLite), and how long 10,000 take to load.

    python studies/benchmarks/overhead.py [--trials 5000]

Writes overhead.json and overhead.png beside this file. The scorer is the control `random`, which needs no forward pass,
so what is measured is ask, propose, project, cost and store. Beside it, in the same process and interleaved with the
trials, the plain forward pass of the pruned network (batch 128, one thread), the least that any score can take. The
last part searches a known function with and without the bounded history: what TPE loses by it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from backbones.registry import build  # noqa: E402
from backbones.structure import Structure  # noqa: E402
from backbones.surgery import prune  # noqa: E402
from backbones.trace import trace  # noqa: E402
from search.data.data import Data  # noqa: E402
from search.review.chart_style import write_chart  # noqa: E402
from search.space.budget import Budget  # noqa: E402
from search.study.identity import versions  # noqa: E402
from search.study.samplers import WINDOWS, SamplerHistory, Window, sampler_for  # noqa: E402
from search.study.study import Study  # noqa: E402

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    trials = parser.parse_args().trials
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, Any] = {"versions": versions(), "machine": platform.platform(), "threads": 1, "spaces": {}}
    for space in ("hybrid", "ratios"):
        found["spaces"][space] = growth(space, trials)
    found["loading"] = loading(10_000)
    found["window"] = quality(1000, range(3))
    print(json.dumps({key: found[key] for key in ("loading", "window")}), flush=True)
    (HERE / "overhead.json").write_text(json.dumps(found, indent=2) + "\n")
    rows = [{"space": space, **row} for space, part in found["spaces"].items() for row in part]
    write_chart(chart(rows), HERE / "overhead.png")


def subject() -> tuple[Any, Any, Data]:
    torch.manual_seed(0)
    model = build("resnet56", 10, 3).eval()
    images = torch.randint(0, 256, (400, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(400) % 10
    data = Data.from_tensors("noise", (images[:300], labels[:300]), (images[300:], labels[300:]))
    return model, trace(model, data.example), data


def growth(space: str, trials: int) -> list[dict[str, float]]:
    """Milliseconds a trial after so many, with the forward pass measured in between.

    The first hundred trials are searched; between the points that are measured the history is filled with copies of
    them, which the sampler and the storage cannot tell from others.
    """
    model, graph, data = subject()
    pruned = prune(model, graph, Structure.random(graph, macs=0.2))
    batch = torch.randn(128, 3, 32, 32)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        options = {"budget": Budget(macs=0.2), "storage": f"sqlite:///{folder}/s.db", "folder": folder}
        study = Study("s", model, graph, data, space=space, scorer="random", **options)  # type: ignore[arg-type]
        study.search(70, progress=False)
        copies = list(study.store.finished)
        for total in [point for point in (100, 300, 1000, 2000, 3000, 4000, 5000) if point <= trials]:
            for number in range(study.store.total, total - 30):
                study.store.append(copies[number % len(copies)], number)
                study.store.total += 1
            study.store.sync()
            spans: list[float] = []
            forward: list[float] = []
            mark = time.perf_counter()

            def timed(_: Study, __: Any, spans: list[float] = spans, forward: list[float] = forward) -> None:
                nonlocal mark
                now = time.perf_counter()
                spans.append(now - mark)
                with torch.inference_mode():
                    pruned(batch)
                mark = time.perf_counter()
                forward.append(mark - now)

            study.search(total, callbacks=[timed], progress=False)
            own, plain = statistics.median(spans[1:]), statistics.median(forward)
            rows.append({"trials": total, "overhead_ms": own * 1e3, "forward_ms": plain * 1e3, "ratio": own / plain})
            print(space, rows[-1], flush=True)
    return rows


def loading(trials: int) -> dict[str, float]:
    """Seconds to open a study of so many stored trials."""
    model, graph, data = subject()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/s.db"

        def opened() -> Study:
            return Study("s", model, graph, data, budget=Budget(macs=0.2), storage=url, scorer="random", folder=folder)

        study = opened()
        study.search(20, progress=False)
        copies = study.store.finished
        for number in range(20, trials):
            study.store.append(copies[number % 20], number)
        empty = time.perf_counter()
        Study("other", model, graph, data, budget=Budget(macs=0.2), storage=url, scorer="random", folder=folder)
        start = time.perf_counter()
        again = opened()
        end = time.perf_counter()
        assert len(again.store.finished) == trials
    return {"trials": trials, "open_seconds": end - start, "of_which_trials_seconds": (end - start) - (start - empty)}


def quality(trials: int, seeds: range) -> dict[str, dict[str, float]]:
    """The best value of a known function (Ackley in ten dimensions, 0 is best) with the whole history and a window."""
    found = {}
    windows: dict[str, Window | None] = {"whole history": None, "window": WINDOWS["tpe"]}
    for name, window in windows.items():
        best, start = [], time.perf_counter()
        for seed in seeds:
            seen = SamplerHistory([optuna.study.StudyDirection.MAXIMIZE], window)
            history: list[FrozenTrial] = []
            for number in range(trials):
                study = seen.at(history, number)
                study.sampler = sampler_for("tpe", seed, number)
                trial = study.ask()
                point = torch.tensor([trial.suggest_float(f"x{i}", -20.0, 30.0) for i in range(10)])
                history.append(seen.tell(trial, [-ackley(point)]))
            best.append(max(one.values[0] for one in history if one.values))
        found[name] = {
            "mean": statistics.mean(best),
            "stdev": statistics.stdev(best),
            "n": len(best),
            "trials": trials,
            "seconds_a_search": (time.perf_counter() - start) / len(best),
        }
    return found


def ackley(x: torch.Tensor) -> float:
    first = -20 * torch.exp(-0.2 * x.square().mean().sqrt())
    return float(first - torch.exp((2 * torch.pi * x).cos().mean()) + 20 + torch.e)


def chart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "data": {"values": rows},
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {"field": "trials", "type": "quantitative", "title": "finished trials"},
            "y": {"field": "ratio", "type": "quantitative", "title": "time outside scoring / forward pass"},
            "color": {"field": "space", "type": "nominal"},
        },
        "width": 480,
        "height": 280,
    }


if __name__ == "__main__":
    main()
