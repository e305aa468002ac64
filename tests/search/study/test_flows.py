"""Flows as a study retrains by them: the trial's proposal followed anew while the weights change."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbones.artefact import load
from backbones.cost import cost
from backbones.errors import SecateurError
from search.run.study_file import read_study
from search.space.budget import Budget
from search.training.flows import Flow
from search.training.recipe import Recipe
from tests.search.study.study_samples import make as sample
from tests.search.study.study_samples import small_data, small_graph, small_model


@pytest.mark.parametrize("budget", [Budget(macs=0.4), Budget(params=0.4)], ids=["macs", "params"])
@pytest.mark.parametrize("flow", [Flow("iterative", 2), Flow("soft")], ids=["iterative", "soft"])
def test_a_flow_follows_the_proposal_within_the_same_cost(tmp_path: Path, flow: Flow, budget: Budget) -> None:
    model = small_model()
    graph = small_graph(model)
    study = sample(
        f"journal:///{tmp_path}/s.log",
        tmp_path,
        (model, graph, small_data()),
        space="hybrid+ratios",
        budget=budget,
    )
    study.search(4, progress=False)
    recipe = Recipe(epochs=1, lr=0.02, batch_size=64)
    before = {one.number: one for one in study.front().candidates}
    front = study.retrain(1, recipe=recipe, flow=flow, progress=False)
    (trained,) = [one for one in front.candidates if one.accuracy is not None]
    assert trained.cost is not None
    assert trained.structure is not None
    assert trained.cost == cost(graph, trained.structure)
    spent = before[trained.number].cost
    assert spent is not None
    assert trained.cost.macs <= spent.macs
    assert trained.cost.params <= spent.params
    trained.save(tmp_path / "small.safetensors")
    assert sum(p.numel() for p in load(tmp_path / "small.safetensors", model).parameters()) == trained.cost.params


def test_flows_come_from_the_study_file(tmp_path: Path) -> None:
    text = '[model]\nbackbone = "resnet20"\n[data]\nname = "digits"\n[budget]\nmacs = "30%"\n'
    path = tmp_path / "s.toml"
    path.write_text(f'name = "s"\n{text}[retrain]\ntop = 2\nflow = "iterative"\nsteps = 4\nepochs = 5\n')
    section = read_study(path).retrain
    assert section.way == Flow("iterative", 4)
    assert section.recipe.epochs == 5
    path.write_text(f'name = "s"\n{text}[retrain]\nflow = "iterativ"\n')
    with pytest.raises(SecateurError, match="unknown flow 'iterativ'; did you mean 'iterative'"):
        read_study(path)
