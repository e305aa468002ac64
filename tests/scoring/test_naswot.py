"""NASWOT against a direct pairwise-Hamming computation in float64, and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.registry import build
from backbones.structure import Structure
from scoring.codes import CodeAgreement
from scoring.naswot import log_det, naswot, naswot_last
from scoring.scorers import score
from tests.graphs import known_trace as trace
from tests.launcher import Launcher


class Small(nn.Module):
    """Three non-linearities: a module, a function, an in-place one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 3, 3, padding=1)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        x = F.relu(self.conv2(x))
        return F.silu(self.conv3(x), inplace=True).mean((2, 3))

    def preactivations(self, x: Tensor) -> list[Tensor]:
        first = self.conv1(x)
        second = self.conv2(F.leaky_relu(first, 0.1))
        return [first, second, self.conv3(F.relu(second))]


def by_hand(layers: list[Tensor]) -> np.ndarray:
    """K_ij = sum over layers of (units - Hamming distance), with loops, in float64."""
    batch = len(layers[0])
    result = np.zeros((batch, batch))
    for layer in layers:
        codes = (layer.detach().double().flatten(1) > 0).numpy()
        for i in range(batch):
            for j in range(batch):
                result[i, j] += codes.shape[1] - np.count_nonzero(codes[i] != codes[j])
    return result


@pytest.fixture
def net() -> Small:
    torch.manual_seed(3)
    return Small().eval()


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(7, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def test_naswot_equals_the_pairwise_hamming_kernel(net: Small, batch: Tensor) -> None:
    sign, expected = np.linalg.slogdet(by_hand(net.preactivations(batch)))
    assert sign == 1
    assert naswot(net, batch) == pytest.approx(expected, rel=1e-12)


def test_naswot_last_reads_the_last_layer_only(net: Small, batch: Tensor) -> None:
    last = net.preactivations(batch)[-1]
    expected = np.linalg.slogdet(by_hand([last]) / last[0].numel())[1]
    assert naswot_last(net, batch) == pytest.approx(expected, rel=1e-12)


def test_order_of_samples_does_not_matter(net: Small, batch: Tensor) -> None:
    assert naswot(net, batch[torch.tensor([3, 0, 6, 2, 1, 5, 4])]) == pytest.approx(naswot(net, batch), rel=1e-12)


def test_a_duplicated_sample_gives_a_finite_value_far_below(net: Small, batch: Tensor) -> None:
    repeated = torch.cat([batch, batch[:1]])
    value = naswot(net, repeated)
    assert math.isfinite(value)
    assert value < naswot(net, batch) - 10


def test_log_det_of_a_known_matrix() -> None:
    assert log_det(torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))) == pytest.approx(math.log(8.0))


def test_kernel_of_two_known_codes() -> None:
    agreement = CodeAgreement()
    agreement.add(torch.tensor([[0.5, 2.0, -1.0], [0.1, 0.0, -3.0]]))
    assert agreement.kernel().tolist() == [[3.0, 2.0], [2.0, 3.0]]


def test_a_network_without_activation_is_an_error(batch: Tensor) -> None:
    with pytest.raises(SecateurError, match="no activation"):
        naswot(nn.Conv2d(2, 3, 3), batch)


def test_gates_do_not_count(batch: Tensor) -> None:
    with pytest.raises(SecateurError, match="no activation"):
        naswot(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Sigmoid(), nn.Hardsigmoid(), nn.Softmax(1)), batch)


def test_nan_is_an_error(net: Small, batch: Tensor) -> None:
    with pytest.raises(SecateurError, match="NaN"):
        naswot(net, batch * float("nan"))


def test_the_mode_of_the_network_is_left_alone(net: Small, batch: Tensor) -> None:
    net.train()
    naswot(net, batch)
    assert all(module.training for module in net.modules())


def test_another_process_finds_the_same(launcher: Launcher) -> None:
    code = (
        "import torch; from torch import nn; from scoring.naswot import naswot; torch.manual_seed(3); "
        "net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 9, 3), nn.ReLU()); "
        "value = naswot(net, torch.randn(8, 3, 9, 9)).hex()"
    )
    here: dict[str, str] = {}
    exec(code, here)
    assert launcher.printed(f"{code}; print(value)").strip() == here["value"]


def test_an_unknown_scorer_names_the_nearest() -> None:
    model = build("resnet20", 10, 1)
    graph = trace(model, torch.randn(1, 1, 8, 8))
    with pytest.raises(SecateurError, match="did you mean 'naswot'"):
        score("nasswot", model, graph, Structure.full(graph), torch.randn(2, 1, 8, 8))
