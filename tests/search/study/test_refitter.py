"""Refitted networks of a study: what they are fitted on, and retrainings that start from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from backbones.artefact import load, save
from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.reconstruction.reconstruct import reconstruct
from scoring.reconstruction.targets import gather_targets
from search.data.data import Data
from search.data.sources import Split
from search.review.candidate import Candidate
from search.study import networks
from search.study.networks import Refitter
from search.study.retraining_task import STARTS, RetrainConfig
from search.training.flows import Flow
from search.training.metrics import accuracy
from search.training.recipe import Recipe
from tests.search.study.study_samples import make, small_data, small_graph, small_model

RECIPE = Recipe(epochs=1, lr=0.01, batch_size=32, recalibrate=0)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_one_network_by_trial_candidate_and_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = Mock(side_effect=gather_targets)
    monkeypatch.setattr(networks, "gather_targets", gathered)
    model = small_model()
    graph, data = small_graph(model), small_data()
    study = make(f"journal:///{tmp_path}/s.log", tmp_path, (model, graph, data), seed=3)
    study.search(3, progress=False)
    [best] = study.finalists(1).members
    assert best.structure is not None
    before = weights(model)
    made = [study.reconstruct(one) for one in (best, best.structure, best.number)]
    assert gathered.call_count == 1  # the dense network ran once
    images, _ = data.batch(len(data.train), 3)
    expected = reconstruct(model, graph, best.structure, images)
    for one in made:
        assert not one.training
        torch.testing.assert_close(weights(one), weights(expected))
    assert torch.equal(weights(model), before)
    save(made[0], tmp_path / "small.safetensors")
    example = data.example
    assert torch.equal(load(tmp_path / "small.safetensors", model)(example), made[0](example))


def test_labels_play_no_part(tmp_path: Path) -> None:
    model, data = small_model(), small_data()
    graph = small_graph(model)
    assert isinstance(data.train, Split)
    wrong = replace(data, train=replace(data.train, labels=data.train.labels.flip(0)))
    structure = Structure.random(graph, keep=0.5)
    found = [Refitter(model, graph, one, 0)(structure) for one in (data, wrong)]
    assert torch.equal(weights(found[0]), weights(found[1]))


def test_what_has_no_structure_is_named(tmp_path: Path) -> None:
    model = small_model()
    study = make(f"journal:///{tmp_path}/s.log", tmp_path, (model, small_graph(model), small_data()))
    with pytest.raises(SecateurError, match="study 's' has no trial 7 with a structure"):
        study.reconstruct(7)
    with pytest.raises(SecateurError, match="trial 2 has no structure: over the budget"):
        study.reconstruct(Candidate(2, reason="over the budget"))


def test_fewer_images_where_they_are_large_and_too_few_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small_model(), small_data()
    graph = small_graph(model)
    assert Refitter(model, graph, data, 0).count == len(data.train) < networks.IMAGES
    monkeypatch.setattr(networks, "IMAGES", 40)
    assert Refitter(model, graph, data, 0).count == 40
    monkeypatch.setattr(networks, "MOST_ACTIVATIONS", 200_000)
    few = Refitter(model, graph, data, 0)
    assert 2 <= few.count < 40
    assert len(few.targets.inputs[0]) == few.count
    monkeypatch.setattr(networks, "IMAGES", 1)
    with pytest.raises(SecateurError, match="at least 2 are needed to refit on, but got 1"):
        Refitter(model, graph, data, 0)(Structure.full(graph))


def test_settings_of_a_cut_start_are_written_as_before_there_was_a_choice() -> None:
    assert "start" not in RetrainConfig(RECIPE, start="cut").text
    assert (RetrainConfig(Recipe()).key, RetrainConfig(Recipe(epochs=2, lr=0.1), Flow("soft")).key) == (
        "ab2047",
        "6e92bd",
    )
    cut, refitted = (json.loads(RetrainConfig(RECIPE, start=start).text) for start in STARTS if start != "auto")
    assert refitted == {**cut, "start": "reconstructed"}


@pytest.mark.parametrize("name", ["iterative", "soft", "asymptotic"])
def test_flows_that_choose_again_start_as_they_do(name: str) -> None:
    flow = Flow(name)
    assert RetrainConfig(RECIPE, flow, "reconstructed").text == RetrainConfig(RECIPE, flow).text
    assert not RetrainConfig(RECIPE, flow, "reconstructed").refits


def test_retrainings_from_both_starts_stand_beside_each_other(tmp_path: Path) -> None:
    model = small_model()
    study = make(f"journal:///{tmp_path}/s.log", tmp_path, (model, small_graph(model), small_data()))
    study.search(3, progress=False)
    [best] = study.finalists(1).members
    study.retrain(1, recipe=RECIPE, start="cut", progress=False)
    assert study.retrained(RECIPE, start="reconstructed") == {}
    study.retrain(1, recipe=RECIPE, start="reconstructed", progress=False)
    for start, make_network in (("cut", study.refitter.as_cut), ("reconstructed", study.reconstruct)):
        result = study.retrained(RECIPE, start=start)[best.id]
        if start == "reconstructed":
            assert result["recalibrated_accuracy"] == began(make_network, best, study.data)
    assert len(list((tmp_path / "retrain").iterdir())) == 2
    with pytest.raises(SecateurError, match="unknown start 'refitted'; known are auto, cut, reconstructed"):
        study.retrain(1, recipe=RECIPE, start="refitted", progress=False)


def began(make_network: Callable[..., nn.Module], one: Candidate, data: Data) -> float:
    return accuracy(make_network(one), data, "validation")


def test_a_killed_training_from_refitted_weights_ends_as_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, epochs=2)
    results = []
    for name, stop in (("whole", False), ("killed", True)):
        model = small_model()
        parts = (model, small_graph(model), small_data())
        study = make(f"journal:///{tmp_path}/{name}.log", tmp_path / name, parts)
        study.search(3, progress=False)
        if stop:
            with monkeypatch.context() as patched:
                patched.setattr("search.training.engine._finish", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    study.retrain(1, recipe=recipe, start="reconstructed", progress=False)
            make(f"journal:///{tmp_path}/{name}.log", tmp_path / name, parts)
        front = study.retrain(1, recipe=recipe, start="reconstructed", progress=False)
        artefact = front.best().artefact
        assert artefact is not None
        results.append(weights(load(artefact, model)))
    assert torch.equal(*results)


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt
