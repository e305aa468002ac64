# mypy: disable-error-code="no-any-return,operator,index,arg-type"
"""Small networks that pick and order positions, average channels, or feed recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Between, Sample, patterns
from tests.backbones.zoo_convnets import conv


class ViewAs(Between):
    def between(self, x: Tensor) -> Tensor:
        return F.relu(x.flatten(1)).view_as(x) * x.flatten(2).reshape_as(x)


class Picked(Between):
    """Positions by number: of rows, of both, by a buffer."""

    def make(self) -> None:
        self.register_buffer("rows", torch.tensor([0, 2, 5]))

    def between(self, x: Tensor) -> Tensor:
        x = x[:, :, self.rows].index_select(3, self.rows)
        return x + x[:, :, torch.tensor([[0], [1], [1]]), torch.tensor([[2, 0, 1]])]


class Gathered(Between):
    """The same positions of every channel, then the best ones of each."""

    def between(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        where = torch.arange(16).flip(0).view(1, 1, 16).expand(1, x.shape[1], 16)
        best, place = flat.gather(2, where).topk(4, dim=2)
        return (best + flat.gather(2, place)).unflatten(2, (2, 2))


class Ordered(Between):
    def between(self, x: Tensor) -> Tensor:
        values, places = x.flatten(2).sort(dim=2)
        medians, _ = values.median(2, keepdim=True)
        values = values.cumsum(2) + places / 64 + medians + values.argmax(-1, keepdim=True)
        return values.unflatten(2, (8, 8))


class Unpooled(Between):
    """SegNet: the places of a pooling are used by an unpooling of as many channels."""

    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        small, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(F.relu(self.inner(small)), places, [2, 2])


class HandLayerNorm(Between):
    """A layer norm over channels as ConvNeXt writes it."""

    def make(self) -> None:
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def between(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Standardised(Between):
    """Statistics over channels and positions of each sample."""

    def between(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, (1, 2, 3), keepdim=True)
        return (x - mean) / (deviation + 1e-6)


class Fused(Between):
    """ASFF: three maps, their weights a softmax over three channels of a convolution of their own."""

    def make(self) -> None:
        self.maps = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.votes = nn.Conv2d(24, 3, 1)
        self.shares = nn.Parameter(torch.rand(3))

    def between(self, x: Tensor) -> Tensor:
        maps = [layer(x) for layer in self.maps]
        votes = torch.softmax(self.votes(torch.cat(maps, 1)), 1)
        shares = torch.softmax(self.shares, 0)
        return sum(votes[:, i : i + 1] * one + shares[i] * one for i, one in enumerate(maps))


class Cells(nn.Module):
    """A recurrent cell stepped over time behind convolutions."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.front, self.head = conv(3, 8), nn.Linear(5, 3)
        self.cell = getattr(nn, cell)(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for row in self.front(x).mean(3).unbind(2):
            state = self.cell(row, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Layers(nn.Module):
    """Recurrent layers of one way, time first, with a projection where asked."""

    def __init__(self, cell: str, **options: int) -> None:
        super().__init__()
        self.front = conv(3, 8)
        self.cell = getattr(nn, cell)(8, 5, **options)
        self.head = nn.Linear(options.get("proj_size", 5), 3)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.cell(self.front(x).mean(3).permute(2, 0, 1))
        return self.head(out[-1])


def _recurrent(make: Callable[[], nn.Module]) -> Callable[[], Sample]:
    return lambda: Sample(make(), (torch.randn(1, 3, 8, 8).double(),), uncounted=True)


POSITIONS: Mapping[str, Callable[[], Sample]] = {
    **patterns(globals()),
    **{name: _recurrent(lambda name=name: Cells(name)) for name in ("LSTMCell", "GRUCell", "RNNCell")},  # type: ignore[misc]
    **{name: _recurrent(lambda name=name: Layers(name)) for name in ("LSTM", "GRU", "RNN")},  # type: ignore[misc]
    "LSTM with projection": _recurrent(lambda: Layers("LSTM", proj_size=4, num_layers=2)),
}
