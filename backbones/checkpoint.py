"""Weights from elsewhere: the usual layouts of a PyTorch checkpoint, read without unpickling code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backbones.errors import SecateurError, one_line

OTHER_SPELLING = {"fc": "linear", "linear": "fc", "downsample": "shortcut", "shortcut": "downsample"}
"""What ResNets call their head and their projection shortcuts elsewhere (torchvision against akamaster, kuangliu)."""


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, skip: Sequence[str] = ()) -> None:
    """Loads a checkpoint into `model`, in place.

    Accepts a `.safetensors` file or what `torch.save` wrote: a state dict, or one nested under `state_dict`, `model`
    or `net`; a `module.` prefix (DataParallel) is dropped. A head named `fc` fits one named `linear`, and a projection
    named `downsample` one named `shortcut`, both ways.

    Args:
        model: the network whose weights are set.
        path: where the checkpoint lies.
        skip: globs of parameter names that are not loaded, so that the model keeps its own there: `("classifier.*",)`
            for a head with other classes, or for a bilinear CNN from a VGG-16.

    Raises:
        SecateurError: when the file is missing or unreadable, a pattern of `skip` matches nothing, or the keys or
            shapes do not fit (the first three are named).
    """
    own = model.state_dict()
    state = _respelled(_read(path), own)
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in [*own, *state]):
            raise SecateurError(
                f"skip pattern {pattern!r} matches no parameter; they are named like {next(iter(own))!r}"
            )
    for name in [name for name in state if any(fnmatchcase(name, pattern) for pattern in skip)]:
        del state[name]
    kept = [name for name in own if any(fnmatchcase(name, pattern) for pattern in skip)]
    if len(kept) == len(own):
        raise SecateurError(f"skip={tuple(skip)} leaves nothing of checkpoint {path} to load; skip less")
    kept += [name for name in own if name.endswith("num_batches_tracked") and name not in state]  # torch before 0.4.1
    state.update({name: own[name] for name in kept})
    wrong = {name: f"{name} is missing" for name in own if name not in state}
    wrong |= {name: f"{name} is unknown" for name in state if name not in own}
    wrong |= {
        name: f"{name} has shape {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    }
    if wrong:
        shown = "; ".join([*wrong.values()][:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        heads = {name.partition(".")[0] for name in wrong}
        only = f"; skip=('{heads.pop()}.*',) would load the rest" if len(heads) == 1 and len(wrong) < len(own) else ""
        raise SecateurError(f"checkpoint {path} does not fit {type(model).__name__}: {shown}{only}")
    model.load_state_dict(state)


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a file, without `module.` prefixes."""
    if not Path(path).is_file():
        raise SecateurError(f"checkpoint {path} does not exist; give the path of a .safetensors, .pt or .th file")
    try:
        if str(path).endswith(".safetensors"):
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise SecateurError(f"checkpoint {path} cannot be read as plain tensors: {one_line(error, 160)}") from None
    for key in ("state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise SecateurError(f"checkpoint {path} holds no state dict; expected a mapping of names to tensors")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _respelled(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with names the model does not know in their other spelling, where it knows that one."""
    renamed = {}
    for name, value in state.items():
        other = ".".join(OTHER_SPELLING.get(part, part) for part in name.split("."))
        renamed[other if name not in own and other in own and other not in state else name] = value
    return renamed
