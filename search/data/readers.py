"""The data sets by name, the one function that reads them all, and the digits, which need no files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from backbones.arguments import explained
from backbones.errors import SecateurError, check_name
from search.data.augment import Augment
from search.data.cifar import cifar10, cifar100
from search.data.class_folders import caltech256, class_folders, tiny_imagenet
from search.data.data import Data
from search.data.fer2013 import fer2013
from search.data.fine_grained import aircraft, cars, cub200
from search.data.sources import Split, split_off


def digits(*, validation: float = 0.2, seed: int = 0, augment: Augment | None = None) -> Data:
    """Handwritten digits, 8 x 8, one channel, ten classes (UCI optical recognition of handwritten digits, test part).

    The 1,797 images come with scikit-learn. A fifth of them is the test split; it and the validation split hold the
    same share of every class.

    Args:
        validation: fraction of the remaining images set aside.
        seed: draws both splits.
        augment: a shift by up to one pixel when not given.

    Returns:
        pixels 0..16 stretched to uint8 0..255; mean and deviation measured on the training images.

    Raises:
        SecateurError: for a validation fraction out of range.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    stretched = np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    everything = Split(torch.from_numpy(stretched), torch.from_numpy(labels.astype(np.int64)))
    train, test = split_off(everything, 0.2, 10, seed, "data 'digits'")
    return Data.from_tensors(
        "digits",
        train,
        test,
        validation=validation,
        num_classes=10,
        augment=Augment(crop=1) if augment is None else augment,
        classes=tuple("0123456789"),
        seed=seed,
    )


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
