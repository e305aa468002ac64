"""Data in memory: splits, normalisation, scoring batches, and one clear line for what cannot be used."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.readers import DATASETS, load_data
from search.data.sources import Split, Stream, counts, split_off


def made(count: int = 60, classes: int = 3, **options: Any) -> Data:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 2, 5, 6), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    return Data.from_tensors("made", (images, labels), (images[:9], labels[:9]), **options)


def test_digits_have_three_disjoint_stratified_splits() -> None:
    data = load_data("digits")
    sizes = [len(data.source(name)) for name in ("train", "validation", "test")]
    assert sum(sizes) == 1797
    assert sizes == [1151, 287, 359]
    for split in (data.train, data.validation, data.test):
        assert isinstance(split, Split)
        assert split.images.dtype == torch.uint8
        share = counts(split.labels, 10) / len(split)
        assert np.abs(share - 0.1).max() < 0.01
    assert load_data("digits").fingerprint == data.fingerprint != load_data("digits", seed=1).fingerprint


def test_normalised_training_images_have_mean_0_and_deviation_1() -> None:
    data = load_data("digits")
    images, labels = data.batch(len(data.train))
    assert images.dtype == torch.float32
    assert abs(float(images.mean())) < 1e-5
    assert float(images.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    assert sorted(set(labels.tolist())) == list(range(10))
    assert data.example.shape == (1, 1, 8, 8)


def test_normalise_reads_bytes_and_fractions_alike() -> None:
    data = made(mean=(0.5, 0.25), std=(0.5, 0.125))
    pixels = torch.tensor([[[[255]], [[51]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[1.0]], [[(0.2 - 0.25) / 0.125]]]])
    torch.testing.assert_close(data.normalise(pixels), expected)
    torch.testing.assert_close(data.normalise(pixels / 255), expected)


def test_scoring_batch_is_drawn_by_seed_without_replacement() -> None:
    data = made()
    first, labels = data.batch(20, seed=3)
    again, _ = data.batch(20, seed=3)
    other, _ = data.batch(20, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(torch.unique(first.flatten(1), dim=0)) == 20 == len(labels)


def test_batches_cover_a_split_in_order() -> None:
    data = made()
    assert isinstance(data.validation, Split)
    pieces = list(data.batches("validation", 4))
    assert torch.equal(torch.cat([labels for _, labels in pieces]), data.validation.labels)
    assert torch.equal(torch.cat([images for images, _ in pieces]), data.normalise(data.validation.images))


@given(st.lists(st.integers(2, 30), min_size=2, max_size=5), st.floats(0.01, 0.99), st.integers(0, 5))
def test_split_off_takes_the_same_share_of_every_class(sizes: list[int], fraction: float, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    images = torch.arange(len(labels))[:, None, None, None].float()
    rest, aside = split_off(Split(images, labels), fraction, len(sizes), seed, "here")
    together = torch.cat([rest.images, aside.images]).flatten().sort().values
    assert torch.equal(together, images.flatten())
    for size, taken in zip(sizes, counts(aside.labels, len(sizes)), strict=True):
        assert 1 <= taken < size
        assert abs(taken - fraction * size) <= 1


class Pictures(Dataset[tuple[np.ndarray, int]]):
    """Pictures (H, W, C), the way image files come."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full((4, 5, 3), index, dtype=np.uint8), index % 2


def test_datasets_and_loaders_are_read_into_the_same_tensors() -> None:
    data = Data.from_datasets("pictures", Pictures(), Pictures(), validation=0.5)
    loader = DataLoader(Pictures(), 5, shuffle=True, collate_fn=lambda rows: _collated(rows))
    loaded = Data.from_datasets("pictures", loader, Pictures(), validation=0.5)
    assert isinstance(data.train, Split)
    assert data.train.shape == (3, 4, 5)
    assert len(data.train) == 6
    assert loaded.fingerprint == data.fingerprint


def _collated(rows: list[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in rows])
    return images, torch.tensor([label for _, label in rows])


def test_stream_is_read_anew_with_an_order_fixed_by_the_seed() -> None:
    images = torch.rand(30, 1, 4, 4)
    labels = torch.arange(30) % 3
    loader = DataLoader(TensorDataset(images, labels), 10, shuffle=True)
    data = Data.from_datasets("s", loader, loader, validation=loader, num_classes=3, stream=True)
    assert isinstance(data.train, Stream)
    assert len(data.train) == 30
    first, again, other = (torch.cat([y for _, y in data.train.epoch(seed)]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert data.batch(25)[0].shape == (25, 1, 4, 4)
    assert len(data.fingerprint) == 16
    assert sum(len(y) for _, y in data.batches("test", 1)) == 30


def test_float_images_that_are_already_normalised_stay_as_they_are() -> None:
    images, labels = torch.randn(20, 1, 3, 3), torch.arange(20) % 2
    data = Data.from_tensors("n", (images, labels), (images, labels), validation=0.5, mean=(0,), std=(1,))
    assert isinstance(data.test, Split)
    assert torch.equal(data.normalise(data.test.images), images)


@pytest.mark.parametrize("given", [{"mean": (0.1,), "std": (0.4,)}, {"mean": [0.1]}, {"std": (2,), "mean": None}])
def test_mean_and_std_of_a_data_set_by_name(given: dict[str, Any]) -> None:
    own, data = load_data("digits"), load_data("digits", **given)
    assert data.mean == tuple(given.get("mean") or own.mean)
    assert data.std == tuple(given.get("std", own.std))
    assert (data.fingerprint == own.fingerprint) is False


IMAGES, LABELS = torch.zeros(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: load_data("digit"), "unknown data set 'digit'; did you mean 'digits'?"),
        (lambda: load_data("digits", size=8), "'digits' has no option 'size'; it takes validation, seed, augment"),
        (lambda: load_data("digits", mean=(0, 0)), "mean and std need 1 numbers"),
        (lambda: load_data("digits", validation=0), "0 < validation < 1 must hold, but got validation=0"),
        (lambda: load_data("digits").batch(5000), "1 <= batch size <= 1151 training images must hold, but got 5000"),
        (lambda: made(num_classes=2), "train has label 2; labels must be 0 to 1"),
        (lambda: made(num_classes=4), "class 3 has 0 training images; at least 2 are needed"),
        (lambda: made(mean=(0.5,), std=(1.0,)), "mean and std need 2 numbers"),
        (lambda: made(mean=(0.5, 0.5), std=(1.0, 0.0)), "std > 0"),
        (lambda: Data.from_tensors("x", (IMAGES, LABELS - 1), (IMAGES, LABELS)), "train has label -1"),
        (
            lambda: Data.from_tensors("x", (IMAGES, LABELS), (IMAGES, LABELS + 7)),
            "test has label 9; labels must be 0 to 2",
        ),
        (lambda: Data.from_tensors("x", (IMAGES[0], LABELS), (IMAGES, LABELS)), r"train images must be \(N, C, H, W\)"),
        (lambda: Data.from_tensors("x", (IMAGES, LABELS[:4]), (IMAGES, LABELS)), "6 images and labels of shape"),
        (lambda: Data.from_tensors("x", (IMAGES, LABELS / 2), (IMAGES, LABELS)), "labels must be whole numbers"),
        (lambda: Data.from_tensors("x", (IMAGES.long(), LABELS), (IMAGES, LABELS)), "must be uint8"),
        (lambda: Data.from_tensors("x", (IMAGES / 0, LABELS), (IMAGES, LABELS)), "NaN or infinite"),
        (lambda: Data.from_tensors("x", (IMAGES, LABELS), (IMAGES[..., :1], LABELS)), "test images are"),
        (
            lambda: Data.from_tensors("x", (IMAGES, LABELS), (IMAGES, LABELS), validation=(IMAGES[:2], LABELS[:2])),
            "class 2 has no image in the validation split",
        ),
        (lambda: Data.from_datasets("x", TensorDataset(IMAGES), TensorDataset(IMAGES)), "pair"),
        (lambda: Data.from_datasets("x", 3, 4), "must be a torch Dataset or DataLoader, but got int"),  # type: ignore[arg-type]
        (lambda: Data.from_datasets("x", Pictures(), Pictures(), stream=True), "needs validation=<DataLoader>"),
    ],
)
def test_bad_input_is_refused_in_one_line(make: object, message: str) -> None:
    with pytest.raises(SecateurError, match=message) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_registry_names_what_it_loads() -> None:
    assert set(DATASETS) == {
        "digits", "cifar10", "cifar100", "tiny-imagenet", "caltech256", "cub200", "aircraft", "cars", "fer2013",
        "folder",
    }  # fmt: skip
    for reader in DATASETS.values():
        assert {"validation", "seed", "augment"} <= set(inspect.signature(reader).parameters)
