"""System 3 as a curve: ResNet-56 at 20 % of its MACs, accuracy against epochs of retraining.

    python studies/length_curve.py      # draws studies/pictures/system3_epochs.png

Lines: accuracy on the validation images along the trainings of 100 epochs (`secateur compare
studies/system3_hybrid.toml --scale full`), from `results/system3_full_curves.json`, copied out of each
training's `history.csv`. The checkpoint that all structures were cut from has seen the validation images, so that lines
compare structures, not with the dense network. Points: test accuracy after the last epoch, of these and of a whole
training of 14 epochs (`--scale long`, an older search), from `results/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search.review.chart_style import write_chart
from search.review.training_charts import curves_chart

HERE = Path(__file__).resolve().parent
LENGTHS = {"system3_long": ("naswot", 14), "system3_full": (None, 100)}
"""Table -> the one variant of it that was trained (None: all), and epochs."""


def tested() -> list[dict[str, Any]]:
    """Test accuracy at the end of each training."""
    points = []
    for name, (only, epochs) in LENGTHS.items():
        table = json.loads((HERE / "results" / f"{name}.json").read_text())
        for one in table["variants"]:
            if only in (None, one["variant"]):
                training = f"{one['variant']}, {epochs} epochs" if only else one["variant"]
                points.append({"training": training, "epoch": epochs, "value": one["test"]["mean"]})
    return points


def main() -> None:
    """Draws the picture."""
    histories = json.loads((HERE / "results" / "system3_full_curves.json").read_text())
    lines = curves_chart(histories, "validation_accuracy")
    x, y = (dict(lines["encoding"][axis]) for axis in "xy")
    y["title"], y["scale"] = "accuracy: validation (lines), test (points)", {"domain": [0.6, 0.93], "clamp": True}
    color = lines["encoding"]["color"]
    encoding = {"x": x, "y": y, "color": color}
    points = {
        "data": {"values": tested()},
        "mark": {"type": "point", "filled": True, "size": 70},
        "encoding": encoding,
    }
    line = {"data": lines["data"], "mark": {"type": "line", "strokeWidth": 1.4}, "encoding": encoding}
    outer = {key: value for key, value in lines.items() if key not in ("data", "mark", "encoding")}
    print(write_chart({**outer, "layer": [line, points]}, HERE / "pictures" / "system3_epochs.png"))


if __name__ == "__main__":
    main()
