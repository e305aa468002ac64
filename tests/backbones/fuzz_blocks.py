# mypy: disable-error-code="no-any-return"
"""Blocks that random networks are made of: what layers and code do to (N, channels, H, W)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Step(nn.Module):
    """One random thing to do to (N, channels, H, W): a function and the layers it uses."""

    def __init__(
        self, layers: Sequence[nn.Module], run: Callable[..., Tensor], outputs: int, *, uncounted: bool = False
    ) -> None:
        super().__init__()
        self.layers, self.run, self.outputs, self.uncounted = nn.ModuleList(layers), run, outputs, uncounted

    def forward(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        y: Tensor = self.run(x, earlier, *self.layers)
        return y


def plain(rng: random.Random, width: int, _: list[int]) -> Step:
    out = rng.choice([4, 6, 8, 9, 12])
    kernel, stride = rng.choice([1, 3]), rng.choice([1, 1, 1, 2])
    conv = nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=rng.random() < 0.5)
    act = rng.choice([nn.ReLU(), nn.SiLU(), nn.PReLU(out), nn.Identity(), nn.LeakyReLU(inplace=True), nn.Hardswish()])
    norm = rng.choice([nn.BatchNorm2d(out), nn.Identity(), nn.InstanceNorm2d(out, affine=rng.random() < 0.5)])
    return Step([conv, norm, act], lambda x, _, conv, norm, act: act(norm(conv(x))), out)


def grouped(rng: random.Random, width: int, _: list[int]) -> Step:
    groups = rng.choice([g for g in (1, 2, 3, 4, width) if width % g == 0])
    out = groups * rng.choice([1, 2, 3])
    return Step([nn.Conv2d(width, out, 3, padding=1, groups=groups)], lambda x, _, conv: F.relu(conv(x)), out)


def residual(rng: random.Random, width: int, earlier: list[int]) -> Step:
    """Adds the newest earlier map of equal width, resized when needed, else itself."""
    same = [i for i, other in enumerate(earlier) if other == width]
    chosen = rng.choice(same) if same else -1

    def run(x: Tensor, maps: list[Tensor], conv: nn.Module) -> Tensor:
        other = maps[chosen] if chosen >= 0 else x
        if other.shape[2:] != x.shape[2:]:
            other = F.interpolate(other, size=x.shape[2:])
        return conv(x) + other if chosen % 2 else torch.relu(conv(x).add_(other))

    return Step([nn.Conv2d(width, width, 3, padding=1)], run, width)


def concat(rng: random.Random, width: int, earlier: list[int]) -> Step:
    chosen = rng.randrange(len(earlier))

    def run(x: Tensor, maps: list[Tensor]) -> Tensor:
        return torch.cat([x, F.adaptive_avg_pool2d(maps[chosen], (x.shape[2], x.shape[3]))], 1)

    return Step([], run, width + earlier[chosen])


def halves(rng: random.Random, width: int, earlier: list[int]) -> Step:
    if width % 2:
        return plain(rng, width, earlier)
    half = width // 2
    way = rng.choice(["gate", "chunk", "slice", "split", "glu", "swap"])

    def run(x: Tensor, _: list[Tensor], conv: nn.Module) -> Tensor:
        if way == "glu":
            return F.glu(x, 1)
        if way == "slice":
            middle = x.shape[1] // 2
            return torch.cat([conv(x[:, :middle]), x[:, middle:]], 1)
        left, right = x.chunk(2, 1) if way != "split" else x.split(half, 1)
        if way == "gate":
            return left * torch.sigmoid(right)
        return torch.cat([right, left] if way == "swap" else [left, conv(right)], 1)

    return Step([nn.Conv2d(half, half, 1)], run, half if way in ("glu", "gate") else width)


def shuffle(rng: random.Random, width: int, earlier: list[int]) -> Step:
    groups = rng.choice([g for g in (2, 3, 4) if width % g == 0] or [1])
    way = rng.choice(["view", "pixels", "unpixels", "library"])

    def run(x: Tensor, _: list[Tensor]) -> Tensor:
        n, c, h, w = x.shape
        if way == "unpixels" and h % 2 == 0 and w % 2 == 0:
            return F.pixel_unshuffle(x, 2)
        if way == "pixels" and width % 4 == 0:
            return F.pixel_shuffle(x, 2)
        if way == "library":
            return F.channel_shuffle(x, groups)
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Step([], run, -1)


def excite(rng: random.Random, width: int, _: list[int]) -> Step:
    inner = rng.choice([2, 3, 5])
    if rng.random() < 0.5:
        layers: list[nn.Module] = [nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)]
        return Step(layers, lambda x, _, a, b: x * torch.sigmoid(b(F.relu(a(x.mean((2, 3), keepdim=True))))), width)
    layers = [nn.Linear(width, inner), nn.Linear(inner, width)]
    return Step(layers, lambda x, _, a, b: x * b(F.relu(a(x.mean((2, 3))))).sigmoid()[..., None, None], width)


def normed(rng: random.Random, width: int, _: list[int]) -> Step:
    way = rng.choice(["layer", "group", "rms", "mlp"])
    if way == "group":
        groups = rng.choice([g for g in (1, 2, 3, 4) if width % g == 0])
        return Step([nn.GroupNorm(groups, width, affine=rng.random() < 0.7)], lambda x, _, norm: norm(x), width)
    if way == "mlp":
        layers = [nn.Linear(width, 10), nn.Linear(10, width)]
        return Step(layers, lambda x, _, a, b: x + b(F.gelu(a(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2), width)
    norm = nn.LayerNorm(width, elementwise_affine=rng.random() < 0.7) if way == "layer" else nn.RMSNorm(width)
    return Step([norm], lambda x, _, norm: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), width)


def resized(rng: random.Random, width: int, _: list[int]) -> Step:
    out = rng.choice([4, 6])
    way = rng.choice(["up", "transposed", "max", "avg", "pad"])
    layer = nn.ConvTranspose2d(width, out, 2, 2)

    def run(x: Tensor, _: list[Tensor], up: Callable[[Tensor], Tensor]) -> Tensor:
        if way == "transposed":
            return up(x).relu()
        if way == "pad":
            return F.pad(x, (1, 1, 1, 1))
        if way == "up":
            return F.interpolate(x, scale_factor=2, mode="bilinear")
        return F.max_pool2d(x, 2, ceil_mode=True) if way == "max" else F.avg_pool2d(x, 2, ceil_mode=True)

    return Step([layer], run, out if way == "transposed" else width)


def odd(rng: random.Random, width: int, _: list[int]) -> Step:
    """Code that may well have to freeze."""
    way = rng.choice(
        ["sort", "literal", "count", "mean", "pick", "softmax", "cumsum", "flip", "roll", "stack", "write"]
    )

    def run(x: Tensor, _: list[Tensor]) -> Tensor:
        if way == "sort":
            return torch.sort(x, 1)[0]
        if way == "literal":
            return x.reshape(x.shape[0], width, -1).sigmoid().reshape(x.shape)
        if way == "count":
            return x / math.sqrt(x.shape[1])
        if way == "mean":
            return x - x.mean(1, keepdim=True)
        if way == "pick":
            return x + x[:, :1]
        if way == "softmax":
            return torch.softmax(x, 1)
        if way == "cumsum":
            return torch.cumsum(x, 1)
        if way == "flip":
            return x.flip(1)
        if way == "roll":
            return torch.roll(x, 1, 1)
        if way == "stack":
            return torch.stack([x, x * 2], 2).flatten(1, 2)
        y = x.clone()
        y[:, : width // 2] = 0.25
        return y

    return Step([], run, -1)


class Held(nn.Module):
    """Parameters and numbers of a step that its code uses itself."""

    def __init__(self, width: int, **tensors: Tensor) -> None:
        super().__init__()
        self.c, self.kept = width, torch.zeros(0)
        for name, value in tensors.items():
            setattr(self, name, nn.Parameter(value))

    def ramp(self, x: Tensor) -> Tensor:
        """One value for each position, kept until the size changes."""
        if self.kept.shape != x.shape[2:]:
            self.kept = torch.linspace(0.5, 1.5, x.shape[2] * x.shape[3], dtype=x.dtype).reshape(x.shape[2:])
        return self.kept


def converted(rng: random.Random, width: int, _: list[int]) -> Step:
    """Casts, moves, shapes of other tensors, values kept between calls, numbers of channels in attributes."""
    way = rng.choice(["to", "type_as", "mask", "cpu", "view_as", "reshape_as", "kept", "attribute"])

    def run(x: Tensor, _: list[Tensor], conv: nn.Module, held: Any) -> Tensor:
        if way == "to":
            return conv(x.to(x.dtype)).to(x.device, x.dtype) + x
        if way == "type_as":
            return x.type_as(held.scale) * held.scale[:, None, None]
        if way == "mask":
            return x * (x > 0).to(x.dtype)
        if way == "cpu":
            return conv(x).cpu()
        if way == "view_as":
            return conv(x) + x.flatten(1).view_as(x)
        if way == "reshape_as":
            return conv(x).flatten(2).reshape_as(x)
        if way == "kept":
            return conv(x) * held.ramp(x)
        y = conv(x)
        return y * y.view(-1, held.c, y.shape[2] * y.shape[3]).mean(2).reshape(-1, held.c, 1, 1)

    return Step([nn.Conv2d(width, width, 1), Held(width, scale=torch.rand(width) + 0.5)], run, width)


def weighted(rng: random.Random, width: int, _: list[int]) -> Step:
    """Operations straight on parameters, fusion by softmax weights."""
    way = rng.choice(["softmax", "resized", "pooled", "normalised", "fused", "branches"])
    held = Held(width, scale=torch.rand(width), map=torch.randn(1, width, 4, 4), votes=torch.randn(2))
    layers = [nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 2 * width, 1), held]

    def run(x: Tensor, _: list[Tensor], conv: nn.Module, gates: nn.Module, held: Any) -> Tensor:
        if way == "softmax":
            return x * held.scale.softmax(0)[:, None, None]
        if way == "resized":
            return x + F.interpolate(held.map, size=x.shape[2:], mode="bilinear")
        if way == "pooled":
            return conv(x) * F.adaptive_avg_pool2d(held.map, 1)
        if way == "normalised":
            return x * F.normalize(held.scale, dim=0)[:, None, None]
        y = conv(x).relu()
        if way == "fused":
            votes = held.votes.softmax(0)
            return votes[0] * x + votes[1] * y
        chosen = gates((x + y).mean((2, 3), keepdim=True)).reshape(x.shape[0], 2, -1, 1, 1).softmax(1)
        return (torch.stack([x, y], 1) * chosen).sum(1)

    return Step(layers, run, width)


def positioned(rng: random.Random, width: int, _: list[int]) -> Step:
    """Positions picked by number or by value; statistics over the channels."""
    way = rng.choice(["index", "gather", "top", "sorted", "unpool", "mean", "norm", "select"])

    def run(x: Tensor, _: list[Tensor], gate: nn.Module) -> Tensor:
        h, w = x.shape[2:]
        flat = x.flatten(2)
        if way == "index":
            return x[:, :, torch.arange(h - 1, -1, -1)]
        if way == "gather":
            return flat.gather(2, flat.argsort(2)).reshape(x.shape)
        if way == "top":
            return x * flat.topk(min(3, h * w), dim=2)[0].mean(2)[:, :, None, None]
        if way == "sorted":
            return flat.sort(2)[0].reshape(x.shape)
        if way == "unpool" and h % 2 == 0 and w % 2 == 0:
            small, places = F.max_pool2d(x, 2, return_indices=True)
            return F.max_unpool2d(small, places, (2, 2))
        if way == "mean":
            return x * gate(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()
        if way == "norm":
            return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 0.1).sqrt()
        return x.index_select(3, torch.arange(w) // 2)

    return Step([nn.Conv2d(2, 1, 3, padding=1)], run, width)


class Attend(nn.Module):
    """Attention over positions; heads keep their width, code gets at it in several ways."""

    def __init__(self, width: int, heads: int, inner: int, few: int, way: str) -> None:
        super().__init__()
        self.heads, self.head_dim, self.few, self.way = heads, inner, few, way
        wide = heads * inner
        self.scale, self.table = inner**-0.5, nn.Parameter(torch.randn(7, heads))
        if way == "library":
            self.inner = nn.MultiheadAttention(width, heads, batch_first=True)
        elif way in ("fused", "table"):
            self.qkv = nn.Linear(width, 3 * wide)
        else:
            self.q, self.k, self.v = (
                nn.Linear(width, wide),
                nn.Linear(width, few * inner),
                nn.Linear(width, few * inner),
            )
        self.proj = nn.Linear(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        if self.way == "library":
            found: Tensor = self.inner(x, x, x, need_weights=False)[0]
            return found
        if self.way in ("fused", "table"):
            q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q = self.q(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
            k, v = (y(x).view(batch, length, self.few, self.head_dim).transpose(1, 2) for y in (self.k, self.v))
        if self.way == "fused":
            x = F.scaled_dot_product_attention(q, k, v)
        elif self.way == "grouped":
            x = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True)
        else:
            k, v = (y.repeat_interleave(self.heads // y.shape[1], 1) for y in (k, v))
            weights = q * self.scale @ k.transpose(-2, -1)
            if self.way == "table":
                places = torch.arange(length)[:, None] + torch.arange(length)
                weights = weights + self.table[(places % 7).view(-1)].view(length, length, -1).permute(2, 0, 1)
            x = weights.softmax(-1) @ v
        return self.proj(x.transpose(1, 2).flatten(2))


def attending(rng: random.Random, width: int, earlier: list[int]) -> Step:
    way = rng.choice(["fused", "table", "separate", "grouped", "library"])
    heads = rng.choice([2, 3, 4])
    if way == "library" and width % heads:
        way = "fused"
    few = heads // 2 if way in ("grouped", "separate") and heads % 2 == 0 else heads

    def run(x: Tensor, _: list[Tensor], attend: nn.Module) -> Tensor:
        tokens = attend(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, x.shape[2], x.shape[3])
        return x + tokens

    return Step([Attend(width, heads, rng.choice([2, 3]), few, way)], run, width)


def recurrent(rng: random.Random, width: int, _: list[int]) -> Step:
    """Columns of the map one after the other."""
    kind = rng.choice([nn.LSTM, nn.GRU, nn.RNN])
    both = rng.random() < 0.5
    layer = kind(width, 3, num_layers=rng.choice([1, 2]), bidirectional=both, batch_first=True)
    outputs = 6 if both else 3

    def run(x: Tensor, _: list[Tensor], layer: nn.Module) -> Tensor:
        y = layer(x.mean(2).transpose(1, 2))[0]
        return y.transpose(1, 2)[:, :, None].expand(-1, -1, x.shape[2], -1)

    return Step([layer], run, outputs, uncounted=True)


BLOCKS = [
    plain, plain, plain, grouped, residual, residual, concat, halves, shuffle, excite, normed, resized, odd,
    plain, converted, converted, weighted, weighted, positioned, positioned, attending, attending, recurrent,
]  # fmt: skip
