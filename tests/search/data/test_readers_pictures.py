"""Tiny ImageNet, Caltech-256, CUB-200-2011, FGVC-Aircraft and Stanford Cars, on tiny copies of their exact layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.decoded import cache_folder
from search.data.pictures import IMAGENET_MEAN, IMAGENET_STD
from search.data.readers import load_data
from search.data.sources import Split, counts
from tests.search.data.reader_samples import picture

SMALL = (20, 16)


def values(data: Data, split: str) -> list[tuple[int, int]]:
    """(grey of the middle, label) of every image of one split; each file has one grey."""
    source = data.source(split)  # type: ignore[arg-type]
    assert isinstance(source, Split)
    side = source.shape[1] // 2
    return [(int(image[0, side, side]), int(label)) for image, label in zip(source.images, source.labels, strict=True)]


def greys(data: Data, split: str) -> set[int]:
    return {grey for grey, _ in values(data, split)}


def write_tiny(home: Path) -> None:
    wnids = ("n02124075", "n01443537", "n04067472")
    home.mkdir()
    (home / "wnids.txt").write_text("\n".join(wnids) + "\n")
    words = [
        "n00001740\tentity",
        "n01443537\tgoldfish, Carassius auratus",
        "n02124075\tEgyptian cat",
        "n04067472\treel",
    ]
    (home / "words.txt").write_text("\n".join(words))
    lines: list[str] = []
    for label, wnid in enumerate(wnids):
        boxes = []
        for number in range(4):
            picture(home / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 60 * label + number, (64, 64))
            boxes.append(f"{wnid}_{number}.JPEG\t0\t0\t62\t62\n")
        (home / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(boxes))
        picture(home / "val" / "images" / f"val_{label}.JPEG", 200 + label, (64, 64))
        picture(home / "test" / "images" / f"test_{label}.JPEG", 255, (64, 64))
        lines.insert(0, f"val_{label}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (home / "val" / "val_annotations.txt").write_text("".join(lines))


def write_caltech(home: Path) -> None:
    for label, name in enumerate(("001.ak47", "002.american-flag", "003.backpack")):
        for number in range(1, 9):
            picture(home / name / f"{label + 1:03d}_{number:04d}.jpg", 60 * label + number, SMALL)
    (home / "003.backpack" / "RENAME2").write_text("a stray file, as there is one in the original")
    picture(home / "003.backpack" / "deeper" / "stray.jpg", 255)
    for number in range(1, 9):
        picture(home / "257.clutter" / f"257_{number:04d}.jpg", 250, SMALL)
    for number in range(4, 257):
        picture(home / f"{number:03d}.thing-{number}" / f"{number:03d}_0001.jpg", 0, (4, 4))


def write_cub(home: Path) -> None:
    birds = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    images, labels, parts, boxes = [], [], [], []
    for number in range(1, 13):
        bird = number % 2
        name = f"{birds[bird]}/{birds[bird][4:]}_{number:04d}_{number + 700}.jpg"
        pixels = np.full((16, 20), 10 * number, dtype=np.uint8)
        pixels[:8, 12:] = 255  # where the box is
        picture(home / "images" / name, pixels)
        images.append(f"{number} {name}\n")
        labels.append(f"{number} {bird + 1}\n")
        parts.append(f"{number} {int(number <= 8)}\n")
        boxes.append(f"{number} 12.0 0.0 8.0 8.0\n")
    (home / "classes.txt").write_text("".join(f"{label} {bird}\n" for label, bird in enumerate(birds, 1)))
    for name, rows in (
        ("images", images), ("image_class_labels", labels), ("train_test_split", parts), ("bounding_boxes", boxes)
    ):  # fmt: skip
        (home / f"{name}.txt").write_text("".join(rows))


def write_aircraft(home: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(12):
        image = f"{1025794 - number:07d}"
        pixels = np.full((36, 20), 10 * number, dtype=np.uint8)
        pixels[16:] = 255  # the banner
        picture(home / "data" / "images" / f"{image}.jpg", pixels)
        lists[("train", "val", "test")[number // 4]].append(
            f"{image} {('707-320', 'F-16A/B', 'Cessna 172')[number % 2]}\n"
        )
    lists["trainval"] = lists["val"] + lists["train"]
    for part, rows in lists.items():
        (home / "data" / f"images_variant_{part}.txt").write_text("".join(rows))
    (home / "data" / "variants.txt").write_text("707-320\nF-16A/B\n")


def annotated(rows: list[tuple[str, int, int]], *, whole: bool = False, without: str = "") -> np.ndarray:
    """The struct array of a `.mat` file: file, class and part of every image; the box is the top right quarter."""
    corners = {"bbox_x1": 11, "bbox_y1": 1, "bbox_x2": 20, "bbox_y2": 8}
    fields = ["relative_im_path", *corners, "class", "test"] if whole else [*corners, "class", "fname"]
    fields = [field for field in fields if field != without]
    found = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for place, (name, label, part) in enumerate(rows):
        facts: dict[str, Any] = {**corners, "class": label, "fname": name, "relative_im_path": name, "test": part}
        found[0, place] = tuple(
            value if isinstance(value := facts[field], str) else np.uint8(value) for field in fields
        )
    return found


CARS = np.array(["AM General Hummer SUV 2000", "Volvo 240 Sedan 1993"], dtype=object)


def car(path: Path, grey: int) -> None:
    pixels = np.full((16, 20), grey, dtype=np.uint8)
    pixels[:8, 10:] = 255
    picture(path, pixels)


def write_cars(home: Path, test: str = "cars_test_annos_withlabels.mat") -> None:
    (home / "devkit").mkdir(parents=True)
    savemat(home / "devkit" / "cars_meta.mat", {"class_names": CARS[None]})
    for part, name in enumerate(("devkit/cars_train_annos.mat", test)):
        rows = []
        for number in range(1, 7):
            file = f"{number:05d}.jpg"
            car(home / ("cars_test" if part else "cars_train") / file, 100 * part + 10 * number)
            rows.append((file, number % 2 + 1, part))
        savemat(home / name, {"annotations": annotated(rows)})


def write_cars_together(home: Path) -> None:
    rows = []
    for number in range(1, 13):
        file = f"car_ims/{number:06d}.jpg"
        car(home / file, (100 if number > 6 else 0) + 10 * (number - 6 * (number > 6)))
        rows.append((file, number % 2 + 1, int(number > 6)))
    savemat(home / "cars_annos.mat", {"annotations": annotated(rows, whole=True), "class_names": CARS[None]})


WRITERS: dict[str, Callable[[Path], None]] = {
    "tiny-imagenet": write_tiny,
    "caltech256": write_caltech,
    "cub200": write_cub,
    "aircraft": write_aircraft,
    "cars": write_cars,
}


def test_tiny_imagenet(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny")
    data = load_data("tiny-imagenet", folder=tmp_path / "tiny", validation=0.25)
    assert data.example.shape == (1, 3, 64, 64)
    assert data.classes == ("Egyptian cat", "goldfish, Carassius auratus", "reel")
    assert values(data, "test") == [(202, 2), (201, 1), (200, 0)]
    together = sorted(values(data, "train") + values(data, "validation"))
    assert together == [(60 * label + number, label) for label in range(3) for number in range(4)]
    assert [len(data.train), len(data.validation)] == [9, 3]
    assert (data.mean, data.std) == ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821))
    assert (data.augment.crop, data.augment.flip) == (8, True)
    assert load_data("tiny-imagenet", folder=tmp_path / "tiny", validation=0.25, size=32).train.shape == (3, 32, 32)
    [image, *_] = (tmp_path / "tiny" / "train" / "n01443537" / "images").iterdir()
    image.unlink()
    with pytest.warns(UserWarning, match=r"training images a class: \[4, 3, 4\], the original has equal numbers"):
        load_data("tiny-imagenet", folder=tmp_path / "tiny")


def test_caltech_256_is_split_by_seed_with_so_many_images_a_class(tmp_path: Path, monkeypatch: Any) -> None:
    write_caltech(tmp_path / "caltech")
    with pytest.raises(SecateurError, match=r"ak47 has 8 images; 60 for training and at least one for the test are ne"):
        load_data("caltech256", folder=tmp_path / "caltech", size=8)
    for number in range(4, 257):
        for file in (tmp_path / "caltech" / f"{number:03d}.thing-{number}").iterdir():
            file.unlink()
    with pytest.raises(SecateurError, match=r"004.thing-4 has 0 images; 4 for training and at least one"):
        load_data("caltech256", folder=tmp_path / "caltech", size=8, per_class=4)
    for number in range(4, 257):
        (tmp_path / "caltech" / f"{number:03d}.thing-{number}").rmdir()
    with pytest.raises(SecateurError, match=r"caltech: 004\.\* is missing; Caltech-256 is published at https://data.c"):
        load_data("caltech256", folder=tmp_path / "caltech", size=8, per_class=4)
    (tmp_path / "caltech" / "257.clutter").rename(tmp_path / "257.clutter")
    os.mkfifo(pipe := tmp_path / "caltech/001.ak47/pipe.jpg")
    with pytest.raises(SecateurError, match=r"ak47/pipe.jpg is no file, though it is named as a picture"):
        load_data("caltech256", folder=tmp_path / "caltech", size=8, per_class=5)
    pipe.unlink()
    data = load_data("caltech256", folder=tmp_path / "caltech", size=8, per_class=5, validation=0.4)
    assert data.classes == ("ak47", "american-flag", "backpack")
    parts = {name: values(data, name) for name in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [9, 6, 9]
    assert sorted(pair for part in parts.values() for pair in part) == [
        (60 * label + n, label) for label in range(3) for n in range(1, 9)
    ]
    again, other = (
        load_data("caltech256", folder=tmp_path / "caltech", size=8, per_class=5, validation=0.4, seed=seed)
        for seed in (0, 1)
    )
    assert again.fingerprint == data.fingerprint
    assert greys(other, "test") != greys(data, "test")
    assert (data.mean, data.std) == (IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(SecateurError, match="2 <= per_class must hold, but got per_class=1"):
        load_data("caltech256", folder=tmp_path / "caltech", per_class=1)


def test_caltech_256_leaves_the_clutter_out_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_caltech(tmp_path / "caltech")
    monkeypatch.setattr("search.data.class_folders._CLUTTER", 3)  # so that 257 folders of pictures are not needed
    for number in range(4, 258):
        [place] = (tmp_path / "caltech").glob(f"{number:03d}.*")
        place.rename(tmp_path / place.name)
    options: dict[str, Any] = {"folder": tmp_path / "caltech", "size": 8, "per_class": 4}
    assert load_data("caltech256", **options).num_classes == 2
    assert load_data("caltech256", clutter=True, **options).classes == ("ak47", "american-flag", "backpack")


def test_cub_200(tmp_path: Path) -> None:
    write_cub(tmp_path / "cub")
    data = load_data("cub200", folder=tmp_path / "cub", validation=0.25)
    assert data.example.shape == (1, 3, 448, 448)
    assert data.classes == ("Black_footed_Albatross", "Laysan_Albatross")
    assert values(data, "test") == [(10 * number, number % 2) for number in range(9, 13)]
    assert sorted(values(data, "train") + values(data, "validation")) == [(10 * n, n % 2) for n in range(1, 9)]
    assert len(data.validation) == 2
    assert (data.mean, data.augment.flip, data.augment.crop) == (IMAGENET_MEAN, True, 0)
    assert greys(load_data("cub200", folder=tmp_path / "cub", size=8, boxes=True), "test") == {255}
    (tmp_path / "cub" / "bounding_boxes.txt").unlink()
    with pytest.raises(SecateurError, match=r"bounding_boxes.txt is missing; CUB-200-2011 is published at https://www"):
        load_data("cub200", folder=tmp_path / "cub", boxes=True)


def test_aircraft_takes_the_official_validation_split_and_no_banner(tmp_path: Path) -> None:
    write_aircraft(tmp_path / "aircraft")
    data = load_data("aircraft", folder=tmp_path / "aircraft", size=16)
    for part, name in enumerate(("train", "validation", "test")):
        assert values(data, name) == [(10 * n, n % 2) for n in range(4 * part, 4 * part + 4)]
        source = data.source(name)  # type: ignore[arg-type]
        assert isinstance(source, Split)
        assert int(source.images.max()) < 255, "some of the banner is left"
    assert data.classes == ("707-320", "F-16A/B")
    assert load_data("aircraft", folder=tmp_path / "aircraft").train.shape == (3, 448, 448)
    cached = sorted(cache_folder(None, tmp_path / "aircraft").iterdir())
    more = load_data("aircraft", folder=tmp_path / "aircraft", size=16, validation=0.25)
    assert [len(more.train), len(more.validation)] == [6, 2]
    assert greys(more, "train") | greys(more, "validation") == {10 * n for n in range(8)}
    assert values(more, "test") == values(data, "test")
    assert sorted(cache_folder(None, tmp_path / "aircraft").iterdir()) == cached, "both ways share the decoded images"


@pytest.mark.parametrize("where", ["beside", "devkit", "together"])
def test_cars_in_every_layout(tmp_path: Path, where: str) -> None:
    home = tmp_path / "cars"
    if where == "together":
        write_cars_together(home)
    else:
        write_cars(home, "devkit/" * (where == "devkit") + "cars_test_annos_withlabels.mat")
    data = load_data("cars", folder=home, size=16, validation=0.34)
    assert values(data, "test") == [(100 + 10 * n, n % 2) for n in range(1, 7)]
    assert sorted(values(data, "train") + values(data, "validation")) == [(10 * n, n % 2) for n in range(1, 7)]
    assert data.classes == tuple(CARS)
    boxes = load_data("cars", folder=home, size=8, boxes=True)
    source = boxes.test
    assert isinstance(source, Split)
    assert bool((source.images == 255).all()), "the box is in the white corner"


def test_cars_without_labels_or_with_broken_annotations(tmp_path: Path) -> None:
    home = tmp_path / "cars"
    write_cars(home)
    path = home / "cars_test_annos_withlabels.mat"
    savemat(path, {"annotations": annotated([("00001.jpg", 1, 1)], without="class")})
    with pytest.raises(SecateurError, match=r"have no field 'class'; cars_test_annos_withlabels.mat has it"):
        load_data("cars", folder=home)
    savemat(path, {"others": 1})
    with pytest.raises(SecateurError, match=r"withlabels.mat holds no annotations"):
        load_data("cars", folder=home)
    for broken in (b"", b"no matrix", path.read_bytes()[:150]):
        path.write_bytes(broken)
        with pytest.raises(SecateurError, match=r"withlabels.mat (cannot be read as a MATLAB file|holds no)") as caught:
            load_data("cars", folder=home)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("tiny-imagenet", "wnids.txt"),
        ("tiny-imagenet", "words.txt"),
        ("tiny-imagenet", "train/n01443537/images"),
        ("tiny-imagenet", "val/val_annotations.txt"),
        ("tiny-imagenet", "val/images/val_1.JPEG"),
        ("cub200", "images.txt"),
        ("cub200", "image_class_labels.txt"),
        ("cub200", "train_test_split.txt"),
        ("cub200", "classes.txt"),
        ("cub200", "images/002.Laysan_Albatross/Laysan_Albatross_0003_703.jpg"),
        ("aircraft", "data/variants.txt"),
        ("aircraft", "data/images_variant_val.txt"),
        ("aircraft", "data/images/1025790.jpg"),
        ("cars", "devkit/cars_meta.mat"),
        ("cars", "devkit/cars_train_annos.mat"),
        ("cars", "cars_test_annos_withlabels.mat"),
        ("cars", "cars_train/00003.jpg"),
    ],
)
def test_a_missing_file_is_named_with_its_folder_and_where_to_get_it(tmp_path: Path, name: str, file: str) -> None:
    home = tmp_path / "home"
    WRITERS[name](home)
    path = home / file
    path.rename(tmp_path / "away")
    with pytest.raises(SecateurError) as caught:
        load_data(name, folder=home, size=8)
    message = str(caught.value)
    assert message.startswith(f"{path.parent}: {path.name} is missing; ")
    assert "is published at http" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", WRITERS)
def test_the_folder_is_looked_for_below_secateur_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    with pytest.raises(
        SecateurError, match=r"needs a folder: give folder=..., or set SECATEUR_DATA .* published at ht"
    ):
        load_data(name)
    monkeypatch.setenv("SECATEUR_DATA", str(tmp_path))
    with pytest.raises(SecateurError, match=rf"{tmp_path}/data: \S+ is missing; .* is published at http"):
        load_data(name)


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("tiny-imagenet", "val/val_annotations.txt", "val_0.JPEG\tn1\t0\n", "val_0.JPEG is of class 'n1', which wnids"),
        ("tiny-imagenet", "val/val_annotations.txt", "\n", "val_annotations.txt names no image"),
        ("tiny-imagenet", "words.txt", "n02124075\n", "a line must be a name and what belongs to it, but one is 'n02"),
        ("cub200", "image_class_labels.txt", "1 one\n", "must hold an image and a whole number in every line"),
        ("cub200", "train_test_split.txt", "1 1\n", "has no line for image 2, which images.txt has"),
        ("cub200", "image_class_labels.txt", "".join(f"{n} 3\n" for n in range(1, 13)), "label 2; labels must be 0 to"),
        ("aircraft", "data/images_variant_test.txt", "1025790 Concorde\n", "is of variant 'Concorde', which variants"),
        ("aircraft", "data/images_variant_test.txt", "", "images_variant_test.txt names no image"),
    ],
)
def test_lists_that_do_not_fit_are_named(tmp_path: Path, name: str, file: str, text: str, message: str) -> None:
    WRITERS[name](tmp_path / "home")
    (tmp_path / "home" / file).write_text(text)
    with pytest.raises(SecateurError, match=message) as caught:
        load_data(name, folder=tmp_path / "home", size=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "caltech256"])
def test_a_corrupt_picture_is_named(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / "home")
    path = sorted((tmp_path / "home").rglob("*.[jJ][pP]*"))[-1]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SecateurError, match=rf"{path} cannot be read as an image: "):
        load_data(name, folder=tmp_path / "home", size=8)


def test_official_splits_do_not_move_with_the_seed(tmp_path: Path) -> None:
    write_cub(tmp_path / "cub")
    one, other = (load_data("cub200", folder=tmp_path / "cub", size=8, validation=0.25, seed=seed) for seed in (0, 1))
    assert values(one, "test") == values(other, "test")
    assert greys(one, "validation") != greys(other, "validation")
    assert isinstance(one.validation, Split)
    assert counts(one.validation.labels, 2).tolist() == [1, 1]
