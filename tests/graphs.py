"""Traces for tests that only use graphs: each network is traced once, however often it is made anew."""

from __future__ import annotations

import hashlib
import inspect
import io
import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from backbones.files import atomic_write
from backbones.graph import ChannelGraph
from backbones.trace import trace

_shared: list[Path] = []


def share_traces(folder: Path) -> None:
    """Keeps the traces of this session in a folder, for all its processes."""
    folder.mkdir(exist_ok=True)
    _shared[:] = [folder]


def known_trace(model: nn.Module, example: Any, **options: Any) -> ChannelGraph:
    """What `trace` gives, or gave where the same code with the same weights was traced in this session before."""
    if not _shared:  # outside of a session of tests
        return trace(model, example, **options)
    try:
        path = _shared[0] / _Key.of((model, example, options))
    except (AttributeError, TypeError, ValueError, OSError, RuntimeError, pickle.PicklingError):
        return trace(model, example, **options)  # a network that cannot be pickled
    if not path.exists():
        graph = trace(model, example, **options)
        with atomic_write(path) as part:
            part.write_bytes(pickle.dumps(graph))
        return graph
    known: ChannelGraph = pickle.loads(path.read_bytes())
    return known


class _Key(cloudpickle.Pickler):  # type: ignore[misc]
    """Values as bytes that do not depend on where tensors lie; with the source of the classes of modules."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.numbers: dict[int, int] = {}

    @staticmethod
    def of(value: Any) -> str:
        file = io.BytesIO()
        _Key(file).dump(value)
        return hashlib.sha256(file.getvalue()).hexdigest()

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            number = self.numbers.setdefault(id(value), len(self.numbers))
            content = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            return number, type(value).__name__, str(value.dtype), tuple(value.shape), value.requires_grad, content
        if isinstance(value, type) and issubclass(value, nn.Module) and not value.__module__.startswith("torch."):
            return value.__qualname__, inspect.getsource(value)
        return None
