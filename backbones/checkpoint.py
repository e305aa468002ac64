"""Weights from elsewhere: the usual layouts of a PyTorch checkpoint, read without unpickling code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backbones.errors import SecateurError


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Loads a checkpoint into `model`, in place.

    Accepts a `.safetensors` file or what `torch.save` wrote: a state dict, or one nested under `state_dict`, `model`
    or `net`; a `module.` prefix (DataParallel) is dropped.

    Raises:
        SecateurError: when the file is missing or unreadable, or its keys or shapes do not fit (the first three are
            named).
    """
    if not Path(path).is_file():
        raise SecateurError(f"checkpoint {path} does not exist; give the path of a .safetensors, .pt or .th file")
    try:
        if str(path).endswith(".safetensors"):
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        line = " ".join(str(error).split())[:160]
        raise SecateurError(f"checkpoint {path} cannot be read as plain tensors: {line}") from None
    for key in ("state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise SecateurError(f"checkpoint {path} holds no state dict; expected a mapping of names to tensors")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    own = model.state_dict()
    counters = [name for name in own if name.endswith("num_batches_tracked") and name not in state]
    state.update({name: own[name] for name in counters})  # checkpoints older than torch 0.4.1 lack them
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in own]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise SecateurError(f"checkpoint {path} does not fit {type(model).__name__}: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(state)
