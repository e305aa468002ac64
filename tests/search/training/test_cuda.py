"""On a CUDA device: recorded steps are the unrecorded ones, resumed exactly; searching, refitting and retraining there.

Run by hand where there is one: no machine of the project's CI has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from search.training.engine import train
from search.training.recipe import Recipe
from tests.search.training.test_training import StopError, assert_same, network, stop_at, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 3, "lr": 0.05, "batch_size": 64, "precision": "float32", **changes})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_steps_are_the_unrecorded_ones(precision: Any, tmp_path: Path) -> None:
    data = sc.load_data("digits")
    recorded, plain, resumed = network(), network(), network()
    same = recipe(precision=precision, slim=1e-3, clip=1.0, ema=0.9)
    train(recorded, data, sc.Recipe(**{**vars_of(same), "compile": True}), device="cuda", folder=tmp_path / "whole")
    train(plain, data, sc.Recipe(**{**vars_of(same), "compile": False}), device="cuda")
    torch.testing.assert_close(weights(recorded), weights(plain), rtol=0.05, atol=1e-3)
    saved = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    assert saved["compiled"] == 64
    with pytest.raises(StopError):
        train(network(), data, same, device="cuda", folder=tmp_path / "part", after_epoch=stop_at(1))
    train(resumed, data, same, device="cuda", folder=tmp_path / "part")
    again = network()
    train(again, data, same, device="cuda")
    assert_same(resumed, again)


def vars_of(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}


def test_dropout_draws_anew_in_every_replay() -> None:
    data = sc.load_data("digits")
    ones = [network(dropout=0.5) for _ in range(2)]
    for model in ones:
        train(model, data, recipe(compile=True), device="cuda")
    assert_same(*ones)
    still = network()
    train(still, data, recipe(compile=True), device="cuda")
    assert any(not torch.equal(one, weights(still)[name]) for name, one in weights(ones[0]).items())


def test_a_teacher_and_a_study(tmp_path: Path) -> None:
    data = sc.load_data("digits")
    model: nn.Module = sc.build("resnet20", num_classes=10, in_channels=1)
    train(model, data, recipe(epochs=2, schedule="one-cycle"), device="cuda")
    graph = sc.trace(model, data.batch(1)[0])
    study = sc.Study(
        "cuda",
        model,
        graph,
        data,
        budget=sc.Budget(macs="50%"),
        scorer="reconstruction",
        storage=f"sqlite:///{tmp_path}/study.db",
        folder=tmp_path / "study",
    )
    study.search(8, progress=False)
    front = study.retrain(top=1, recipe=recipe(distill=0.5, compile=True), device="cuda", progress=False)
    assert front.best(measure="accuracy").accuracy > 0.5  # type: ignore[operator]


def test_networks_on_the_device_are_refitted_there_as_on_the_cpu() -> None:
    data = sc.load_data("digits")
    model: nn.Module = sc.build("resnet20", num_classes=10, in_channels=1)
    train(model, data, recipe(epochs=1), device="cuda")
    graph = sc.trace(model, data.batch(1)[0])
    images, _ = data.batch(128)
    structure = sc.Structure.of(graph, {group.name: range(max(1, group.size // 2)) for group in graph.groups})
    here = sc.reconstruct(model, graph, structure, images)(images)
    there = sc.reconstruct(model.cuda(), graph, structure, images.cuda())(images.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=1e-2, atol=1e-2)
