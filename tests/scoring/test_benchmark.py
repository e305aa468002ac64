"""The benchmark of scoring still runs; how long things take is no matter of tests."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_short_benchmark_measures_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, out = ROOT / "studies/benchmarks/scorer_speed.py", tmp_path / "found.json"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [str(script), "--short", "--threads", "1", "--out", str(out)])
    runpy.run_path(str(script), run_name="__main__")
    found = json.loads(out.read_text())
    assert {"chain", "profile", "growth", "agreement", "thousand"} <= set(found)
    assert abs(found["chain"]["naswot_minus_reference"]) < 1e-9
    assert found["agreement"]["naswot, against norms kept"]["norms kept"] == 1.0
    assert found["thousand"]["ratios"]["distinct"] == 2
