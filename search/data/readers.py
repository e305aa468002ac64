"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable

from search.data.aircraft import aircraft
from search.data.caltech256 import caltech256
from search.data.cars import cars
from search.data.cifar import cifar10
from search.data.cifar100 import cifar100
from search.data.class_folders import class_folders
from search.data.cub200 import cub200
from search.data.data import Data
from search.data.digits import digits
from search.data.fer2013 import fer2013
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
