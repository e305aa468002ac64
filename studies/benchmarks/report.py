"""A report of thousands of trials: how large the page is, how long it takes to write, and to open in a browser.

    python studies/benchmarks/report.py [--trials 5000] [--groups 54] [--rounds 5] [--out report.json]

The trials are made up (`tests.search.review.report_samples`): thresholds and a cap for every group of a deep network,
costs and scores that scatter as in a search. The page is opened in headless Chromium from the disk; the first screen
is drawn when every figure on it is, the rest when the figures further down are too, which a reader's scrolling would
ask for.
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
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from backbones.files import write_text  # noqa: E402
from search.review.chart_style import vega_bundle  # noqa: E402
from search.review.front import Front  # noqa: E402
from search.review.report import Facts, Report  # noqa: E402
from search.review.report_files import write_report  # noqa: E402
from tests.search.review.browser import Browser, chromium  # noqa: E402
from tests.search.review.report_samples import sample_front  # noqa: E402

WHOLE = "const start = performance.now(); await secateur.drawRest(); return performance.now() - start;"


def made_up(trials: int, groups: int, seed: int = 0) -> Front:
    """A search of that many trials over a network of that many groups, a threshold pair and a ratio a group each."""
    names = {f"layer{1 + i // 18}.{i % 18}.conv1": 16 * (1 + i // 18) for i in range(groups)}
    front = sample_front(trials=trials, groups=names, baselines=True, seed=seed, caps=(1_536_000,))
    rng = np.random.default_rng(seed)
    candidates = []
    for one in front.candidates:
        caps = {f"cap {name}": float(value) for name, value in zip(names, rng.uniform(0, 1, groups), strict=True)}
        candidates.append(replace(one, parameters={**one.parameters, **caps}))
    return replace(front, candidates=tuple(candidates))


def opened(browser: Browser, file: Path) -> tuple[float, float]:
    """Milliseconds until the first screen is drawn, and from there until all figures are."""
    with browser.page(file) as page:
        whole = float(page.ask(WHOLE))
        if page.problems:
            raise SystemExit(f"the page has problems: {page.problems[0]}")
        return page.ready, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--groups", type=int, default=54)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    front = made_up(options.trials, options.groups)
    shares = {name: 1.0 / (2 + i) for i, name in enumerate(front.candidates[0].parameters)}
    report = Report((front,), facts={front.name: Facts(importances=shares, stages={"search": 500.0})})
    start = time.perf_counter()
    vega_bundle()
    bundling = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        start = time.perf_counter()
        page = write_report(report, folder)
        building = time.perf_counter() - start
        times = [opened(browser, page) for _ in range(options.rounds)]
        sizes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir()) if path.is_file()}
        pictures = len(json.loads((Path(folder) / "plots/plots.json").read_text(encoding="utf-8")))
    record: dict[str, Any] = {
        "command": " ".join(["python", *(Path(one).name if Path(one).is_absolute() else one for one in sys.argv)]),
        "trials": options.trials,
        "groups": options.groups,
        "page_bytes": sizes["report.html"],
        "files_bytes": sizes,
        "pictures": pictures,
        "script_bundle_s": round(bundling, 2),
        "build_s": round(building, 2),
        "first_screen_ms": [round(first) for first, _ in times],
        "first_screen_ms_median": round(statistics.median(first for first, _ in times)),
        "rest_ms_median": round(statistics.median(rest for _, rest in times)),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "busy_with": round(os.getloadavg()[0], 1),
        },
        "versions": {"python": platform.python_version(), "vl-convert-python": version("vl-convert-python")},
    }
    print(json.dumps(record, indent=1))
    if options.out:
        write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
