"""A deep copy of a module with other tensors in it, without ever copying the weights."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backbones.errors import SecateurError, source_line
from backbones.inputs import output_of
from backbones.state import State

_SHARED = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, range)
_CONTAINERS = (dict, OrderedDict, list, tuple, set)


def copy_with(model: nn.Module, tensors: dict[int, Any]) -> nn.Module:
    """A deep copy in which tensor `t` is replaced by `tensors[id(t)]`.

    Equal to `copy.deepcopy(model, memo=tensors)`, an order of magnitude faster for ordinary modules: plain attributes
    are shared, everything else (hooks, lists, user objects, classes with their own `__deepcopy__`) is deep-copied, or
    shared where it cannot be copied (locks). Functions that hold on to the model or one of its modules (a wrapped
    forward on the instance, a hook made in `__init__`) are made anew and hold on to the copy.
    Parameters shared by two modules stay shared.
    """
    result = _Copier(tensors, {id(module) for module in model.modules()}).module(model)
    assert isinstance(result, nn.Module)
    return result


class _Copier:
    """One deep copy: what was copied so far, and the modules that functions may hold on to."""

    def __init__(self, tensors: dict[int, Any], inside: set[int]) -> None:
        self.memo: dict[int, Any] = dict(tensors)
        self.inside = inside

    def module(self, module: nn.Module) -> Any:
        if id(module) in self.memo:
            return self.memo[id(module)]
        return self._object(module) if _is_plain(type(module)) else self._deep(module)

    def _object(self, value: Any) -> Any:
        self.memo[id(value)] = new = object.__new__(type(value))
        state = new.__dict__
        for name, item in value.__dict__.items():
            if isinstance(item, _SHARED):
                state[name] = item
            elif name == "_compiled_call_impl":
                state[name] = None  # what `Module.compile` made runs the original
            elif name in ("_parameters", "_buffers") and isinstance(item, dict):
                state[name] = type(item)((key, self._tensor(tensor)) for key, tensor in item.items())
            elif isinstance(item, (dict, set)) and not item and type(item) in (dict, OrderedDict, set):
                state[name] = type(item)()
            else:
                state[name] = self.value(item)
        return new

    def _tensor(self, tensor: Tensor | None) -> Any:
        return self.memo[id(tensor)] if id(tensor) in self.memo else self._deep(tensor)

    def value(self, value: Any) -> Any:
        """A deep copy; what refuses one (locks, open files, loggers of a framework) is shared."""
        if isinstance(value, _SHARED):
            return value
        if id(value) in self.memo:
            return self.memo[id(value)]
        if isinstance(value, nn.Module):
            return self.module(value)
        if type(value) in _CONTAINERS:
            return self._container(value)
        if isinstance(value, MethodType):
            return MethodType(self.value(value.__func__), self.value(value.__self__))
        if isinstance(value, (FunctionType, functools.partial)) or hasattr(value, "cache_parameters"):
            return self._function(value) if self._holds(value, set()) else value
        if _is_plain(type(value)) and hasattr(value, "__dict__"):
            return self._object(value)
        return self._deep(value)

    def _container(self, value: Any) -> Any:
        if isinstance(value, (tuple, set)):
            new = type(value)(self.value(item) for item in value)
            self.memo[id(value)] = new
            return new
        self.memo[id(value)] = made = type(value)()
        if isinstance(value, list):
            made.extend(self.value(item) for item in value)
        else:
            for key, item in value.items():
                made[self.value(key)] = self.value(item)
        return made

    def _deep(self, value: Any) -> Any:
        try:
            return copy.deepcopy(value, self.memo)
        except TypeError:
            return value
        except RuntimeError:  # a result of a forward pass with gradients is no leaf: where it is only kept, values do
            kept = [tensor for tensor in State(value).tensors if not tensor.is_leaf and id(tensor) not in self.memo]
            self.memo.update({id(tensor): tensor.detach().clone() for tensor in kept})
            return copy.deepcopy(value, self.memo)

    def _holds(self, value: Any, seen: set[int]) -> bool:
        """Whether a function, or what one has closed over, leads to a module of the model."""
        if isinstance(value, _SHARED) or id(value) in seen:
            return False
        seen.add(id(value))
        if isinstance(value, nn.Module):
            return id(value) in self.inside
        return any(self._holds(item, seen) for item in _held(value))

    def _function(self, value: Any) -> Any:
        if isinstance(value, functools.partial):
            arguments, keywords = self.value(value.args), self.value(value.keywords)
            new: Any = functools.partial(self.value(value.func), *arguments, **keywords)
        elif not isinstance(value, FunctionType):
            new = functools.lru_cache(**value.cache_parameters())(self.value(value.__wrapped__))
        else:
            cells = tuple(self._cell(cell) for cell in value.__closure__ or ())
            new = FunctionType(value.__code__, value.__globals__, value.__name__, None, cells or None)
            self.memo[id(value)] = new
            functools.update_wrapper(new, value, updated=())
            new.__dict__.update({name: self.value(item) for name, item in vars(value).items()})
            new.__defaults__, new.__kwdefaults__ = self.value(value.__defaults__), self.value(value.__kwdefaults__)
            for cell, filled in zip(value.__closure__ or (), cells, strict=True):
                if filled is not cell:
                    filled.cell_contents = self.value(cell.cell_contents)
        self.memo[id(value)] = new
        return new

    def _cell(self, cell: CellType) -> CellType:
        """The same variable, unless it leads to a module of the model; functions that share it go on sharing."""
        if id(cell) not in self.memo:
            self.memo[id(cell)] = CellType() if any(self._holds(item, set()) for item in _contents(cell)) else cell
        found: CellType = self.memo[id(cell)]
        return found


def _is_plain(cls: Any) -> bool:
    """Whether copying an instance means copying its attributes."""
    own = any("__getstate__" in base.__dict__ for base in cls.__mro__ if base not in (object, nn.Module))
    usual = all(getattr(cls, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__", "__new__"))
    return usual and not own and not hasattr(cls, "__deepcopy__") and not hasattr(cls, "__slots__")


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []  # not filled yet


def _held(value: Any) -> Iterable[Any]:
    """What a function, a method or a plain container holds."""
    if isinstance(value, FunctionType):
        inner = [item for cell in value.__closure__ or () for item in _contents(cell)]
        return [*inner, value.__defaults__, value.__kwdefaults__, vars(value)]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if hasattr(value, "cache_parameters"):
        return [value.__wrapped__]
    if type(value) in _CONTAINERS:
        return list(value.values() if isinstance(value, dict) else value)
    return []


def runs_apart(original: nn.Module, copied: nn.Module, example: Sequence[Any]) -> None:
    """Runs a copy on an example and checks that nothing in it computes with the parameters of the original.

    A copy whose code still holds on to the original would run the original's weights, whatever is cut from or trained
    in its own.

    Raises:
        SecateurError: naming the parameter that was read, and the line. What else the copy's code raises is passed on.
    """
    try:
        with _Watch({_storage(value): name for name, value in original.named_parameters() if _storage(value)}):
            output_of(copied, example)
    except _StillReadError as error:
        raise SecateurError(
            f"a copy of the network still computes with {error} of the one it was copied from (at "
            f"{source_line(error)}): the code holds on to that network by a global or a closure; make it a method"
        ) from None
    except Exception:  # not everything runs while it is watched
        output_of(copied, example)


class _StillReadError(Exception):
    """Its text is the name of the parameter."""


class _Watch(TorchDispatchMode):
    """Refuses operations on some tensors, by where their data lies."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = names

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            name = self.names.get(_storage(value)) if isinstance(value, Tensor) else None
            if name is not None:
                raise _StillReadError(name)
        return operation(*args, **(kwargs or {}))


def _storage(value: Tensor) -> int:
    """Where a tensor's data lies, 0 where it has none."""
    try:
        return value.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
