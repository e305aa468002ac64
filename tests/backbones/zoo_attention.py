# mypy: disable-error-code="no-any-return,operator,index"
"""Attention as libraries write it: whole heads can go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.parity import noise
from tests.backbones.zoo import Sample, image


class Block(nn.Module):
    """Attention and a multilayer perceptron behind norms, with skips."""

    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 10), nn.GELU(), nn.Linear(10, width))

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), *more)
        return x + self.mlp(self.norm2(x))


class LibraryAttention(nn.Module):
    """torchvision's ViT: the attention of torch.nn."""

    def __init__(self, width: int, heads: int, **options: Any) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


class DeitAttention(nn.Module):
    """timm's ViT and DeiT: one layer for queries, keys and values, numbers of heads and channels in attributes."""

    def __init__(self, width: int, heads: int, *, fused: bool, normed: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, width // heads, width
        self.scale, self.fused = self.head_dim**-0.5, fused
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm = nn.LayerNorm(self.head_dim) if normed else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, length, self.attn_dim))


class VisionTransformer(nn.Module):
    """Class token (DeiT: another one, with a head of its own), position embedding, blocks."""

    def __init__(self, attention: Callable[[], nn.Module], *, distilled: bool = False) -> None:
        super().__init__()
        self.patch, self.tokens = nn.Conv2d(3, 12, 4, 4), 2 if distilled else 1
        self.token = nn.Parameter(torch.randn(1, self.tokens, 12))
        self.position = nn.Parameter(torch.randn(1, 4 + self.tokens, 12))
        self.blocks = nn.Sequential(*[Block(12, attention()) for _ in range(2)])
        self.norm, self.heads = nn.LayerNorm(12), nn.ModuleList(nn.Linear(12, 5) for _ in range(self.tokens))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = self.norm(self.blocks(x))
        return torch.stack([head(x[:, i]) for i, head in enumerate(self.heads)]).mean(0)


class WindowAttention(nn.Module):
    """timm's Swin: windows, a table of relative positions with a column for each head, a mask for shifted windows."""

    def __init__(self, width: int, heads: int, *, shift: bool, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.window_area, self.shift, self.fused = heads, 4, shift, fused
        self.scale = (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.randn(9, heads))
        self.register_buffer("relative_position_index", torch.arange(16).reshape(4, 4) % 9, persistent=False)
        self.register_buffer("mask", torch.randn(4, 4, 4).sign() * 3 - 3)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        x = torch.roll(x, (-1, -1), (1, 2)) if self.shift else x
        x = x.view(-1, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
        windows, length = x.shape[:2]
        qkv = self.qkv(x).reshape(windows, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(self.window_area, self.window_area, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if self.fused:
            if self.shift:
                mask = self.mask.view(1, 4, 1, length, length).expand(windows // 4, -1, self.num_heads, -1, -1)
                bias = bias + mask.reshape(-1, self.num_heads, length, length)
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            weights = q * self.scale @ k.transpose(-2, -1) + bias
            if self.shift:
                weights = weights.view(-1, 4, self.num_heads, length, length) + self.mask.unsqueeze(1).unsqueeze(0)
                weights = weights.view(-1, self.num_heads, length, length)
            x = weights.softmax(-1) @ v
        x = self.proj(x.transpose(1, 2).reshape(windows, length, -1))
        x = x.view(-1, height // 2, width // 2, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, height, width, channels)
        return torch.roll(x, (1, 1), (1, 2)) if self.shift else x


class SwinTransformer(nn.Module):
    """Windows and shifted windows, merging of patches between two stages of other numbers of heads."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 2, 2)
        self.one = Block(6, WindowAttention(6, 3, shift=False, fused=fused))
        self.two = Block(6, WindowAttention(6, 3, shift=True, fused=fused))
        self.merge, self.head = nn.Linear(24, 12, bias=False), nn.Linear(12, 5)
        self.three = Block(12, WindowAttention(12, 4, shift=False, fused=fused))

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(self.patch(x).permute(0, 2, 3, 1)))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.three(self.merge(x)).mean((1, 2)))


class BertSelfAttention(nn.Module):
    """Hugging Face's BERT: three layers, the output layer in a module of its own, a mask from the input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size, self.all_head_size = heads, width // heads, width
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(0.1)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.num_attention_heads, self.attention_head_size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.split(self.query(x)) @ self.split(self.key(x)).transpose(-1, -2)
        weights = self.dropout((scores / math.sqrt(self.attention_head_size) + mask).softmax(-1))
        x = (weights @ self.split(self.value(x))).permute(0, 2, 1, 3).contiguous()
        return x.view(*x.shape[:-2], self.all_head_size)


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.output = BertSelfAttention(width, heads), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 14), nn.Linear(14, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.output(self.attention(x, mask)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """Words, positions, post-norm layers, a pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.norm = nn.Embedding(11, 12), nn.Embedding(8, 12), nn.LayerNorm(12)
        self.layers = nn.ModuleList(BertLayer(12, 4) for _ in range(2))
        self.pooler, self.head = nn.Linear(12, 7), nn.Linear(7, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device)))
        extended = (1.0 - mask[:, None, None, :].to(x.dtype)) * -100.0
        for layer in self.layers:
            x = layer(x, extended)
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class GroupedAttention(nn.Module):
    """Llama: several heads of queries for each head of keys and values, rotary positions, causal."""

    def __init__(self, width: int, heads: int, few: int, way: str) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim, self.way = heads, few, 4, way
        self.n_rep = heads // few
        self.q, self.k = nn.Linear(width, heads * 4, bias=False), nn.Linear(width, few * 4, bias=False)
        self.v, self.o = nn.Linear(width, few * 4, bias=False), nn.Linear(heads * 4, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = rotated(self.q(x).view(batch, length, -1, self.head_dim).transpose(1, 2), cos, sin)
        k = rotated(self.k(x).view(batch, length, self.n_kv_heads, self.head_dim).transpose(1, 2), cos, sin)
        v = self.v(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
        if self.way == "library":
            x = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = (repeated(y, self.n_rep, self.way) for y in (k, v))
            future = torch.full((length, length), -torch.inf, dtype=x.dtype).triu(1)
            x = ((q @ k.transpose(2, 3)) * self.head_dim**-0.5 + future).softmax(-1) @ v
        return self.o(x.transpose(1, 2).reshape(batch, length, -1))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def repeated(x: Tensor, times: int, way: str) -> Tensor:
    """Each head of keys or values once for each of its queries."""
    if way == "interleave":
        return x.repeat_interleave(times, 1)
    batch, few, length, width = x.shape
    return x[:, :, None].expand(batch, few, times, length, width).reshape(batch, few * times, length, width)


class Llama(nn.Module):
    """RMS norms, grouped queries, a gated perceptron."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.words, self.decode = nn.Embedding(11, 10), nn.Linear(10, 11, bias=False)
        self.norm1, self.attention = nn.RMSNorm(10), GroupedAttention(10, 6, 3, way)
        self.norm2, self.gate, self.up = nn.RMSNorm(10), nn.Linear(10, 14), nn.Linear(10, 14)
        self.down = nn.Linear(14, 10)

    def forward(self, ids: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(ids.shape[1]), torch.tensor([1.0, 0.1, 1.0, 0.1], dtype=torch.float64))
        x = self.words(ids)
        x = x + self.attention(self.norm1(x), angles.cos(), angles.sin())
        y = self.norm2(x)
        return self.decode(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class EinsumAttention(nn.Module):
    """Products by einsum, cosines, a bias for each head and two positions, a temperature for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        self.embed, self.q, self.kv = nn.Linear(5, 8), nn.Linear(8, 12, bias=False), nn.Linear(8, 24, bias=False)
        self.bias, self.temperature = nn.Parameter(torch.randn(3, 7, 7)), nn.Parameter(torch.rand(3, 1, 1) + 0.5)
        self.out, self.head = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.embed(x))
        k, v = self.kv(x).chunk(2, -1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (self.q(x), k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * self.temperature + self.bias
        y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(-2)
        return self.head((x + self.out(y)).mean(1))


class Translator(nn.Module):
    """torch's decoder layer: attention to another input, with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Linear(6, 8), nn.Linear(5, 8)
        self.layer = nn.TransformerDecoderLayer(8, 4, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        padding = (torch.arange(source.shape[1])[None] > 3).expand(len(source), -1)
        return self.head(self.layer(self.target(target), self.source(source), memory_key_padding_mask=padding))


def vision(attention: Callable[[], nn.Module], *, distilled: bool = False) -> Callable[[], Sample]:
    """A zoo entry of a vision transformer."""
    return lambda: Sample(VisionTransformer(attention, distilled=distilled), (image(),))


def words(make: Callable[[], nn.Module], *more: Tensor) -> Callable[[], Sample]:
    """A zoo entry for token numbers."""
    return lambda: Sample(make(), (torch.tensor([[1, 5, 2, 9, 0]]), *more))


ATTENTION: Mapping[str, Callable[[], Sample]] = {
    "vit of the library": vision(lambda: LibraryAttention(12, 3)),
    "vit with bias_k": vision(lambda: LibraryAttention(12, 4, add_bias_kv=True, add_zero_attn=True)),
    "deit": vision(lambda: DeitAttention(12, 3, fused=False), distilled=True),
    "deit, fused": vision(lambda: DeitAttention(12, 4, fused=True, normed=True), distilled=True),
    "swin v1": lambda: Sample(SwinTransformer(fused=False), (image(),)),
    "swin v1, fused": lambda: Sample(SwinTransformer(fused=True), (image(),)),
    "bert": words(Bert, torch.tensor([[1, 1, 1, 1, 0]])),
    "llama": words(lambda: Llama("expand")),
    "llama, interleaved": words(lambda: Llama("interleave")),
    "llama, library": words(lambda: Llama("library")),
    "einsum attention": lambda: Sample(EinsumAttention(), (noise(1, 7, 5),)),
    "decoder": lambda: Sample(Translator(), (noise(1, 6, 6), noise(1, 4, 5))),
}
