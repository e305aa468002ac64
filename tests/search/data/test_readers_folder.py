"""Pictures of one's own in class folders, and data sets in study files."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.decoded import cache_folder
from search.data.pictures import IMAGENET_MEAN
from search.data.readers import load_data
from search.data.sources import Split
from search.run.inputs import read_data
from search.run.sections import DataSection
from search.run.study_file import read_study, study_toml
from tests.search.data.reader_samples import picture

CLASSES = ("cat", "dog", "eel")


def write(home: Path, count: int = 10, first: int = 0, ending: str = "png") -> None:
    for label, name in enumerate(CLASSES):
        for number in range(count):
            picture(home / name / f"{number}.{ending}", 60 * label + first + number, (10, 8))


def values(data: Data, split: str) -> list[tuple[int, int]]:
    source = data.source(split)  # type: ignore[arg-type]
    assert isinstance(source, Split)
    return sorted((int(image[0, 0, 0]), int(label)) for image, label in zip(source.images, source.labels, strict=True))


def expected(*numbers: int) -> list[tuple[int, int]]:
    return [(60 * label + number, label) for label in range(3) for number in numbers]


def test_a_tree_without_parts_is_split_by_seed(tmp_path: Path) -> None:
    write(tmp_path / "pets", ending="JPG")
    (tmp_path / "pets" / "notes.txt").touch()
    (tmp_path / "pets" / "cat" / "notes.txt").touch()
    (tmp_path / "pets" / ".hidden").mkdir()
    picture(tmp_path / "pets" / "eel" / "deeper" / "9.png", 60 * 2 + 10)
    data = load_data("folder", folder=tmp_path / "pets", size=8)
    assert (data.name, data.classes, data.num_classes) == ("pets", CLASSES, 3)
    assert sorted(pair for name in ("train", "validation", "test") for pair in values(data, name)) == sorted(
        [*expected(*range(10)), (130, 2)]
    )
    assert [len(data.test), len(data.validation)] == [6, 3]
    assert data.mean == IMAGENET_MEAN
    again, other = (load_data("folder", folder=tmp_path / "pets", size=8, seed=seed) for seed in (0, 1))
    assert again.fingerprint == data.fingerprint
    assert values(other, "test") != values(data, "test")
    assert len(load_data("folder", folder=tmp_path / "pets", size=8, test=0.5, validation=0.5).test) >= 15


def test_pictures_stay_as_large_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "pets")  # 10 x 8
    picture(tmp_path / "pets" / "eel" / "large.png", 200, (500, 400))
    with caplog.at_level(logging.INFO, logger="secateur"):
        data = load_data("folder", folder=tmp_path / "pets")
    assert data.train.shape == (3, 8, 8)
    place = cache_folder(None, tmp_path / "pets")
    assert [record.getMessage() for record in caplog.records] == [
        f"folder-8: 31 images are kept decoded in {place} (0.0 MB)"
    ]
    assert sorted(path.name for path in (tmp_path / "pets").iterdir()) == list(CLASSES)  # nothing of ours
    for name in CLASSES:
        for number in range(10):
            picture(tmp_path / "large" / name / f"{number}.png", number, (300, 250))
    assert load_data("folder", folder=tmp_path / "large").train.shape == (3, 224, 224)
    (tmp_path / "pets" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(SecateurError, match=r"0.png cannot be read as an image"):
        load_data("folder", folder=tmp_path / "pets")


@pytest.mark.parametrize("held", ["val", "valid", "validation"])
def test_parts_that_are_there_are_taken_as_they_are(tmp_path: Path, held: str) -> None:
    write(tmp_path / "train", 4)
    write(tmp_path / held, 2, first=10)
    write(tmp_path / "test", 3, first=20)
    data = load_data("folder", folder=tmp_path, size=8)
    assert values(data, "train") == expected(0, 1, 2, 3)
    assert values(data, "validation") == expected(10, 11)
    assert values(data, "test") == expected(20, 21, 22)
    anew = load_data("folder", folder=tmp_path, size=8, validation=0.5)
    assert sorted(values(anew, "train") + values(anew, "validation")) == expected(0, 1, 2, 3, 10, 11)
    assert len(anew.validation) == 9
    assert values(anew, "test") == values(data, "test")
    with pytest.raises(SecateurError, match=r"has test/, so that test=0.5 cannot be set aside; leave it out"):
        load_data("folder", folder=tmp_path, test=0.5)


def test_without_a_test_folder_some_training_images_are_the_test(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "val", 2, first=20)
    data = load_data("folder", folder=tmp_path, size=8)
    assert values(data, "validation") == expected(20, 21)
    assert sorted(values(data, "train") + values(data, "test")) == expected(*range(10))
    assert len(data.test) == 6


def test_grey_pictures_are_normalised_by_what_is_measured(tmp_path: Path) -> None:
    write(tmp_path)
    data = load_data("folder", folder=tmp_path, size=8, grey=True)
    assert data.train.shape == (1, 8, 8)
    images, _ = data.batch(len(data.train))
    assert abs(float(images.mean())) < 1e-5
    assert float(images.std(correction=0)) == pytest.approx(1.0, abs=1e-5)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    def refused(message: str, **options: Any) -> None:
        with pytest.raises(SecateurError, match=message) as caught:
            load_data("folder", **{"folder": tmp_path, "size": 8, **options})
        assert "\n" not in str(caught.value)

    refused("data 'folder' needs folder=..., which must hold one folder of pictures a class", folder=None)
    refused("nowhere is no folder; it must hold one folder of pictures a class", folder=tmp_path / "nowhere")
    refused("must hold at least two folders of pictures, but holds 0")
    write(tmp_path / "val", 2)
    refused("has val/, but train/ is missing beside it")
    write(tmp_path / "train", 3)
    (tmp_path / "val" / "fox").mkdir()
    refused("/val has a class 'fox', which the training images do not have")
    (tmp_path / "val" / "fox").rename(tmp_path / "train" / "fox")
    refused(r"train/fox holds no picture; one ends in .bmp, .gif, .jpeg, ")
    (tmp_path / "train" / "fox").rmdir()
    refused("0 < test < 1 must hold, but got test=1.5", test=1.5)
    refused("data 'folder' has no option 'sizes'|has no option 'sizes'; it takes folder, size, grey", sizes=8)
    (tmp_path / "valid").mkdir()
    refused("has val/ and valid/; it must have one of them")
    (tmp_path / "valid").rmdir()
    (tmp_path / "train" / "eel" / "1.png").write_bytes(b"no picture")
    refused(r"train/eel/1.png cannot be read as an image: ")
    (tmp_path / "train" / "eel" / "1.png").unlink()
    os.mkfifo(tmp_path / "train" / "eel" / "1.png")  # of which reading would never end
    for size in (8, None):
        refused("train/eel/1.png is no file, though it is named as a picture; remove or rename it", size=size)


STUDY = """
name = "pets"
[model]
backbone = "resnet20"
[data]
name = "folder"
folder = "pets"
size = 16
grey = true
test = 0.3
[budget]
macs = "30%"
"""


def test_a_study_file_names_folder_size_and_split(tmp_path: Path) -> None:
    write(tmp_path / "pets")
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    study = read_study(path)
    assert study.data == DataSection("folder", folder=tmp_path / "pets", size=16, grey=True, test=0.3)
    data = read_data(study.data, study.seed)
    assert (data.train.shape, len(data.test)) == ((1, 16, 16), 9)
    path.write_text(study_toml(study))
    assert read_study(path) == study


def test_a_study_file_with_an_option_that_the_data_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(
        SecateurError, match=r"\[data\] data set 'digits' has no option 'size'; it takes validation, see"
    ):
        read_data(DataSection("digits", size=8), 0)
    with pytest.raises(SecateurError, match=r"\[data\] unknown data set 'cifar11'; did you mean 'cifar10'"):
        read_data(DataSection("cifar11"), 0)
    for options, message in (
        ({"size": 0}, "1 <= size <= 4096 must hold, but got size=0"),
        ({"test": 1.0}, "0 < test < 1 must hold, but got test=1.0"),
        ({"per_class": 1}, "2 <= per_class must hold, but got per_class=1"),
    ):
        with pytest.raises(SecateurError, match=message):
            DataSection("folder", **options)


def test_a_network_trains_on_mapped_pictures_as_on_the_same_in_memory(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from search.training.engine import train
    from search.training.recipe import Recipe

    write(tmp_path, 12)
    mapped = load_data("folder", folder=tmp_path, size=8)
    parts = {}
    for name in ("train", "validation", "test"):
        source = mapped.source(name)
        assert isinstance(source, Split)
        parts[name] = Split(source.images, source.labels)
    held = Data.from_tensors(
        "held", parts["train"], parts["test"], validation=parts["validation"], mean=mapped.mean, std=mapped.std,
        augment=mapped.augment,
    )  # fmt: skip
    ends = []
    for data in (mapped, held):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        history = train(model, data, Recipe(epochs=2, batch_size=8), device="cpu", progress=False)
        ends.append((history.epochs[-1].loss, [p.detach().clone() for p in model.parameters()]))
    assert np.isfinite(ends[0][0])
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(one, other) for one, other in zip(ends[0][1], ends[1][1], strict=True))
