# mypy: disable-error-code="no-any-return"
"""Small networks that compute with a parameter or a buffer before it meets an activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Between, patterns

OPERATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda w: w.softmax(0), lambda w: w.log_softmax(-1), lambda w: w.mean(1), lambda w: torch.var_mean(w, 1)[0],
    lambda w: F.normalize(w, dim=1), lambda w: w.max(1)[0], lambda w: torch.max(w, w * 2), lambda w: w.logsumexp(1),
    lambda w: torch.max(w, w), lambda w: w.sort(1)[0], lambda w: w.cumsum(1), lambda w: F.max_pool2d(w, 2),
    lambda w: F.adaptive_avg_pool2d(w, 1), lambda w: F.interpolate(w, size=(8, 8), mode="bicubic"),
    lambda w: F.grid_sample(w, w[:, :2].permute(0, 2, 3, 1), align_corners=False),
    lambda w: F.batch_norm(w, w.detach()[0, :, 0, 0], w.detach()[0, :, 1, 1]), lambda w: F.group_norm(w, 2),
    lambda w: F.layer_norm(w, (4,)), lambda w: F.instance_norm(w), lambda w: F.local_response_norm(w, 2),
    lambda w: F.prelu(w, w[0, :, 0, 0]), lambda w: F.prelu(w, w[0, :1, 0, 0]), lambda w: F.glu(w, 1),
    lambda w: F.linear(w, w[0, 0]), lambda w: w @ w.transpose(-1, -2), lambda w: torch.bmm(w[0], w[0]),
    lambda w: torch.addmm(w[0, 0], w[0, 1], w[0, 2]), lambda w: torch.einsum("bchw,bcij->bhi", w, w),
    lambda w: torch.tensordot(w, w, dims=([1], [1])), lambda w: F.bilinear(w[0, 0], w[0, 1], w[0, :, :4, :4]),
    lambda w: F.conv2d(w, w[:, :, :2, :2].expand(3, 8, 2, 2)), lambda w: F.scaled_dot_product_attention(w, w, w),
    lambda w: torch.cat([w, w], 1), lambda w: torch.stack([w, w]), lambda w: w.chunk(2, 1)[0],
    lambda w: w.split([3, 5], 1)[0], lambda w: w.unbind(1)[0], lambda w: w[:, 1:5], lambda w: w[:, [1, 2]],
    lambda w: F.pad(w, (1, 1, 0, 0, 1, 1)), lambda w: F.pad(w, (1, 1, 1, 1), mode="reflect"), lambda w: w.roll(1, 1),
    lambda w: w.repeat(1, 2, 1, 1), lambda w: w.repeat_interleave(2, 1), lambda w: w.flatten(), lambda w: w.flip(1),
    lambda w: w[:, :1].expand_as(w), lambda w: F.pixel_shuffle(w, 2), lambda w: F.channel_shuffle(w, 2),
    lambda w: torch.where(w > 0, w, w * 2), lambda w: w.topk(2, 1)[0], lambda w: w.gather(1, (w > 0).long()),
    lambda w: F.embedding(torch.tensor([0, 1]), w[0, 0]), lambda w: w.view(2, 4, 16), lambda w: w.unflatten(1, (2, 4)),
    lambda w: F.unfold(w, 2), lambda w: w.permute(0, 2, 3, 1).softmax(-1), lambda w: torch.cdist(w, w),
    lambda w: torch.outer(w[0, :, 0, 0], w[0, :, 0, 0]), lambda w: w.clone().abs_(),
)  # fmt: skip


class Weighted(Between):
    """A fusion by softmax weights."""

    def make(self) -> None:
        self.weights = nn.Parameter(torch.rand(2))
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        first, second = self.weights.softmax(0)
        return first * x + second * self.inner(x)


class Position(Between):
    """A position embedding of another size."""

    def make(self) -> None:
        self.position = nn.Parameter(torch.randn(1, 8, 4, 4))

    def between(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.position, size=x.shape[-2:], mode="bicubic")


class ScaledByNormal(Between):
    def make(self) -> None:
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def between(self, x: Tensor) -> Tensor:
        return x * self.scale.sigmoid() + F.softplus(self.scale)


class PooledBuffer(Between):
    map: Tensor

    def make(self) -> None:
        self.register_buffer("map", torch.randn(1, 8, 16, 16))

    def between(self, x: Tensor) -> Tensor:
        return x + F.avg_pool2d(self.map, 2)


class ConvolvedBuffer(Between):
    map: Tensor

    def make(self) -> None:
        self.register_buffer("map", torch.randn(1, 3, 8, 8))
        self.inner = nn.Conv2d(3, 8, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        return x + self.inner(self.map)


class Warped(Between):
    """A spatial transformer: where to look is computed, from a parameter and from the features."""

    def make(self) -> None:
        self.grid = nn.Parameter(torch.rand(1, 8, 8, 2) - 0.5)
        self.shift = nn.Conv2d(8, 2, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        x = F.grid_sample(x, self.grid, align_corners=False)
        return F.grid_sample(x, self.shift(x).tanh().permute(0, 2, 3, 1), align_corners=False)


class SlopesOfGate(Between):
    """A PReLU whose slopes are computed."""

    def make(self) -> None:
        self.slopes = nn.Parameter(torch.randn(8))

    def between(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.slopes.sigmoid())


class ByEverything(Between):
    """Numbers that come from a parameter by any operation."""

    without_gradient = ("values",)
    uncounted = True

    def make(self) -> None:
        self.values = nn.Parameter(torch.rand(1, 8, 4, 4))

    def between(self, x: Tensor) -> Tensor:
        for operation in OPERATIONS:
            x = x * operation(self.values).mean().sigmoid()
        return x


class ByEverythingKept(ByEverything):
    """The same from a buffer."""

    def make(self) -> None:
        self.register_buffer("values", torch.rand(1, 8, 4, 4))


VALUES = patterns(globals())
