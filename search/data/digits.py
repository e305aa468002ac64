"""The 1,797 handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

import numpy as np
import torch

from search.data.augment import Augment
from search.data.data import Data
from search.data.sources import Split, split_off


def digits(*, validation: float = 0.2, seed: int = 0, augment: Augment | None = None) -> Data:
    """Handwritten digits, 8 x 8, one channel, ten classes (UCI optical recognition of handwritten digits, test part).

    A fifth of the images is the test split; it and the validation split hold the same share of every class.

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
