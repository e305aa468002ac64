"""Refitted accuracy of the reference ResNet-20 at 33 % of its MACs, before any training.

Golden numbers: measured by `python studies/benchmarks/reconstruction.py accuracy --macs 0.33`
(`studies/benchmarks/reconstruction.json`): channels by L2, 512 images, 16,384 rows, 2,000 validation images.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backbones.modes import evaluating
from scoring.reconstruction.refit import refit
from scoring.reconstruction.targets import gather_targets
from search.data.sources import Split
from search.run.inputs import load_inputs
from search.run.study_file import read_study
from search.space.budget import Budget
from search.space.prepare import prepare_problem, scoring_task
from search.space.space import Space
from search.study.rules import structure_of

STUDY = Path(__file__).parents[3] / "studies" / "scorers_resnet20.toml"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("uniform", 0.7295),
        pytest.param("sensitivity", 0.8190, marks=pytest.mark.slow),  # fifty accuracies before the network is cut
    ],
)
def test_the_reference_network_works_without_training(shared_data: Path, rule: str, expected: float) -> None:
    inputs = load_inputs(read_study(STUDY), STUDY.parent, "cpu")
    model, graph, data = inputs.model.eval(), inputs.graph, inputs.data
    targets = gather_targets(model, graph, data.batch(512, 0)[0])
    task = scoring_task(model, graph, data, 128, 0)
    problem = prepare_problem(Space("ratios", criterion="l2"), task, Budget(macs=0.33), scorer="region_kernel")
    assert isinstance(data.validation, Split)
    images, labels = data.normalise(data.validation.images[:2000]), data.validation.labels[:2000]
    network = refit(targets, structure_of(rule, problem, problem.targets[0]))
    with evaluating(network), torch.no_grad():
        right = torch.cat([network(batch).argmax(1) for batch in images.split(500)]) == labels
    assert float(right.double().mean()) == pytest.approx(expected, abs=0.02)
