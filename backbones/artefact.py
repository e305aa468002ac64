"""A pruned network as one portable file: plain tensors and JSON, no code.

The file is safetensors; its metadata entry `secateur` holds JSON: format version, backbone spec, cost, what the caller
added, what modules keep as extra state, for every cut since the dense network its structure and the kept positions of
every tensor, and a hash over it and the tensors, so that damage is noticed. Names are those of the plain network,
whether it was compiled or not. Loading never unpickles anything.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from backbones.arguments import explained
from backbones.checkpoint import plain_name
from backbones.cost_table import Cost
from backbones.errors import SecateurError, one_line
from backbones.files import atomic_write
from backbones.fingerprint import tensor_bytes
from backbones.registry import BackboneSpec, build
from backbones.structure import Structure
from backbones.surgery import PruningPlan, apply_plan, cuts_of

ARTEFACT_FORMAT = 2
"""2 is written for networks that were cut several times, 1 for all others."""
METADATA_KEY = "secateur"
_FLOATS = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


@explained
def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    cost: Cost | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes a pruned (or dense zoo) network to one file, whole or not at all.

    Args:
        model: a module made by `prune`, `load` or `build`.
        path: where the file goes; it usually ends in `.safetensors`.
        cost: what the network costs, noted in the file for whoever reads it.
        provenance: anything JSON can hold (study, trial, accuracy), noted in the file.

    Raises:
        SecateurError: when the module carries neither an origin nor a backbone spec, so nobody could load it, or keeps
            extra state that is neither tensors nor JSON.
    """
    origin: PruningPlan | None = getattr(model, "secateur_origin", None)
    spec: BackboneSpec | None = getattr(model, "secateur_spec", None)
    if origin is None and spec is None:
        raise SecateurError("this model was made neither by prune() nor by build(); save its state_dict instead")
    record: dict[str, Any] = {
        "format": 1 if origin is None or origin.before is None else ARTEFACT_FORMAT,
        "spec": None if spec is None else asdict(spec),
        "origin": None if origin is None else _origin_record(origin),
        "cost": None if cost is None else asdict(cost),
        "provenance": dict(provenance or {}),
    }
    tensors, extra = _contents(model)
    if extra:
        record["extra"] = extra
    dtypes = {plain_name(name): str(value.dtype) for name, value in model.named_buffers() if value.is_floating_point()}
    unsaved = {name: dtype for name, dtype in dtypes.items() if name not in tensors and dtype != "torch.float32"}
    if unsaved:
        record["dtypes"] = unsaved
    try:
        json.dumps(record)
    except (TypeError, ValueError) as error:
        raise SecateurError(f"provenance must be what JSON can hold, but {one_line(error)}") from None
    record["digest"] = _digest(json.loads(json.dumps(record)), tensors)
    with atomic_write(path) as part:
        part.write_bytes(to_bytes(tensors, {METADATA_KEY: json.dumps(record)}))


def _digest(record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """64 hex digits over the record, but for the digest in it, and names, types, shapes and values of the tensors."""
    told = {key: value for key, value in record.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(tensor_bytes(value))
    return digest.hexdigest()


def _contents(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state dict by plain names: its tensors, tied ones once, and what modules keep beside tensors."""
    tensors: dict[str, torch.Tensor] = {}
    extra: dict[str, Any] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            try:
                extra[plain_name(name)] = json.loads(json.dumps(value))
            except (TypeError, ValueError) as error:
                raise SecateurError(
                    f"{name} (what get_extra_state returns) is no tensor and cannot be written as JSON: "
                    f"{one_line(error)}; return numbers, texts, lists and dictionaries"
                ) from None
        elif id(value) not in seen:
            tensors[plain_name(name)] = value.detach().cpu().contiguous()
        seen.add(id(value))
    return tensors, extra


@explained
def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Rebuilds a saved network in eval mode on the CPU, its tensors of the types that they were saved in.

    Args:
        path: a file written by `save`.
        model: the dense module to cut, for networks that `build` does not know; it is not changed, its weights do not
            matter. What `prune` made of it on the way to the saved network will do as well.

    Raises:
        SecateurError: when the file is missing, truncated, not ours, of a newer format, or does not fit the model.
    """
    record, tensors = read_artefact(path)
    try:
        spec = None if record["spec"] is None else BackboneSpec(**record["spec"])
        cuts = (_whole(spec) if record["origin"] is None else _read_origin(record["origin"], spec)).cuts
        if spec is not None and model is None:
            _check_spec(spec, tensors)
    except Exception as error:  # a file that somebody edited can hold anything
        raise _damaged(path, error) from None
    if model is None:
        if spec is None:
            raise SecateurError(f"{path} holds a user's own network; pass its dense module: load(path, model)")
        model = build(spec.name, spec.num_classes, spec.in_channels)
    try:
        loaded = _recut(model, cuts)
        _fill(loaded, tensors, record.get("extra", {}), record.get("dtypes", {}))
    except Exception as error:
        raise SecateurError(f"{path} does not fit the model {type(model).__name__}: {one_line(error, 300)}") from None
    if record["origin"] is None:
        del loaded.secateur_origin
    return loaded.eval()


def read_artefact(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The JSON record of an artefact, and its tensors by their names in the state dict, without building anything.

    Raises:
        SecateurError: as `load`.
    """
    if not Path(path).is_file():
        raise SecateurError(f"{path} does not exist; save(model, path) writes such a file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        record = json.loads(metadata[METADATA_KEY])
        version = int(record["format"])
        if version <= ARTEFACT_FORMAT and "digest" in record and record["digest"] != _digest(record, tensors):
            raise ValueError("its contents are not those that were saved")
    except Exception as error:
        raise _damaged(path, error) from None
    if version > ARTEFACT_FORMAT:
        raise SecateurError(
            f"{path} has format {version}, this secateur reads up to {ARTEFACT_FORMAT}; upgrade secateur"
        )
    return record, tensors


def _damaged(path: str | os.PathLike[str], error: Exception) -> SecateurError:
    text = f"no {error}" if isinstance(error, KeyError) else one_line(error)
    return SecateurError(f"{path} is not a whole secateur artefact ({text}); save it again")


def _check_spec(spec: BackboneSpec, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError where the tensors cannot be those of such a network, however it was cut: before it is built."""
    for text, value, dim in (("num_classes", spec.num_classes, 0), ("in_channels", spec.in_channels, 1)):
        if not any(tensor.dim() > dim and tensor.shape[dim] == value for tensor in tensors.values()):
            raise ValueError(f"{text} is {value!r}, which no tensor has")


def _recut(model: nn.Module, cuts: Sequence[PruningPlan]) -> nn.Module:
    """A copy of the model after those cuts that it has not gone through yet."""
    done = cuts_of(model)
    left = cuts[len(done) :] if cuts[: len(done)] == done else cuts
    for cut in left:
        model = apply_plan(model, cut)
    return model if left else copy.deepcopy(model)


def _fill(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], extra: Mapping[str, Any], dtypes: Mapping[str, str]
) -> None:
    contents = {**tensors, **extra}
    first: dict[int, str] = {}
    own = model.state_dict(keep_vars=True)
    sources = {
        name: first.setdefault(id(value), plain_name(name)) if isinstance(value, torch.Tensor) else plain_name(name)
        for name, value in own.items()
    }
    missing = [source for source in dict.fromkeys(sources.values()) if source not in contents]
    unexpected = sorted(contents.keys() - {plain_name(name) for name in own})
    if missing or unexpected:
        raise KeyError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
    for name, value in own.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value.data = value.data.to(tensors[sources[name]].dtype)
    for name, value in model.named_buffers():
        if plain_name(name) in dtypes:
            value.data = value.data.to(_FLOATS[dtypes[plain_name(name)]])
    model.load_state_dict({name: contents[source] for name, source in sources.items()})


def _origin_record(origin: PruningPlan) -> dict[str, Any]:
    return {
        "structure": json.loads(origin.structure.to_json()),
        "tensors": {
            plain_name(name): {str(dim): kept for dim, kept in dims.items()} for name, dims in origin.tensors.items()
        },
        "sizes": {plain_name(module): [int(kept) for kept in flags] for module, flags in origin.sizes.items()},
        "removed": [plain_name(module) for module in origin.removed],
    } | ({} if origin.before is None else {"before": _origin_record(origin.before)})


def _read_origin(record: Mapping[str, Any], spec: BackboneSpec | None) -> PruningPlan:
    return PruningPlan(
        Structure.from_json(json.dumps(record["structure"])),
        spec,
        {name: {int(dim): tuple(kept) for dim, kept in dims.items()} for name, dims in record["tensors"].items()},
        {module: tuple(bool(flag) for flag in flags) for module, flags in record["sizes"].items()},
        tuple(record["removed"]),
        _read_origin(record["before"], spec) if "before" in record else None,
    )


def _whole(spec: BackboneSpec | None) -> PruningPlan:
    return PruningPlan(Structure("", ()), spec, {}, {}, ())
