"""Recipes: the shape of the schedules, and one clear line for values that make no training."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from backbones.errors import SecateurError
from search.training.recipe import OPTIMISERS, RATES, SCHEDULES, Recipe


@given(st.sampled_from(list(SCHEDULES)), st.floats(0, 0.4), st.floats(0, 1))
def test_rate_stays_between_0_and_the_highest(schedule: str, warmup: float, position: float) -> None:
    assert 0 <= Recipe(lr=0.3, schedule=schedule, warmup=warmup).rate(position) <= 0.3 * (1 + 1e-12)


def test_schedules_by_hand() -> None:
    def rates(schedule: str, warmup: float) -> list[float]:
        recipe = Recipe(lr=1.0, schedule=schedule, warmup=warmup)
        return [recipe.rate(position) for position in (0.1, 0.2, 0.6, 0.8, 1.0)]

    assert rates("cosine", 0.2) == pytest.approx([0.5, 1, 0.5, 0.1464466, 0], abs=1e-6)
    assert rates("linear", 0.2) == pytest.approx([0.5, 1, 0.5, 0.25, 0])
    assert rates("step", 0.2) == pytest.approx([0.5, 1, 0.1, 0.01, 0.01])
    assert rates("constant", 0.2) == pytest.approx([0.5, 1, 1, 1, 1])
    assert rates("one-cycle", 0.2) == pytest.approx([0.52, 1, 0.5, 0.1464466, 0], abs=1e-6)


def test_one_cycle_is_that_of_torch() -> None:
    total = 1000
    optimiser = optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = optim.lr_scheduler.OneCycleLR(optimiser, 2.0, total, pct_start=0.3, cycle_momentum=False)
    ours = Recipe(lr=2.0, schedule="one-cycle")
    for step in range(total):
        assert ours.rate(step / total) == pytest.approx(theirs.get_last_lr()[0], abs=0.01)
        optimiser.step()
        if step + 1 < total:
            theirs.step()


def test_optimisers_take_what_the_recipe_says() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    sgd = Recipe(lr=0.5, momentum=0.8, weight_decay=0.01).build_optimiser(model).param_groups[0]
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"], sgd["nesterov"]) == (0.5, 0.8, 0.01, True)
    assert len(sgd["params"]) == 1
    assert not Recipe(momentum=0.0).build_optimiser(model).param_groups[0]["nesterov"]
    adam = Recipe(optimiser="adamw", momentum=0.8).build_optimiser(model)
    assert isinstance(adam, optim.AdamW)
    assert adam.param_groups[0]["betas"] == (0.8, 0.999)
    assert set(OPTIMISERS) == {"sgd", "adamw"}


def test_a_rate_that_is_left_out_is_by_optimiser_and_length() -> None:
    for optimiser, lengths in RATES.items():
        last = 0.0
        for most, rate in lengths:
            epochs = int(min(most, 1000))
            recipe = Recipe(epochs=epochs, optimiser=optimiser)
            assert recipe.highest_rate == rate > last
            assert recipe.build_optimiser(nn.Linear(2, 2)).param_groups[0]["lr"] == rate
            assert recipe.rate(0.05) == pytest.approx(rate)
            assert replace(recipe, lr=0.3).highest_rate == 0.3
            last = rate
        assert replace(Recipe(optimiser=optimiser), epochs=1).highest_rate == lengths[0][1]  # goes with the length
    assert (Recipe().highest_rate, Recipe(epochs=1).highest_rate) == (0.1, 0.02)


@given(st.integers(1, 200), st.integers(1, 200), st.floats(1e-6, 1), st.sampled_from(list(OPTIMISERS)))
def test_a_given_rate_changes_with_the_length_as_the_others_do(here: int, there: int, lr: float, name: str) -> None:
    given, usual = Recipe(epochs=here, optimiser=name, lr=lr), Recipe(epochs=here, optimiser=name)
    assert usual.in_epochs(there) == replace(usual, epochs=there)
    changed = given.in_epochs(there)
    assert changed.highest_rate / lr == pytest.approx(usual.in_epochs(there).highest_rate / usual.highest_rate)
    assert replace(changed, lr=lr) == replace(given, epochs=there)
    assert given.in_epochs(here) == given


def test_recipe_goes_through_json() -> None:
    recipe = Recipe(epochs=7, lr=0.03, slim=1e-4, slim_layers={"bn": 3.0})
    record = json.loads(json.dumps(recipe.to_dict()))
    assert Recipe(**record) == recipe
    assert Recipe(epochs=7).to_dict()["lr"] == Recipe(epochs=7).highest_rate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, but got epochs=0"),
        ({"epochs": 1.5}, "epochs must be a whole number >= 1, but got epochs=1.5"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"optimiser": "sdg"}, "unknown optimiser 'sdg'; did you mean 'sgd'?"),
        ({"schedule": "warm"}, "unknown schedule 'warm'; known are cosine, one-cycle, linear, step, constant"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"lr": 0.0}, "0 < lr <= 10000 must hold, but got lr=0.0"),
        ({"lr": float("nan")}, "0 < lr <= 10000 must hold, but got lr=nan"),
        ({"lr": "fast"}, "lr must be a number or 'auto', but got lr='fast'"),
        ({"momentum": 1.0}, "0 <= momentum < 1 must hold, but got momentum=1.0"),
        ({"distill": 1.5}, "0 <= distill <= 1 must hold, but got distill=1.5"),
        ({"temperature": 0}, "0 < temperature <= 10000 must hold"),
        ({"warmup": 1.0}, "0 <= warmup < 1 must hold"),
        ({"slim": -1e-4}, "0 <= slim <= 10000 must hold"),
        ({"slim_layers": {"bn": -1.0}}, r"0 <= slim_layers\['bn'\] must hold"),
    ],
)
def test_values_that_make_no_training_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        Recipe(**values)
