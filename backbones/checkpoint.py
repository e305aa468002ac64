"""Weights from elsewhere: the usual layouts of a PyTorch checkpoint, read without unpickling code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from backbones.arguments import explained
from backbones.errors import SecateurError, one_line

PLACES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
"""Where the state dict lies in files that hold more; nested ones are gone through as long as one of these is there."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
"""What DataParallel, torch.compile and training frameworks put in front of every name."""
OTHER_SPELLING = {"fc": "linear", "linear": "fc", "downsample": "shortcut", "shortcut": "downsample"}
"""What ResNets call their head and their projection shortcuts elsewhere (torchvision against akamaster, kuangliu)."""


@explained
def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, skip: Sequence[str] = ()) -> None:
    """Loads a checkpoint into `model`, in place.

    Accepts a `.safetensors` file or what `torch.save` wrote: a state dict, or one nested under one of `PLACES`
    (`state_dict`, `model_state_dict`, `model`, ...). What a wrapper put in front of every name is dropped
    (`PREFIXES`: `module.` of DataParallel, `_orig_mod.` of torch.compile, ...). A head named `fc` fits one named
    `linear`, and a projection named `downsample` one named `shortcut`, both ways.

    Args:
        model: the network whose weights are set.
        path: where the checkpoint lies.
        skip: globs of parameter names that are not loaded, so that the model keeps its own there: `("classifier.*",)`
            for a head with other classes, or for a bilinear CNN from a VGG-16.

    Raises:
        SecateurError: when the file is missing or unreadable, a pattern of `skip` matches nothing, the keys or shapes
            do not fit (the first three are named), or a weight is NaN or infinite.
    """
    own = model.state_dict()
    state = _respelled(_unwrapped(_read(path), own), own)
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
    for name, value in state.items():
        if name not in kept and value.is_floating_point() and not is_finite(value):
            raise SecateurError(
                f"checkpoint {path}: {name} holds NaN or infinite values; take one from before they came"
            )
    model.load_state_dict(state)


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a file."""
    if not Path(path).is_file():
        raise SecateurError(f"checkpoint {path} does not exist; give the path of a .safetensors, .pt or .th file")
    try:
        if str(path).endswith(".safetensors"):
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SecateurError(f"checkpoint {path} cannot be read: {error.strerror or one_line(error)}") from None
    except Exception as error:  # whatever bytes that are no checkpoint make of the reader
        told = "" if isinstance(error, pickle.UnpicklingError) else f" ({one_line(error, 160)})"
        raise SecateurError(
            f"checkpoint {path} cannot be read as plain tensors{told}; save the state dict alone, by torch.save or "
            f"safetensors"
        ) from None
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = [content[key] for key in PLACES if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise SecateurError(f"checkpoint {path} holds no state dict; expected a mapping of names to tensors")
    return {str(name): value for name, value in content.items()}


def is_finite(value: Tensor) -> bool:
    """Whether all entries are; the sum nearly always tells in a fraction of the time."""
    return bool(torch.isfinite(value.detach().sum())) or bool(torch.isfinite(value).all())


def plain_name(name: str) -> str:
    """The name of a tensor or module without what torch.compile puts into it, for the network or a part of it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _unwrapped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under the model's own names for what wrappers of the whole network or of parts of it renamed."""
    found = {name: value for name, value in state.items() if name != "n_averaged"}  # of torch's AveragedModel
    while found and not found.keys() & own.keys():
        prefix = next((one for one in PREFIXES if all(name.startswith(one) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    names = {plain_name(name): name for name in own}
    return {name if name in own else names.get(plain_name(name), name): value for name, value in found.items()}


def _respelled(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with names the model does not know in their other spelling, where it knows that one."""
    renamed = {}
    for name, value in state.items():
        other = ".".join(OTHER_SPELLING.get(part, part) for part in name.split("."))
        renamed[other if name not in own and other in own and other not in state else name] = value
    return renamed
