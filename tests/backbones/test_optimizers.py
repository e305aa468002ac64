"""An optimizer that survives surgery: groups, settings and state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.optimizers import transfer_optimizer
from backbones.structure import Structure
from backbones.surgery import prune
from tests.graphs import known_trace as trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return y


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    model(x).square().sum().backward()
    optimizer.step()


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01, amsgrad=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_settings_and_state_are_cut_like_the_parameters(name: str) -> None:
    torch.manual_seed(0)
    model = Net()
    groups = [
        {"params": [model.conv.weight, model.head.weight], "weight_decay": 1e-3},
        {"params": [model.conv.bias, *model.norm.parameters(), model.head.bias], "weight_decay": 0.0, "lr": 0.02},
    ]
    optimizer = OPTIMIZERS[name](groups)
    for seed in range(3):
        step(model, optimizer, seed)
    graph = trace(model, torch.zeros(1, 3, 6, 6))
    kept = [0, 3, 4]
    pruned: Any = prune(model, graph, Structure.of(graph, {"conv": kept}))
    moved = transfer_optimizer(optimizer, model, pruned)
    assert type(moved) is type(optimizer)
    assert [group["weight_decay"] for group in moved.param_groups] == [1e-3, 0.0]
    assert [group["lr"] for group in moved.param_groups] == [group["lr"] for group in optimizer.param_groups]
    assert moved.param_groups[0]["params"][0] is pruned.conv.weight
    for key, value in optimizer.state[model.conv.weight].items():
        found = moved.state[pruned.conv.weight][key]
        assert torch.equal(found, value[kept] if value.ndim == 4 else value)
    for key, value in optimizer.state[model.head.weight].items():
        assert torch.equal(moved.state[pruned.head.weight][key], value[:, kept] if value.ndim == 2 else value)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(pruned.train(), moved, 9)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(bool(torch.isfinite(value).all()) for value in pruned.parameters())


def test_keeping_everything_continues_exactly() -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    step(model, optimizer, 0)
    graph = trace(model, torch.zeros(1, 3, 6, 6))
    twin = prune(model, graph, Structure.full(graph)).train()
    moved = transfer_optimizer(optimizer, model, twin)
    step(model, optimizer, 1)
    step(twin, moved, 1)
    for (name, one), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_what_does_not_belong_together_is_refused() -> None:
    model = Net()
    graph = trace(model, torch.zeros(1, 3, 6, 6))
    pruned = prune(model, graph, Structure.of(graph, {"conv": [0]}))
    with pytest.raises(SecateurError, match="the pruned module carries no origin"):
        transfer_optimizer(torch.optim.SGD(model.parameters()), model, Net())
    with pytest.raises(SecateurError, match=r"holds a parameter of shape \(8, 3, 3, 3\) that is not the model's"):
        transfer_optimizer(torch.optim.SGD(Net().parameters()), model, pruned)
