"""Weights of other people's files into a network, without unpickling anything but tensors."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backbones.errors import SecateurError


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills `model` from a checkpoint.

    Args:
        model: filled in place.
        path: `.safetensors`, or a file of `torch.save` that holds tensors only: a state dict, or one below the key
            `state_dict`, `model` or `model_state_dict`. A `module.` in front of every name (from DataParallel) goes.

    Raises:
        SecateurError: when the file is missing or unreadable, its names or shapes do not fit (the first three are
            named), or a tensor holds NaN or infinity.
    """
    tensors = _read(path)
    wanted = model.state_dict()
    # Batch norm's own counter was added to torch late; old checkpoints do without it.
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    strange = [name for name in tensors if name not in wanted]
    if missing or strange:
        parts = [f"lacks {_three(missing)}"] if missing else []
        parts += [f"has {_three(strange)}, which the network does not"] if strange else []
        raise SecateurError(f"checkpoint {path} does not fit: it {' and '.join(parts)}")
    wrong = [name for name, tensor in tensors.items() if tensor.shape != wanted[name].shape]
    if wrong:
        shapes = [f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}" for name in wrong]
        raise SecateurError(f"checkpoint {path} does not fit: it has {_three(shapes)}")
    model.load_state_dict(tensors, strict=False)
    check_finite(model, f"checkpoint {path}")


def check_finite(model: nn.Module, where: str) -> None:
    """Raises SecateurError, naming the tensor, when a parameter or buffer holds NaN or infinity."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise SecateurError(f"{where}: {name} holds NaN or infinity in {count} of {tensor.numel()} elements")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SecateurError(f"checkpoint {path} does not exist")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SecateurError(f"checkpoint {path} cannot be read as plain tensors: {reason}") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise SecateurError(f"checkpoint {path} holds no state dict, but {type(content).__name__}")
    if all(isinstance(name, str) and name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    odd = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise SecateurError(f"checkpoint {path} holds no state dict: {_three(odd)} are not tensors")
    return dict(content)


def _torch_load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _three(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
