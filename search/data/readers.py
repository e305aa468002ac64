"""The data sets by name, and the one function that reads them all."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backbones.arguments import explained
from backbones.errors import SecateurError, check_name
from search.data.caltech256 import caltech256
from search.data.cifar import cifar10, cifar100
from search.data.class_folders import class_folders
from search.data.data import Data
from search.data.digits import digits
from search.data.fer2013 import fer2013
from search.data.fine_grained import aircraft, cars, cub200
from search.data.tiny_imagenet import tiny_imagenet

DATASETS: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "tiny-imagenet": tiny_imagenet,
    "caltech256": caltech256,
    "cub200": cub200,
    "aircraft": aircraft,
    "cars": cars,
    "fer2013": fer2013,
    "folder": class_folders,
}


MOMENTS = ("mean", "std")


@explained
def load_data(name: str, **options: Any) -> Data:
    """A data set by name.

    Args:
        name: "digits", "cifar10", "cifar100", "tiny-imagenet", "caltech256", "cub200", "aircraft", "cars", "fer2013",
            or "folder" for any tree with one folder a class.
        options: `mean` and `std` per channel, of pixels scaled to [0, 1], in the place of the data set's own; and what
            its reader takes: `validation`, `seed` and `augment` all of them, `folder` all but digits, `size` all whose
            images come in many sizes; see the functions in `DATASETS`.

    Raises:
        SecateurError: for an unknown name, an option that the data set does not have, a mean or std that does not fit
            its channels, missing or broken files.
    """
    check_name("data set", name, DATASETS)
    known = inspect.signature(DATASETS[name]).parameters
    scale: dict[str, Any] = {key: tuple(options[key]) for key in MOMENTS if options.get(key) is not None}
    for option in options:
        if option not in (*known, *MOMENTS):
            raise SecateurError(f"data set {name!r} has no option {option!r}; it takes {', '.join([*known, *MOMENTS])}")
    data = explained(DATASETS[name])(**{key: value for key, value in options.items() if key not in MOMENTS})
    return replace(data, **scale) if scale else data
