"""What options change of a study."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from search.commands.options import changed
from search.run.study_file import parse

SMALL = {"name": "small", "model": {"backbone": "resnet20"}, "data": {"name": "digits"}, "budget": {"macs": "30%"}}


@pytest.mark.parametrize(
    ("dense", "retrain", "rates"),
    [
        ({}, {}, {40: 0.1, 16: 0.05, 2: 0.02}),
        ({"lr": 0.2}, {}, {40: 0.2, 16: 0.1, 2: 0.04}),  # its own, in the length that was asked for
        ({"lr": 0.2}, {"lr": "auto"}, {40: 0.1, 2: 0.02}),
        ({}, {"epochs": 16, "lr": 0.03}, {40: 0.06, 16: 0.03, 2: 0.012}),
        ({"optimiser": "adamw", "lr": 0.01}, {}, {40: 0.01, 2: 0.01}),
    ],
)
def test_a_retraining_of_another_length_has_the_rate_of_its_length(
    dense: dict[str, object], retrain: dict[str, object], rates: dict[int, float]
) -> None:
    study = parse({**SMALL, "dense": dense, "retrain": retrain}, Path())
    for epochs, rate in rates.items():
        recipe = changed(study, Namespace(epochs=epochs)).retrain.recipe
        assert recipe.epochs == epochs
        assert recipe.highest_rate == pytest.approx(rate)
