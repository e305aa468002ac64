"""Scores of refitted networks: `reconstruction`, and any other scorer asked of the refitted network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.architectures.resnet_cifar import CifarResNet
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.naswot import naswot
from scoring.output_distance import relative_distance
from scoring.reconstruction.refit import refit
from scoring.scorers import SCORERS, check_scorer, refits, score, scorer_of
from scoring.scoring_task import ScoredStructure, ScoringTask
from tests.graphs import known_trace as trace


def images(seed: int, count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def task() -> ScoringTask:
    torch.manual_seed(0)
    model = CifarResNet(1, 10)
    with torch.no_grad():
        model(images(3, 32))
    model.eval()
    return ScoringTask(model, trace(model, images(0, 1)), images(0, 12), fit=images(1, 24), held_out=images(2, 20))


def test_the_whole_network_scores_nothing_and_less_is_below(task: ScoringTask) -> None:
    graph = task.graph
    some = [Structure.full(graph), *(Structure.random(graph, macs=macs, seed=0) for macs in (0.8, 0.1))]
    found = [SCORERS["reconstruction"](ScoredStructure(task, structure)) for structure in some]
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[0] > found[1] > found[2]


def test_it_is_the_divergence_of_the_refitted_network_on_the_images_held_out(task: ScoringTask) -> None:
    structure = Structure.random(task.graph, macs=0.4, seed=1)
    network = refit(task.targets(""), structure, forward_only=True).eval()
    with torch.no_grad():
        ours, dense = (F.log_softmax(one(images(2, 20)).double(), 1) for one in (network, task.model))
    by_hand = -float((dense.exp() * (dense - ours)).sum(1).mean())
    assert SCORERS["reconstruction"](ScoredStructure(task, structure)) == pytest.approx(by_hand, rel=1e-6)


def test_other_outputs_are_compared_by_their_relative_distance() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, padding=1)
            self.left, self.right = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 3, 1)

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            out = torch.relu(self.body(batch))
            return {"left": self.left(out), "right": self.right(out)}

    torch.manual_seed(0)
    model = Heads().eval()
    graph = trace(model, images(0, 1))
    task = ScoringTask(model, graph, images(0, 12), fit=images(1, 24), held_out=images(2, 20))
    structure = Structure.random(graph, keep=0.5, seed=1)
    network = refit(task.targets(""), structure, forward_only=True).eval()
    with torch.no_grad():
        by_hand = -float(relative_distance(network(images(2, 20)), model(images(2, 20))))
    assert SCORERS["reconstruction"](ScoredStructure(task, structure)) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand < 0


def test_a_scorer_of_the_refitted_network_sees_that_network(task: ScoringTask) -> None:
    structure = Structure.random(task.graph, macs=0.4, seed=2)
    network = refit(task.targets(""), structure, forward_only=True).eval()
    scored = ScoredStructure(task, structure)
    assert scorer_of("refitted:naswot")(scored) == pytest.approx(naswot(network, task.batch), rel=1e-9)
    assert scorer_of("refitted:naswot")(scored) != scorer_of("naswot")(scored)
    # Its statistics come with the refit: nothing has to be renewed.
    assert -1 <= scorer_of("refitted:region_kernel")(scored) <= 1
    with pytest.raises(SecateurError, match="needs recalibrate"):
        scorer_of("region_kernel")(scored)


def test_parts_of_a_rank_sum_share_one_refit(task: ScoringTask, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: object, **options: object) -> nn.Module:
        calls.append(arguments)
        return refit(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("scoring.scoring_task.refit", counted)
    some = tuple(Structure.random(task.graph, macs=0.4, seed=seed) for seed in range(3))
    ranked = replace(task, reference=some[:2], reference_scores={})
    scorer_of("reconstruction+refitted:naswot")(ScoredStructure(ranked, some[2]))
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refitted:naswott", "unknown scorer 'naswott'"),
        ("refitted:params", "scorer 'params' gives the same with and without 'refitted:'; leave it out"),
        ("refitted:reconstruction", "scorer 'reconstruction' gives the same"),
        ("refitted:zico", "scorer 'zico' is no longer offered"),
    ],
)
def test_names_that_mean_nothing_are_refused(name: str, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        check_scorer(name)


def test_which_names_need_images_to_fit() -> None:
    assert [refits(name) for name in ("reconstruction", "naswot+refitted:naswot", "naswot+params")] == [
        True,
        True,
        False,
    ]


def test_images_to_fit_may_not_be_missing_or_of_another_shape(task: ScoringTask) -> None:
    graph: ChannelGraph = task.graph
    structure = Structure.full(graph)
    with pytest.raises(SecateurError, match="scorer 'reconstruction' needs fit="):
        score("reconstruction", task.model, graph, structure, task.batch)
    with pytest.raises(SecateurError, match=r"images have shape \(4, 3, 8, 8\)"):
        score("reconstruction", task.model, graph, structure, task.batch, fit=torch.zeros(4, 3, 8, 8))
