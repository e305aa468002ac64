"""Curves and gamma distributions as specifications that render."""

from __future__ import annotations

import pytest
import torch

from backbones.errors import SecateurError
from search.review.chart_style import to_svg
from search.review.training_charts import curve_chart, gamma_chart
from search.training.history import Epoch, History

HISTORY = History(
    (Epoch(1, 0.1, 2.0, 0.5, 0.6, 1.0), Epoch(2, 0.05, 1.0, 0.7, 0.8, 1.0)), start_accuracy=0.1, test_accuracy=0.75
)


def test_curves_hold_every_epoch() -> None:
    spec = curve_chart(HISTORY)
    losses, shares = (part["data"]["values"] for part in spec["hconcat"])
    assert [row["value"] for row in losses] == [2.0, 1.0]
    assert [row["value"] for row in shares if row["of"] == "validation"] == [0.1, 0.6, 0.8]
    assert "<svg" in to_svg(spec)


def test_gamma_chart_counts_channels_and_ends_at_everything() -> None:
    stages = {"before": {"a": torch.tensor([1.0, -0.5]), "b": torch.tensor([0.8])}, "after": {"a": torch.zeros(3)}}
    spec = gamma_chart(stages)
    bars, shares = (part["data"]["values"] for part in spec["hconcat"])
    for stage in stages:
        assert sum(row["channels"] for row in bars if row["stage"] == stage) == 3
        assert max(row["value"] for row in shares if row["stage"] == stage) == 1.0
    below = [row["value"] for row in shares if row["stage"] == "before" and row["gamma"] < 0.6]
    assert max(below) == pytest.approx(1 / 3)
    assert "<svg" in to_svg(spec)


def test_gamma_chart_of_nothing_is_refused() -> None:
    with pytest.raises(SecateurError, match="at least one batch-norm scale"):
        gamma_chart({"before": {}})
