"""Accuracy and batch-norm renewal; the distillation loss and NetScore against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from backbones.errors import SecateurError
from scoring.batch_norm import recalibrate
from search.data.data import Data
from search.training.losses import soft_divergence
from search.training.metrics import accuracy, netscore


def data() -> Data:
    """Twelve images whose only pixel is their class."""
    labels = torch.arange(12) % 3
    images = labels[:, None, None, None].float()
    return Data.from_tensors("d", (images, labels), (images[:5], labels[:5]), validation=0.3, mean=(0,), std=(1,))


class Nearest(nn.Module):
    """Logits highest at the class nearest to the pixel plus a shift."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return -(images.flatten(1) + self.shift - torch.arange(3.0)).abs()


def test_accuracy_counts_right_answers_in_evaluation_mode() -> None:
    model = Nearest(0.0).train()
    assert accuracy(model, data(), "train") == 1.0
    assert model.training
    # one too high: classes 0 and 1 are taken for 1 and 2, class 2 stays 2; test labels are 0 1 2 0 1
    assert accuracy(Nearest(1.0), data(), "test", batch_size=2) == pytest.approx(1 / 5)


def test_accuracy_refuses_other_outputs_and_splits() -> None:
    with pytest.raises(SecateurError, match=r"logits of shape \(5, 3\) are needed"):
        accuracy(nn.Flatten(), data())
    with pytest.raises(SecateurError, match="split must be 'train', 'validation' or 'test', but got 'all'"):
        accuracy(Nearest(0.0), data(), "all")  # type: ignore[arg-type]


def test_recalibrated_statistics_are_the_mean_over_the_batches() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.01)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), norm, nn.Dropout(0.5)).train()
    model[1].load_state_dict({**norm.state_dict(), "running_mean": torch.full((3,), 100.0)})
    batches = [torch.randn(6, 2, 4, 4) for _ in range(5)]
    with torch.no_grad():
        hidden = [model[0](batch).transpose(0, 1).flatten(1) for batch in batches]
    recalibrate(model, batches)
    mean = torch.stack([values.mean(1) for values in hidden]).mean(0)
    variance = torch.stack([values.var(1) for values in hidden]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.momentum == 0.01
    assert all(module.training for module in model.modules())


def test_recalibrating_with_nothing_changes_nothing() -> None:
    norm = nn.BatchNorm2d(3)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    recalibrate(norm, [])
    torch.testing.assert_close(dict(norm.state_dict()), before)
    recalibrate(nn.Conv2d(1, 1, 1), [torch.zeros(1, 1, 1, 1)])


def test_soft_divergence_by_hand() -> None:
    # Two classes, T = 2: softened probabilities are sigmoids of half the difference of the logits.
    logits, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    p, q = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(2.0))
    divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert float(soft_divergence(logits, teacher, temperature=2.0)) == pytest.approx(4 * divergence, rel=1e-5)


def test_soft_divergence_has_no_gradient_at_the_teacher() -> None:
    teacher = torch.randn(8, 5)
    logits = teacher.clone().requires_grad_()
    soft_divergence(logits, teacher, temperature=3.0).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6


def test_netscore_is_its_formula_in_its_units() -> None:
    # a = 90 %, p = 4 M, m = 0.25 G: 20 log10(8100 / (2 * 0.5))
    assert netscore(0.9, 4e6, 0.25e9) == pytest.approx(20 * math.log10(8100))


def test_exponents_of_netscore_are_those_given() -> None:
    # a = 10 %, p = 100 M, m = 10 G: 20 (1 * 1 - 1 * 2 - 2 * 1)
    assert netscore(0.1, 1e8, 1e10, alpha=1, beta=1, gamma=2) == pytest.approx(-60)


def test_halving_work_and_size_at_equal_accuracy_is_worth_6_decibel() -> None:
    assert netscore(0.8, 1e6, 1e8) - netscore(0.8, 2e6, 2e8) == pytest.approx(20 * math.log10(2))


@pytest.mark.parametrize(
    ("accuracy", "params", "macs", "message"),
    [
        (93.0, 1, 1, r"0 < accuracy <= 1 must hold \(a fraction, not percent\), but got accuracy=93.0"),
        (0.0, 1, 1, "0 < accuracy <= 1"),
        (0.5, 0, 1, "0 < params must hold, but got params=0"),
        (0.5, 1, -1, "0 < macs must hold"),
    ],
)
def test_netscore_refuses_bad_values(accuracy: float, params: float, macs: float, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        netscore(accuracy, params, macs)
