"""Channel graphs written by hand, for rooms that must not depend on the tracer."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from backbones.graph import ChannelGraph, Group, Member, Role
from backbones.program import Program
from scoring.tables import FilterTables


def graph_of(*groups: Group) -> ChannelGraph:
    """A graph of which only the groups are real."""
    rest: dict[str, Any] = {field.name: None for field in dataclasses.fields(ChannelGraph)}
    return ChannelGraph(**{**rest, "groups": groups, "tensors": {}, "program": Program((), rest["program"], 1)})


def member(tensor: str, size: int, role: Role = "filter", dim: int = 0, width: int = 1) -> Member:
    """A member whose channel i owns the positions i * width ... i * width + width - 1."""
    return Member(tensor, dim, role, np.arange(size * width).reshape(size, width))


def linear_network(
    weights: Mapping[str, NDArray[np.floating[Any]] | Sequence[Sequence[float]]],
) -> tuple[nn.Module, ChannelGraph]:
    """One linear layer a group, with the given (n, k) weights: rows are filters."""
    model = nn.ModuleDict()
    groups = []
    for name, values in weights.items():
        matrix = torch.as_tensor(np.asarray(values), dtype=torch.float32)
        model[name] = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        model[name].weight = nn.Parameter(matrix.clone())
        groups.append(Group(name, len(matrix), (member(f"{name}.weight", len(matrix)),)))
    return model, graph_of(*groups)


class Stream(nn.Module):
    """A residual stream: stem and branch make the same 6 channels, the head reads them behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 4, 1)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.second.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.norm(self.stem(images)))
        stream = torch.relu(stem + self.second(self.branch(stem)))
        logits: torch.Tensor = self.head(stream).mean((2, 3))
        return logits


def stream_network() -> tuple[Stream, ChannelGraph]:
    """`Stream` and its one group, as the tracer would see it."""
    members = (
        member("stem.weight", 6),
        member("stem.bias", 6, "vector"),
        member("norm.weight", 6, "vector"),
        member("norm.bias", 6, "vector"),
        member("norm.running_mean", 6, "vector"),
        member("branch.weight", 6, "input", 1),
        member("branch.weight", 6),
        member("second.weight", 6, "vector"),
        member("head.weight", 6, "input", 1),
    )
    return Stream(), graph_of(Group("stem", 6, members))


def digest(tables: FilterTables) -> str:
    """Changes with any bit of any table."""
    text = hashlib.sha256(tables.key.encode())
    for table in tables.groups.values():
        for array in (table.norms, table.heights, table.tree):
            text.update(array.tobytes())
    return text.hexdigest()
