# mypy: disable-error-code="no-any-return,operator,index"
"""Miniatures of everything that is not an image classifier made of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.parity import noise
from tests.backbones.zoo import Sample, image
from tests.backbones.zoo_convnets import conv


class UNet(nn.Module):
    """Skips by concatenation, transposed convolutions, pixel shuffle at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 8), conv(8, 12)
        self.up1, self.up2 = nn.ConvTranspose2d(12, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.d, self.e = conv(16, 8), conv(12, 6)
        self.out = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(2), nn.Conv2d(2, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([self.up1(c), b], 1))
        return self.out(self.e(torch.cat([self.up2(d), a], 1)))


class DeepLab(nn.Module):
    """Atrous pyramid with image pooling, an auxiliary output, results in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid, self.low = conv(3, 8), conv(8, 10, stride=2), nn.Conv2d(8, 4, 1)
        self.rates = nn.ModuleList(nn.Conv2d(10, 6, 3, padding=rate, dilation=rate) for rate in (1, 2))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(10, 6, 1), nn.ReLU())
        self.project, self.head, self.aux = conv(18, 8, 1), nn.Conv2d(12, 5, 1), nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        low = self.stem(x)
        x = self.mid(low)
        branches = [F.relu(rate(x)) for rate in self.rates]
        branches.append(F.interpolate(self.pooled(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        y = F.interpolate(self.project(torch.cat(branches, 1)), size=size, mode="bilinear", align_corners=False)
        out = self.head(torch.cat([y, self.low(low)], 1))
        return {"out": out, "aux": F.interpolate(self.aux(x), size=size)}


class Pyramid(nn.Module):
    """Feature pyramid: shared heads over levels, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.two, self.three = conv(3, 8), conv(8, 10, stride=2), conv(10, 12, stride=2)
        self.lateral = nn.ModuleList(nn.Conv2d(width, 6, 1) for width in (8, 10, 12))
        self.smooth, self.boxes, self.classes = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 4, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        maps = [self.stem(x)]
        maps.append(self.two(maps[0]))
        maps.append(self.three(maps[1]))
        top = self.lateral[2](maps[2])
        levels = [top]
        for i in (1, 0):
            top = F.interpolate(top, scale_factor=2) + self.lateral[i](maps[i])
            levels.append(top)
        smooth = [F.relu(self.smooth(level)) for level in levels]
        return [(self.boxes(level), torch.sigmoid(self.classes(level))) for level in smooth]


class TwoInputs(nn.Module):
    """An image and numbers that scale and shift its channels (FiLM); the number of groups differs by way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.film = (
            conv(3, 8),
            conv(8, 8),
            nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 16)),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition).chunk(2, dim=-1)
        x = self.inner(self.stem(x)) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return self.head(F.relu(x).mean((2, 3)))


class Siamese(nn.Module):
    """One tower for both inputs, bilinear and cosine comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv(3, 8), conv(8, 10, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(20, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        one, other = self.tower(left), self.tower(right)
        return self.head(torch.cat([(one - other).abs(), one * other], 1))


class Compared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU())
        self.bilinear = nn.Bilinear(8, 8, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.bilinear(self.tower(left), self.tower(right))


class Wave(nn.Module):
    """1-d convolutions, gated, dilated, with skips (WaveNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 8, 3, padding=1)
        self.gates = nn.ModuleList(nn.Conv1d(8, 16, 3, padding=2**i, dilation=2**i) for i in range(2))
        self.mix = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(2))
        self.norm, self.head = nn.BatchNorm1d(8), nn.Conv1d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.stem(x), 0.0
        for gate, mix in zip(self.gates, self.mix, strict=True):
            value, control = gate(x).chunk(2, 1)
            skip = mix(torch.tanh(value) * torch.sigmoid(control))
            x, total = x + skip, total + skip
        return self.head(F.adaptive_max_pool1d(F.relu(self.norm(total)), 4))


class Video(nn.Sequential):
    """3-d convolutions, one of them split in space and time."""

    def __init__(self) -> None:
        layers = [nn.Conv3d(3, 6, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(6), nn.ReLU()]
        layers += [nn.Conv3d(6, 8, (3, 1, 1), padding=(1, 0, 0)), nn.ReLU(), nn.MaxPool3d(2)]
        layers += [nn.ConvTranspose3d(8, 6, 2, 2), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4)]
        super().__init__(*layers)


class Frames(nn.Module):
    """Frames folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(conv(3, 8), conv(8, 6, stride=2))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, time = x.shape[:2]
        x = self.net(x.flatten(0, 1)).mean((2, 3))
        return self.head(x.view(batch, time, -1).mean(1))


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        layers = [nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 16), nn.LayerNorm(16), nn.GELU()]
        super().__init__(*layers, nn.Linear(16, 12), nn.ELU(), nn.Linear(12, 4))


class Recurrent(nn.Module):
    """Convolutions in front of a recurrent layer: its units can go, the same ones in both layers and directions."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 6, 3, padding=1))
        self.cell = getattr(nn, cell)(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.cell(self.front(x).transpose(1, 2))
        return self.head(out[:, -1])


class Attention(nn.Module):
    """Multi-head attention as timm writes it."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * (width // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Dropout(0.1), nn.Linear(20, width))
        self.scale = nn.Parameter(1e-5 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Class token, position embedding, pre-norm blocks."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8))
        self.blocks = nn.Sequential(*[Block(8, Attention(8, 2, fused=fused)) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class WindowAttention(nn.Module):
    """Swin: shifted windows, a table of relative positions."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.heads, self.shift = heads, shift
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(9, heads))
        self.register_buffer("index", torch.arange(16) % 9)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
        qkv = self.qkv(x).reshape(x.shape[0], 4, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        weights = qkv[0] @ qkv[1].transpose(-2, -1) + self.table[self.index].view(4, 4, -1).permute(2, 0, 1)
        x = self.proj((weights.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(x.shape[0], 4, channels))
        x = x.view(batch, height // 2, width // 2, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, height, width, channels)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class Swin(nn.Module):
    """Windows, then patch merging of four neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Sequential(nn.Conv2d(3, 8, 2, 2))
        self.one, self.two = Block(8, WindowAttention(8, 2, 0)), Block(8, WindowAttention(8, 2, 1))
        self.norm, self.merge = nn.LayerNorm(32), nn.Linear(32, 12, bias=False)
        self.three, self.head = Block(12, WindowAttention(12, 3, 0)), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(self.patch(x).permute(0, 2, 3, 1)))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.three(self.merge(self.norm(x))).mean((1, 2)))


class Language(nn.Module):
    """Token and position embeddings, causal attention, the decoder's weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(16, 8)
        self.blocks = nn.ModuleList(Block(8, Attention(8, 2, fused=True)) for _ in range(2))
        self.norm, self.decode = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.decode.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.decode(self.norm(x))


class TiedMlp(nn.Module):
    """Embedding and decoder tied, only linear layers between: the embedding width is prunable."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.up, self.down = nn.Embedding(11, 8), nn.Linear(8, 20), nn.Linear(20, 8)
        self.decode = nn.Linear(8, 11)
        self.decode.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        return self.decode(x + self.down(F.gelu(self.up(x))))


class Library(nn.Module):
    """The encoder and the attention of torch.nn."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 20, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pool, self.query = nn.MultiheadAttention(8, 2, batch_first=True), nn.Parameter(torch.randn(1, 1, 8))
        self.head = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.embed(x))
        pooled, _ = self.pool(self.query.expand(x.shape[0], -1, -1), x, x, need_weights=False)
        return self.head(pooled[:, 0])


class NonLocal(nn.Module):
    """Attention over positions with 1x1 convolutions: what is weighted can be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.theta, self.phi, self.g = conv(3, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)
        self.out, self.head = nn.Conv2d(6, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, _, height, width = x.shape
        weights = torch.softmax(self.theta(x).flatten(2).transpose(1, 2) @ self.phi(x).flatten(2), -1)
        y = (weights @ self.g(x).flatten(2).transpose(1, 2)).transpose(1, 2).reshape(batch, -1, height, width)
        return self.head((x + self.out(y)).mean((2, 3)))


class GatedMlp(nn.Module):
    """SwiGLU with RMS norm, one matrix for value and gate."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.wide = nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 24, bias=False)
        self.down, self.head = nn.Linear(12, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        value, gate = self.wide(self.norm(x)).chunk(2, -1)
        return self.head(x + self.down(F.silu(gate) * value))


def of(make: Callable[[], Any], *shapes: tuple[int, ...], uncounted: bool = False) -> Callable[[], Sample]:
    """A zoo entry for inputs of other shapes."""
    return lambda: Sample(make(), tuple(noise(*shape, seed=i) for i, shape in enumerate(shapes)), uncounted=uncounted)


def words(make: Callable[[], nn.Module]) -> Callable[[], Sample]:
    """A zoo entry for token numbers."""
    return lambda: Sample(make(), (torch.tensor([[1, 5, 2, 9, 0]]),))


OTHERS: Mapping[str, Callable[[], Sample]] = {
    "unet": lambda: Sample(UNet(), (image(),)),
    "deeplab": lambda: Sample(DeepLab(), (image(),)),
    "pyramid": lambda: Sample(Pyramid(), (image(),)),
    "two_inputs": of(TwoInputs, (1, 3, 8, 8), (1, 5)),
    "siamese": of(Siamese, (1, 3, 8, 8), (1, 3, 8, 8)),
    "bilinear": of(Compared, (1, 6), (1, 6), uncounted=True),
    "wave": of(Wave, (1, 2, 16)),
    "video": of(Video, (1, 3, 4, 8, 8)),
    "frames": of(Frames, (1, 4, 3, 8, 8)),
    "perceptron": of(Perceptron, (1, 6)),
    "lstm": of(lambda: Recurrent("LSTM"), (1, 2, 9), uncounted=True),
    "gru": of(lambda: Recurrent("GRU"), (1, 2, 9), uncounted=True),
    "vit": lambda: Sample(Vit(fused=False), (image(size=16),)),
    "vit_fused": lambda: Sample(Vit(fused=True), (image(size=16),)),
    "swin": lambda: Sample(Swin(), (image(),)),
    "language": words(Language),
    "tied_mlp": words(TiedMlp),
    "library": of(Library, (1, 7, 6)),
    "non_local": lambda: Sample(NonLocal(), (image(),)),
    "gated_mlp": of(GatedMlp, (1, 7, 6)),
}
