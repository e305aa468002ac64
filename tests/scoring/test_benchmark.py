"""The benchmark of scoring still runs; how long things take is no matter of tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_short_benchmark_measures_every_part(tmp_path: Path) -> None:
    script, out = ROOT / "studies/benchmarks/scorer_speed.py", tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, str(script), "--short", "--threads", "1", "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {"chain", "profile", "growth", "agreement", "thousand"} <= set(found)
    assert abs(found["chain"]["naswot_minus_reference"]) < 1e-9
    assert found["agreement"]["naswot, against norms kept"]["norms kept"] == 1.0
    assert found["thousand"]["ratios"]["distinct"] == 2
