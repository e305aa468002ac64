"""Wrong arguments of public functions: an exception that they lead to somewhere inside is said of the argument.

Nothing is looked at as long as all goes well, so what merely behaves like the type that is asked for is taken.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from backbones.errors import SecateurError, plain_text

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
Made = TypeVar("Made")


def explained(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """The function, whose foreign exceptions become a `SecateurError` where an argument is of a type that it can't be.

    The exception itself is its cause. Where all arguments are of their types it passes through unchanged.
    """

    @functools.wraps(function)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        try:
            return function(*args, **kwargs)
        except SecateurError:
            raise
        except Exception as error:
            wrong = _wrong_argument(function, args, kwargs)
            if wrong is None:
                raise
            raise SecateurError(wrong) from error

    return wrapped


def explains(*methods: str) -> Callable[[type[Made]], type[Made]]:
    """Makes methods of a class `explained`; `__post_init__` of a dataclass looks at its fields in any case.

    A field is a setting that is kept, so that a wrong one would be found long after.
    """

    def decorated(cls: type[Made]) -> type[Made]:
        for name in methods:
            method = cls.__dict__[name]
            if name == "__post_init__":
                setattr(cls, name, _checking_fields(method))
            elif isinstance(method, staticmethod):
                setattr(cls, name, staticmethod(explained(method.__func__)))
            else:
                setattr(cls, name, explained(method))
        return cls

    return decorated


def _checking_fields(post_init: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(post_init)
    def wrapped(self: Any) -> None:
        failed: Exception | None = None
        try:
            post_init(self)
        except SecateurError:
            raise
        except Exception as error:
            failed = error
        kind: Any = type(self)
        hints = _hints(kind)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in hints and not fits(value, hints[field.name]):
                raise SecateurError(_sentence(type(self).__name__, field.name, hints[field.name], value)) from failed
        if failed is not None:
            raise failed

    return wrapped


@functools.cache
def _hints(of: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(of)
    except NameError:  # a type that is imported for type checkers alone
        return {}


def _wrong_argument(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """What is wrong with the first argument that is of another type than it should be; None when none is."""
    name = function.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        return f"{name}: {error}"
    hints = _hints(function)
    for key, value in given.items():
        single = signature.parameters[key].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if single and key in hints and not fits(value, hints[key]):
            return _sentence(name, key, hints[key], value)
    return None


def _sentence(name: str, key: str, hint: Any, value: Any) -> str:
    shown = plain_text(repr(value))
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return f"{name}: {key} must be {_words(hint)}, but got {shown} ({type(value).__name__})"


def fits(value: Any, hint: Any) -> bool:
    """Whether a value can be of a type, as far as can be seen without looking inside of containers."""
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    kind = origin if origin is not None else hint
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is collections.abc.Callable:
        return callable(value)
    if kind is tuple and isinstance(value, list):
        return True
    if not isinstance(kind, type):
        return True
    if isinstance(value, str) and kind in (collections.abc.Sequence, collections.abc.Iterable):
        return False  # its letters are hardly meant
    return isinstance(value, kind)


def _words(hint: Any) -> str:
    """A type as people write it: `int | None`, `Sequence[str]`."""
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_words(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return " | ".join(map(repr, get_args(hint)))
    if get_origin(hint) is not None:
        inside = ", ".join(_words(one) for one in get_args(hint) if one is not ...)
        name = getattr(get_origin(hint), "__name__", str(hint))
        return f"{name}[{inside}]" if inside else name
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
