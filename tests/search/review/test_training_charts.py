"""Curves and gamma distributions as specifications that render."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from backbones.errors import SecateurError
from search.review.chart_style import to_svg
from search.review.training_charts import curves_chart, gamma_charts
from search.training.checkpoint import Epoch

EPOCHS = [asdict(Epoch(1, 0.1, 2.0, 0.5, 0.6, 1.0)), asdict(Epoch(2, 0.05, 1.0, 0.7, 0.8, 1.0))]


def test_curves_hold_every_epoch_that_has_the_value() -> None:
    spec = curves_chart({"one": EPOCHS, "two": [{"epoch": 1}, {"epoch": 2, "loss": 3.0}]}, "loss")
    rows = [(row["training"], row["epoch"], row["value"]) for row in spec["data"]["values"]]
    assert rows == [("one", 1, 2.0), ("one", 2, 1.0), ("two", 2, 3.0)]
    assert "<svg" in to_svg(spec)


def test_accuracies_are_percentages() -> None:
    picture = to_svg({**curves_chart({"one": EPOCHS}, "validation_accuracy"), "width": 300})
    assert ">validation accuracy<" in picture
    assert ">60.0%<" in picture
    assert ">80.0%<" in picture


def test_gamma_chart_counts_channels_and_ends_at_everything() -> None:
    stages = {"before": {"a": torch.tensor([1.0, -0.5]), "b": torch.tensor([0.8])}, "after": {"a": torch.zeros(3)}}
    spec = gamma_charts(stages)
    bars, shares = (spec[view]["data"]["values"] for view in ("histogram", "cumulative"))
    for stage in stages:
        assert sum(row["channels"] for row in bars if row["stage"] == stage) == 3
        assert max(row["value"] for row in shares if row["stage"] == stage) == 1.0
    below = [row["value"] for row in shares if row["stage"] == "before" and row["gamma"] < 0.6]
    assert max(below) == pytest.approx(1 / 3)
    assert all("<svg" in to_svg(view) for view in spec.values())


def test_gamma_chart_of_nothing_is_refused() -> None:
    with pytest.raises(SecateurError, match="at least one batch-norm scale"):
        gamma_charts({"before": {}})
