"""A study: the same trials however often it is interrupted, nothing scored twice, nothing mixed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from backbones import ChannelGraph, SecateurError, Structure, build, cost, load, trace
from scoring.scorers import score
from search.budget import Budget
from search.data import Data
from search.data import load as load_data
from search.recipe import Recipe
from search.samplers import SAMPLERS
from search.study import Study


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet20", 10, 1).eval()


@pytest.fixture(scope="module")
def graph(model: nn.Module, data: Data) -> ChannelGraph:
    return trace(model, data.example)


def make(folder: Path, model: nn.Module, graph: ChannelGraph, data: Data, **options: Any) -> Study:
    settings: dict[str, Any] = {"budget": Budget(macs=0.3), "space": "ratios", "scorer": "random", "batch": 16}
    settings |= options
    return Study("s", model, graph, data, storage=f"sqlite:///{folder}/s.db", folder=folder, **settings)


def finished(study: Study) -> list[tuple[Any, ...]]:
    keep = ("structure", "kept", "macs", "score", "reason")
    return [
        (t.state, t.params, t.values, {k: t.user_attrs.get(k) for k in keep})
        for t in study.optuna_study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    ]


class StopError(Exception):
    """Ends a search in the middle."""


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("budget", [Budget(macs=0.3), Budget(macs=[0.2, 0.4])], ids=["cap", "targets"])
def test_an_interrupted_search_ends_with_the_same_trials(
    tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data, sampler: str, budget: Budget, monkeypatch: Any
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    straight = make(whole, model, graph, data, sampler=sampler, budget=budget)
    trials = 30 if sampler == "gp" else 60
    straight.search(trials, progress=False)

    real, calls = score, 0

    def fragile(*args: Any, **kwargs: Any) -> float:
        nonlocal calls
        calls += 1
        if calls % 13 == 0:  # in the middle of a trial
            raise StopError
        return real(*args, **kwargs)

    monkeypatch.setattr("search.scores.score", fragile)
    while True:
        broken = make(parts, model, graph, data, sampler=sampler, budget=budget)
        try:
            broken.search(trials, progress=False)
            break
        except StopError:
            continue
    assert calls > trials
    assert finished(broken) == finished(straight)


def test_a_structure_is_scored_once(
    tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data, monkeypatch: Any
) -> None:
    seen: list[str] = []
    real = score

    def counting(name: str, model: nn.Module, graph: ChannelGraph, structure: Structure, *rest: Any) -> float:
        seen.append(structure.id)
        return real(name, model, graph, structure, *rest)

    monkeypatch.setattr("search.scores.score", counting)
    make(tmp_path, model, graph, data, space="hybrid").search(20, progress=False)
    study = make(tmp_path, model, graph, data, space="hybrid")  # another process would start here
    study.search(40, progress=False)
    assert len(seen) == len(set(seen))
    assert len(study.candidates()) == 40


def test_every_trial_holds_its_facts(tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data) -> None:
    study = make(tmp_path, model, graph, data, budget=Budget(macs="20%..40%"))
    told: list[FrozenTrial] = []
    study.search(12, callbacks=[lambda _, trial: told.append(trial)], progress=False)
    assert [trial.number for trial in told] == list(range(12))
    for one in study.candidates():
        assert one.structure is not None
        assert one.cost is not None
        assert one.cost == cost(graph, one.structure)
        assert 0.2 <= one.cost.macs / graph.costs.dense.macs <= 0.4
        assert study.structure(one.number) == one.structure
        assert one.seconds > 0


@pytest.mark.parametrize(
    ("item", "options"),
    [
        ("budget", {"budget": Budget(macs=0.5)}),
        ("space", {"space": "hybrid"}),
        ("scorer", {"scorer": "macs"}),
        ("sampler", {"sampler": "random"}),
        ("seed", {"seed": 1}),
    ],
)
def test_another_study_of_that_name_is_refused_by_item(
    tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data, item: str, options: dict[str, Any]
) -> None:
    make(tmp_path, model, graph, data).search(2, progress=False)
    with pytest.raises(SecateurError, match=f"another {item}"):
        make(tmp_path, model, graph, data, **options)


def test_other_weights_are_refused(tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data) -> None:
    make(tmp_path, model, graph, data)
    torch.manual_seed(1)
    other = build("resnet20", 10, 1)
    with pytest.raises(SecateurError, match="another weights"):
        make(tmp_path, other, graph, data)


def test_an_impossible_budget_names_the_reachable_minimum(
    tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data
) -> None:
    with pytest.raises(SecateurError, match=r"cannot be reached.*nearest value is 38,816 \(1\.54%"):
        make(tmp_path, model, graph, data, budget=Budget(macs=0.001))


def test_unknown_names_and_numbers(tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data) -> None:
    with pytest.raises(SecateurError, match="unknown sampler 'tpee'; did you mean 'tpe'"):
        make(tmp_path, model, graph, data, sampler="tpee")
    with pytest.raises(SecateurError, match="unknown space"):
        make(tmp_path, model, graph, data, space="hybird")
    with pytest.raises(SecateurError, match="trials >= 1"):
        make(tmp_path, model, graph, data).search(0)
    with pytest.raises(SecateurError, match="no feasible trial"):
        make(tmp_path, model, graph, data).retrain()


def test_a_storage_that_cannot_be_opened_hides_the_password(model: nn.Module, graph: ChannelGraph, data: Data) -> None:
    with pytest.raises(SecateurError, match="cannot be opened") as caught:
        Study("s", model, graph, data, budget=Budget(macs=0.3), storage="nonsense://user:secret@host/db")
    assert "secret" not in str(caught.value)


def test_retraining_goes_from_scores_to_accuracies(
    tmp_path: Path, model: nn.Module, graph: ChannelGraph, data: Data
) -> None:
    study = make(tmp_path, model, graph, data, budget=Budget(macs=[0.3, 0.5]))
    study.search(10, progress=False)
    assert study.front().measure == "score"
    recipe = Recipe(epochs=1, lr=0.05, batch_size=64)
    front = study.retrain(2, recipe=recipe, progress=False)
    assert front.measure == "accuracy"
    trained = [one for one in front.candidates if one.accuracy is not None]
    assert len({one.id for one in trained}) == 2
    best = front.best()
    best.save(tmp_path / "best.safetensors")
    rebuilt = load(tmp_path / "best.safetensors")
    assert best.cost is not None
    assert sum(p.numel() for p in rebuilt.parameters()) == best.cost.params
    before = len(study.optuna_study.get_trials())
    again = study.retrain(2, recipe=recipe, progress=False)
    assert [one.accuracy for one in again.candidates] == [one.accuracy for one in front.candidates]
    assert len(study.optuna_study.get_trials()) == before
