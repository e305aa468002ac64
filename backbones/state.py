"""What a forward pass may write to besides its output: noted before it runs, and put back afterwards.

Networks keep values between calls: in attributes, in lists and dictionaries, on their class, in globals of their
module, in caches of functions. `torch.export` would leave tensors without data there, a trial pruning those of another
width.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections import deque
from collections.abc import Iterator, MutableMapping, MutableSet
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, range)
_FOREIGN = frozenset(["torch", "numpy", "scipy", "pandas", "matplotlib", *sys.stdlib_module_names])
"""Packages whose functions, classes and objects keep nothing of a network."""
_CODE = (ModuleType, type, FunctionType)
_MISSING = object()


class State:
    """All that the code of a network can reach and change, as it is now.

    Followed are attributes, containers, user objects, hooks, closures and default arguments, and from the code of the
    methods the globals that it names, in every module but those of torch, numpy and the standard library. Tensors
    written to in place get their values back, all but parameters.

    Attributes:
        tensors: every tensor found that is no parameter.
        code: every name of a global or an attribute in the code found.
    """

    def __init__(self, root: object) -> None:
        """Looks at all that can be reached from `root`, a network or anything that it holds."""
        self.code: set[str] = set()
        self._seen: dict[Any, Any] = {}
        self._mappings: list[tuple[MutableMapping[Any, Any], dict[Any, Any]]] = []
        self._lists: list[tuple[Any, list[Any]]] = []
        self._sets: list[tuple[MutableSet[Any], set[Any]]] = []
        self._classes: list[tuple[type, frozenset[str]]] = []
        self._names: list[tuple[Any, str, Any]] = []
        self._caches: list[tuple[Any, Any]] = []
        self._values: list[tuple[Tensor, Tensor]] = []
        self._waiting: list[Any] = [root]
        while self._waiting:
            self._note(self._waiting.pop())
        self.tensors = [value for value, _ in self._values]

    def restore(self) -> None:
        """Makes everything what it was."""
        for mapping, before in self._mappings:
            if not _same(mapping, before):
                mapping.clear()
                mapping.update(before)
        for sequence, items in self._lists:
            if len(sequence) != len(items) or not all(map(operator.is_, sequence, items)):
                sequence.clear()
                sequence.extend(items)
        for found, members in self._sets:
            if found != members:
                found.clear()
                for member in members:
                    found.add(member)
        for cls, names in self._classes:
            for name in [name for name in vars(cls) if name not in names and not name.startswith("__")]:
                delattr(cls, name)
        for holder, name, value in self._names:
            _put_back(holder, name, value)
        for cache, info in self._caches:
            if cache.cache_info().misses != info.misses:
                cache.cache_clear()
        with torch.no_grad():
            for tensor, value in self._values:
                if not torch.equal(tensor, value):  # batch norm writes its statistics without counting a version
                    tensor.copy_(value)

    def _note(self, value: Any) -> None:
        if isinstance(value, _PLAIN) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) and not value.is_inference():
                self._values.append((value, value.detach().clone()))
        elif isinstance(value, MutableMapping):
            self._mappings.append((value, dict(value)))
            self._waiting.extend(value.values())
        elif isinstance(value, (list, deque)):
            self._lists.append((value, list(value)))
            self._waiting.extend(value)
        elif isinstance(value, (tuple, frozenset)):
            self._waiting.extend(value)
        elif isinstance(value, MutableSet):
            self._sets.append((value, set(value)))
            self._waiting.extend(value)
        elif isinstance(value, type):
            self._note_class(value)
        elif isinstance(value, FunctionType):
            self._note_function(value)
        elif isinstance(value, MethodType):
            self._waiting += [value.__self__, value.__func__]
        elif isinstance(value, functools.partial):
            self._waiting += [value.func, value.args, value.keywords]
        elif isinstance(value, (staticmethod, classmethod)):
            self._waiting.append(value.__func__)
        elif isinstance(value, property):
            self._waiting += [value.fget, value.fset]
        elif isinstance(value, functools.cached_property):
            self._waiting.append(value.func)
        elif hasattr(value, "cache_info") and hasattr(value, "cache_clear"):
            self._caches.append((value, value.cache_info()))
            self._waiting.append(getattr(value, "__wrapped__", None))
        elif isinstance(value, nn.Module) or not _is_foreign(type(value).__module__):
            self._waiting += [vars(value) if hasattr(value, "__dict__") else None, type(value)]

    def _note_class(self, cls: type) -> None:
        for base in cls.__mro__:
            if _is_foreign(base.__module__) or (base is not cls and id(base) in self._seen):
                continue
            self._seen[id(base)] = base
            self._classes.append((base, frozenset(vars(base))))
            for name, value in vars(base).items():
                if not name.startswith("__") or name == "__call__":
                    self._names.append((base, name, value))
                    self._waiting.append(value)

    def _note_function(self, function: FunctionType) -> None:
        if _is_foreign(function.__module__) and not function.__closure__:
            return
        for cell in function.__closure__ or ():
            try:
                self._waiting.append(cell.cell_contents)
            except ValueError:
                continue  # not filled yet
            self._names.append((cell, "cell_contents", cell.cell_contents))
        self._waiting += [function.__defaults__, function.__kwdefaults__, function.__dict__]
        if not _is_foreign(function.__module__):
            names = _names_in(function.__code__)
            self.code |= names
            self._note_names(function.__globals__, names)

    def _note_names(self, namespace: dict[str, Any], names: frozenset[str]) -> None:
        """Globals by the names that some code uses; names of attributes among them do no harm."""
        for name in names:
            value = namespace.get(name, _MISSING)
            if isinstance(value, ModuleType):
                if not _is_foreign(value.__name__) and (id(value), names) not in self._seen:
                    self._seen[id(value), names] = value
                    self._note_names(vars(value), names)
            else:
                self._names.append((namespace, name, value))
                self._waiting.append(value)


@contextmanager
def untouched(model: nn.Module) -> Iterator[State]:
    """All that a forward pass writes to (see `State`), and torch's random numbers, are put back when the block ends."""
    state = State(model)
    with torch.random.fork_rng(devices=[]):
        try:
            yield state
        finally:
            state.restore()


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _FOREIGN


@functools.lru_cache(maxsize=10_000)
def _names_in(code: CodeType) -> frozenset[str]:
    """The globals and attributes that some code names, functions inside it included."""
    inner = [_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return frozenset(code.co_names).union(*inner)


def _same(mapping: MutableMapping[Any, Any], before: dict[Any, Any]) -> bool:
    return (
        len(mapping) == len(before)
        and all(map(operator.is_, mapping.values(), before.values()))
        and list(mapping) == list(before)
    )


def _put_back(holder: Any, name: str, value: Any) -> None:
    """A class attribute, a global or a closure's cell; code that was imported or defined meanwhile stays."""
    if isinstance(holder, dict):
        found = holder.get(name, _MISSING)
        if found is value or isinstance(found, _CODE):
            return
        if value is _MISSING:
            del holder[name]
        else:
            holder[name] = value
    elif (vars(holder).get(name, _MISSING) if isinstance(holder, type) else getattr(holder, name)) is not value:
        setattr(holder, name, value)
