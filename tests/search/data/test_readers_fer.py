"""FER-2013: one CSV file, three usages."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from backbones.errors import SecateurError
from search.data import fer2013 as module
from search.data.readers import load_data
from search.data.sources import Split

USAGES = ["Training"] * 28 + ["PublicTest"] * 7 + ["PrivateTest"] * 7


def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (42, 48, 48), dtype=np.uint8)


def lines() -> list[str]:
    return [
        f"{number % 7},{' '.join(map(str, face.ravel()))},{usage}"
        for number, (face, usage) in enumerate(zip(faces(), USAGES, strict=True))
    ]


def write(folder: Path, rows: list[str], header: str = "emotion,pixels,Usage") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "fer2013.csv").write_text("\n".join([header, *rows]) + "\n")


def test_usages_are_the_splits(tmp_path: Path) -> None:
    write(tmp_path, lines())
    data = load_data("fer2013", folder=tmp_path)
    start = 0
    for name, size in (("train", 28), ("validation", 7), ("test", 7)):
        source = data.source(name)  # type: ignore[arg-type]
        assert isinstance(source, Split)
        np.testing.assert_array_equal(source.images[:, 0], faces()[start : start + size])
        assert source.labels.tolist() == [number % 7 for number in range(start, start + size)]
        start += size
    assert data.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert (data.mean, data.std, data.augment.crop, data.augment.flip) == ((0.5074,), (0.2551,), 4, True)


def test_a_fraction_for_validation_divides_training_and_public_images_anew(tmp_path: Path) -> None:
    write(tmp_path, lines())
    data, again, other = (load_data("fer2013", folder=tmp_path, validation=0.2, seed=seed) for seed in (0, 0, 1))
    assert [len(data.train), len(data.validation), len(data.test)] == [28, 7, 7]
    assert data.fingerprint == again.fingerprint != other.fingerprint


def test_faces_are_resized_on_request(tmp_path: Path) -> None:
    write(tmp_path, [f"{number % 7},{' '.join(['90'] * 2304)},{usage}" for number, usage in enumerate(USAGES)])
    data = load_data("fer2013", folder=tmp_path, size=64)
    assert data.train.shape == (1, 64, 64)
    assert isinstance(data.train, Split)
    assert bool((data.train.images == 90).all())


def test_the_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, lines())
    first = load_data("fer2013", folder=tmp_path)

    def never(path: Path) -> None:
        raise AssertionError("read twice")

    monkeypatch.setattr(module, "_rows", never)
    assert load_data("fer2013", folder=tmp_path).fingerprint == first.fingerprint
    os.utime(tmp_path / "fer2013.csv", ns=(1, 1))
    with pytest.raises(AssertionError, match="read twice"):
        load_data("fer2013", folder=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1,", "7,", "line 3: emotion must be 0 to 6, but is '7'"),
        ("1,", "-1,", "line 3: emotion must be 0 to 6, but is '-1'"),
        ("Training", "Train", "line 3: Usage must be Training, PublicTest, PrivateTest, but is 'Train'"),
        (",Training", "", "line 3 has 2 columns, not 3"),
        (",Training", " 4,Training", "line 3 has 2305 pixels, not 48 x 48"),
        (",Training", "6,Training", "line 3: pixels must be whole numbers from 0 to 255"),
        (",Training", "x,Training", "line 3: pixels must be whole numbers from 0 to 255"),
    ],
)
def test_a_line_that_is_not_as_it_should_be_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    rows = lines()
    assert old in rows[1]
    rows[1] = rows[1].replace(",Training", "00,Training") if new == "6,Training" else rows[1].replace(old, new, 1)
    write(tmp_path, rows)
    with pytest.raises(SecateurError, match=message) as caught:
        load_data("fer2013", folder=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'fer2013.csv'} line 3")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match=r"fer2013.csv is missing; FER-2013 is published at https://www.kaggle.com"):
        load_data("fer2013", folder=tmp_path)
    write(tmp_path, lines(), "a,b,c")
    with pytest.raises(
        SecateurError, match=r"must have the columns emotion, pixels and Usage, but has \['a', 'b', 'c'\]"
    ):
        load_data("fer2013", folder=tmp_path)
    write(tmp_path, lines()[:35])
    with pytest.raises(SecateurError, match=r"fer2013.csv has no line of Usage PrivateTest"):
        load_data("fer2013", folder=tmp_path)
    (tmp_path / "fer2013.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SecateurError, match=r"fer2013.csv cannot be read: "):
        load_data("fer2013", folder=tmp_path)
