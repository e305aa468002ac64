"""What a network keeps between calls is what it was, whatever secateur did with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones import trace as tracing
from backbones.exports import export_program
from backbones.state import untouched
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from scoring.scorers import score
from tests.backbones import zoo_kept
from tests.backbones.parity import assert_law, noise, stirred
from tests.backbones.zoo_kept import KEPT


def picture(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    """All there is of a value, as plain data that can be compared."""
    if isinstance(value, Tensor):
        assert type(value) in (Tensor, nn.Parameter), f"{type(value)} was left behind"
        return (id(value), value.dtype, value.tolist())
    if id(value) in seen:
        return "above"
    seen |= {id(value)}
    if isinstance(value, dict):
        return [(str(key), picture(item, seen)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [picture(item, seen) for item in value]
    if isinstance(value, (nn.Module, zoo_kept.Store)):
        return [type(value), picture(vars(value), seen)]
    cells = getattr(value, "__closure__", None) or ()
    return [repr(value), *[picture(cell.cell_contents, seen) for cell in cells], picture(_defaults(value), seen)]


def _defaults(value: Any) -> Any:
    return getattr(value, "__defaults__", None)


def everything(model: nn.Module) -> Any:
    classes = {name: found for base in type(model).__mro__[:-2] for name, found in vars(base).items()}
    kept = {name: getattr(zoo_kept, name) for name in ("GRIDS", "latest")}
    return picture([model, classes, kept, list(zoo_kept.OWNERS.values()), zoo_kept.remembered.cache_info().currsize])


def fresh(name: str, *, warm: bool) -> nn.Module:
    """Cold: it never ran. Warm: it ran, with gradients."""
    zoo_kept.GRIDS.clear()
    zoo_kept.OWNERS.clear()
    zoo_kept.latest = None
    zoo_kept.remembered.cache_clear()
    zoo_kept.OnClass.seen = None
    zoo_kept.InClassDict.grids.clear()
    zoo_kept.InDefault.grid.__defaults__[0].clear()  # type: ignore[index]
    torch.manual_seed(0)
    model = stirred(KEPT[name]().model)
    if warm:
        model.eval()(noise(1, 3, 8, 8))
        model.train()
    return model


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_what_it_was(name: str, warm: bool, tmp_path: Path) -> None:
    model = fresh(name, warm=warm)
    before = everything(model)
    example, images = noise(1, 3, 8, 8), noise(4, 3, 8, 8)
    graph = trace(model, example)
    assert everything(model) == before
    structure = Structure.random(graph, keep=0.5)
    prune(model, graph, structure)
    assert everything(model) == before
    for scorer in ("naswot", "fidelity"):
        score(scorer, model, graph, structure, images, recalibrate=[images])
        assert everything(model) == before
    export_program(model, tmp_path / "whole.pt2", (example,))
    assert everything(model) == before
    assert_law(model, graph, structure)


@pytest.mark.parametrize("name", KEPT)
def test_also_after_a_failed_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh(name, warm=False)
    before = everything(model)

    class FailsError(Exception):
        """Not an error that anything expects."""

    def fail(*_: object) -> None:
        raise FailsError

    monkeypatch.setattr(tracing, "assemble", fail)
    with pytest.raises(FailsError):
        trace(model, noise(1, 3, 8, 8))
    assert everything(model) == before


class Undecided(zoo_kept.InClassDict):
    """Keeps values, then cannot be exported."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * 2 if x.sum() > 0 else x


def test_also_where_it_cannot_be_exported() -> None:
    model = Undecided().double()
    before = everything(model)
    with pytest.raises(ValueError, match=r"torch.export cannot trace the model"):
        trace(model, noise(1, 3, 8, 8))
    assert everything(model) == before
    assert Undecided.grids == {}


def test_statistics_of_batch_norm_in_training_are_what_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with untouched(model):
        model(torch.randn(8, 1, 8, 8))
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
