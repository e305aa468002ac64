"""Functions put on a network that hold on to it: a copy runs its own weights, or is refused by name."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.module_copy import copy_with
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred


class Net(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))
        return y


def closed_over(model: Any) -> None:
    before = model.forward
    model.forward = lambda x: before(x) * 2


def wrapped(model: Any) -> None:
    before = model.forward

    @functools.wraps(before)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return before(*args, **kwargs)

    model.forward = forward


def several(model: Any) -> None:
    for _ in range(3):
        wrapped(model)
        closed_over(model)


def default(model: Any) -> None:
    model.forward = lambda x, net=model: Net.forward(net, x)


def partial(model: Any) -> None:
    model.forward = functools.partial(Net.forward, model)


def method(model: Any) -> None:
    model.forward = types.MethodType(lambda self, x: Net.forward(self, x), model)


def listed(model: Any) -> None:
    layers = [model.a, model.b]
    model.forward = lambda x: model.head(functools.reduce(lambda y, layer: layer(y).relu(), layers, x).mean((2, 3)))


def of_a_layer(model: Any) -> None:
    before = model.b.forward
    model.b.forward = lambda x: before(x) + 1


def cached(model: Any) -> None:
    model.offset = functools.lru_cache(lambda width: model.head.bias[:width])
    before = model.forward
    model.forward = lambda x: before(x) + model.offset(1)


def hooked(model: Any) -> None:
    model.a.register_forward_hook(lambda module, inputs, output: output * model.head.bias[0])


def held_by_an_object(model: Any) -> None:
    class Runner:
        def __init__(self) -> None:
            self.run = model.forward
            self.more = [lambda x: model.head(x)]

    runner = Runner()
    model.runner = runner
    before = model.forward
    model.forward = lambda x: before(x) + 0 * model.runner.more[0](model.head.weight[:1])


FOLLOWED: dict[str, Callable[[Any], None]] = {
    found.__name__: found
    for found in (
        closed_over,
        wrapped,
        several,
        default,
        partial,
        method,
        listed,
        of_a_layer,
        cached,
        hooked,
        held_by_an_object,
    )
}


def without_gradient(model: Any) -> None:
    model.forward = torch.no_grad()(model.forward)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("put", [*FOLLOWED, "without_gradient"])
def test_a_copy_runs_its_own_weights(put: str, warm: bool) -> None:
    torch.manual_seed(0)
    model: Any = stirred(Net())
    {**FOLLOWED, "without_gradient": without_gradient}[put](model)
    x = noise(1, 3, 8, 8)
    wanted = model(x).detach() if warm else torch.empty(0)
    before = dict(vars(model))
    graph = trace(model, x)
    assert dict(vars(model)) == before
    assert {"a", "b"} & {group.name for group in graph.groups}
    structure = Structure.random(graph, keep=0.5)
    pruned = prune(model, graph, structure)
    if put != "without_gradient":
        assert_law(model, graph, structure)
    found = pruned(x).detach()
    with torch.no_grad():
        for value in pruned.parameters():
            value.mul_(1.5)
    assert not torch.allclose(pruned(x), found)
    if warm:
        assert torch.equal(model(x), wanted)


def test_functions_that_share_a_variable_go_on_sharing_it() -> None:
    model: Any = Net()
    calls = 0

    def forward(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return Net.forward(model, x)

    model.forward, model.calls = forward, lambda: calls
    copied: Any = copy_with(model, {})
    copied(torch.zeros(1, 3, 8, 8))
    assert copied.calls() == 1
    assert copied.forward is not model.forward


NETWORK: Any = Net()
HOLDER: dict[str, Any] = {}


def test_what_cannot_be_followed_is_refused_by_name() -> None:
    NETWORK.forward = lambda x: NETWORK.head(NETWORK.b(NETWORK.a(x).relu()).relu().mean((2, 3)))
    with pytest.raises(
        SecateurError, match=r"still computes with a.weight .* \(at test_forward.py:\d+: NETWORK.forward"
    ):
        trace(NETWORK, torch.zeros(1, 3, 8, 8))


def test_also_where_it_was_put_there_after_the_trace() -> None:
    model: Any = Net()
    graph = trace(model, torch.zeros(1, 3, 8, 8))
    HOLDER["network"] = model
    model.forward = lambda x: Net.forward(HOLDER["network"], x)
    with pytest.raises(SecateurError, match=r"still computes with a.weight"):
        prune(model, graph, Structure.random(graph, keep=0.5))
