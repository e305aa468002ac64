# mypy: disable-error-code="no-any-return,operator,index,arg-type"
"""Outer products of channels: read as pairs, normalised over pairs, and the uses that are not followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Sample, image
from tests.backbones.zoo_convnets import conv


class Gram(nn.Module):
    """Two convolutions, the outer product of the result with itself, what the subclass does to it, five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 8), conv(8, 6)
        self.weight = nn.Parameter(torch.randn(5, 6, 6))
        self.bias = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.activated(self.last(self.stem(x))).flatten(2)
        return self.read(maps @ maps.transpose(1, 2) / maps.shape[2])

    def activated(self, x: Tensor) -> Tensor:
        return x

    def read(self, pairs: Tensor) -> Tensor:
        return torch.tensordot(pairs, self.weight, ([1, 2], [1, 2])) + self.bias


class RootedGram(Gram):
    """Signed square root and L2 normalisation, as in a bilinear CNN."""

    def read(self, pairs: Tensor) -> Tensor:
        pairs = pairs.sign() * (pairs.abs() + 1e-8).sqrt()
        return super().read(pairs / torch.linalg.vector_norm(pairs, dim=(1, 2), keepdim=True).clamp_min(1e-12))


class SpelledGram(Gram):
    """The same by bmm's aliases: moved dimensions, F.normalize, an einsum with the classes first."""

    def read(self, pairs: Tensor) -> Tensor:
        pairs = F.normalize(pairs, dim=(1, 2)).permute(0, 2, 1).unsqueeze(1).squeeze(1)
        return torch.einsum("kij,nij->kn", self.weight, pairs).t() + self.bias


class TwoStreams(nn.Module):
    """Two networks of different widths, one for the rows and one for the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(3, 8), conv(3, 6)
        self.weight, self.bias = nn.Parameter(torch.randn(5, 8, 6)), nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.bmm(self.left(x).flatten(2), self.right(x).flatten(2).transpose(1, 2))
        pairs = pairs / pairs.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
        return torch.einsum("nij,kij->nk", pairs, self.weight) + self.bias


class FlatGram(Gram):
    """Pairs flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 5)

    def read(self, pairs: Tensor) -> Tensor:
        return self.head(pairs.flatten(1))


class GatedGram(RootedGram):
    """A dropped channel is no zero behind a sigmoid, so the norm would count it."""

    def activated(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class LargestPair(Gram):
    """A norm that is a maximum: not a sum."""

    def read(self, pairs: Tensor) -> Tensor:
        largest = torch.linalg.vector_norm(pairs, torch.inf, dim=(1, 2), keepdim=True)
        return super().read(pairs / (1 + largest))


class RowNorms(Gram):
    """A norm per row."""

    def read(self, pairs: Tensor) -> Tensor:
        return super().read(pairs / (1 + torch.linalg.vector_norm(pairs, dim=2, keepdim=True)))


class WeightedPairs(Gram):
    """A parameter per pair, not read by any class of its own."""

    def read(self, pairs: Tensor) -> Tensor:
        return super().read(pairs * self.weight[:1])


class ChannelAttention(Gram):
    """Softmax over one side (dual attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.last(self.stem(x)).flatten(2)
        return self.head((torch.softmax(maps @ maps.transpose(1, 2), -1) @ maps).mean(2))


class GramOfGram(Gram):
    """Products and layers that read pairs without knowing: frozen, but counted."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(6, 7), nn.Linear(7, 5)

    def read(self, pairs: Tensor) -> Tensor:
        return self.head(F.relu(self.wide(pairs @ pairs)).mean(1))


class Embedding(nn.Module):
    """L2-normalised features in front of a linear layer, in one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = conv(3, 8), conv(8, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.normalize(self.last(self.stem(x)).mean((2, 3))))


def _of(make: Callable[[], nn.Module], *silent: str, uncounted: bool = False) -> Callable[[], Sample]:
    return lambda: Sample(make(), (image(),), silent, uncounted)


# torch's counter sees no product in an einsum over a single pair, so the two that use one are counted by themselves
PAIRS: Mapping[str, Callable[[], Sample]] = {
    "Gram": _of(Gram),
    "RootedGram": _of(RootedGram),
    "SpelledGram": _of(SpelledGram, uncounted=True),
    "TwoStreams": _of(TwoStreams, uncounted=True),
    "FlatGram": _of(FlatGram, "weight", "bias"),
    "GramOfGram": _of(GramOfGram, "weight", "bias"),
    "GatedGram": _of(GatedGram),
    "LargestPair": _of(LargestPair),
    "RowNorms": _of(RowNorms),
    "WeightedPairs": _of(WeightedPairs),
    "ChannelAttention": _of(ChannelAttention, "weight", "bias"),
    "Embedding": _of(Embedding),
}
