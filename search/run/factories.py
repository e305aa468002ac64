"""The user's own functions by name: `package.module:function` in a study file."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backbones.errors import SecateurError


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Within the block modules in `folders` can be imported; installed ones come first."""
    added = [str(folder) for folder in folders if str(folder) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def find(path: str, label: str) -> Callable[..., Any]:
    """The function that `path` names.

    Args:
        path: `package.module:function`.
        label: the key it comes from, `[model] factory`.

    Raises:
        SecateurError: when the text has another form, the module cannot be imported, or has no such function.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name.isidentifier()):
        raise SecateurError(f'{label} must be "package.module:function", but got {path!r}')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SecateurError(f"{label} {path!r}: importing {module_name} raised {_short(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "has no such function" if function is None else f"has {name} = {function!r}, which cannot be called"
        raise SecateurError(f"{label} {path!r}: {module_name} ({getattr(module, '__file__', 'built-in')}) {what}")
    result: Callable[..., Any] = function
    return result


def call(path: str, label: str, expected: type, **offers: Any) -> Any:
    """Calls the function that `path` names with those of `offers` that it has parameters for.

    Raises:
        SecateurError: when it cannot be found, raises, or returns something else than an `expected`.
    """
    function = find(path, label)
    taken = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    try:
        value = function(**{name: offer for name, offer in offers.items() if anything or name in taken})
    except SecateurError:
        raise
    except Exception as error:
        raise SecateurError(f"{label} {path!r} raised {_short(error)}") from error
    if not isinstance(value, expected):
        raise SecateurError(f"{label} {path!r} must return a {expected.__name__}, but returned {type(value).__name__}")
    return value


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
