# mypy: disable-error-code="no-any-return"
"""Small networks that cast and move their values, also where that changes nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.backbones.zoo import Between, patterns


class CastToItself(Between):
    def between(self, x: Tensor) -> Tensor:
        return x.double().to(torch.float64).to(dtype=x.dtype).type(torch.float64)


class CastDown(Between):
    def between(self, x: Tensor) -> Tensor:
        return x.float().double()


class CastLikeWeight(Between):
    def between(self, x: Tensor) -> Tensor:
        return x.to(self.tail.weight).type_as(self.tail.weight)


class Moved(Between):
    def between(self, x: Tensor) -> Tensor:
        x = x.cpu().to("cpu").to("cpu", torch.float64, non_blocking=True, copy=True)
        return x.to(next(self.parameters()).device).contiguous(memory_format=torch.channels_last)


class CastMask(Between):
    def between(self, x: Tensor) -> Tensor:
        return x * (x > 0.1).to(x.dtype) + x * (x < 0).int()


class CastInBlock(Between):
    def between(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return F.relu(x.double())


class CastWeight(Between):
    """Weights cast to the type of what they meet."""

    def between(self, x: Tensor) -> Tensor:
        assert self.inner.bias is not None
        x = F.conv2d(x, self.inner.weight.to(x.dtype), self.inner.bias.to(x.dtype), padding=1)
        return x * self.scale.double().view(1, -1, 1, 1) + self.shift.type_as(x)[:, None, None]

    def make(self) -> None:
        self.inner = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.scale, self.shift = torch.nn.Parameter(torch.rand(8)), torch.nn.Parameter(torch.rand(8))


class CastNorm(Between):
    """A batch norm that computes in another type."""

    def between(self, x: Tensor) -> Tensor:
        norm = self.other
        mean, variance = norm.get_buffer("running_mean").double(), norm.get_buffer("running_var").double()
        return F.batch_norm(x.double(), mean, variance, norm.weight.double(), norm.bias.double()).to(x.dtype)

    def make(self) -> None:
        self.other = torch.nn.BatchNorm2d(8)


CASTS = patterns(globals())
