"""CIFAR-10 and CIFAR-100 in both layouts, and a reader of pickles that runs nothing."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from backbones.errors import SecateurError
from search.data.cifar import cifar10, cifar100
from search.data.pickles import read_pickle
from search.data.readers import load_data
from search.data.sources import Split
from tests.search.data.reader_samples import python2

COUNTS = (200, 100)


def content(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def fine(count: int) -> np.ndarray:
    return np.arange(count) % 100


def write_binary(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for seed, (name, count) in enumerate(zip(("train.bin", "test.bin"), COUNTS, strict=True)):
        labels = np.stack([fine(count) // 5, fine(count)], axis=1).astype(np.uint8)
        (folder / name).write_bytes(np.concatenate([labels, content(count, seed)], axis=1).tobytes())
    (folder / "fine_label_names.txt").write_text("".join(f"class {label}\n" for label in range(100)) + "\n")


def write_python(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for seed, (name, count) in enumerate(zip(("train", "test"), COUNTS, strict=True)):
        value = {
            "filenames": [f"{row}.png" for row in range(count)],
            "batch_label": f"{name} batch 1 of 1",
            "fine_labels": fine(count).tolist(),
            "coarse_labels": (fine(count) // 5).tolist(),
            "data": content(count, seed),
        }
        (folder / name).write_bytes(python2(value))
    names = [f"class {label}" for label in range(100)]
    (folder / "meta").write_bytes(python2({"fine_label_names": names, "coarse_label_names": ["thing"] * 20}))


def test_both_layouts_of_cifar100_hold_the_same(tmp_path: Path) -> None:
    write_binary(tmp_path / "binary")
    write_python(tmp_path / "python")
    data = load_data("cifar100", folder=tmp_path / "binary", rows=COUNTS, validation=0.5)
    assert data.fingerprint == cifar100(tmp_path / "python", rows=COUNTS, validation=0.5).fingerprint
    assert isinstance(data.test, Split)
    np.testing.assert_array_equal(data.test.images.numpy().reshape(-1, 3072), content(100, 1))
    np.testing.assert_array_equal(data.test.labels.numpy(), fine(100))
    assert (len(data.train), len(data.validation), data.num_classes) == (100, 100, 100)
    assert (data.classes[0], data.classes[99]) == ("class 0", "class 99")
    assert (data.augment.crop, data.augment.flip) == (4, True)


def test_cifar10_reads_the_python_version_too(tmp_path: Path) -> None:
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        value = {"data": content(20, seed), "labels": (np.arange(20) % 10).tolist(), "batch_label": name}
        (tmp_path / name).write_bytes(python2(value))
    data = cifar10(tmp_path, rows=20)
    assert isinstance(data.test, Split)
    np.testing.assert_array_equal(data.test.images.numpy().reshape(-1, 3072), content(20, 5))
    assert (len(data.train), len(data.validation)) == (90, 10)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(SecateurError, match=r"data_batch_4 is missing; CIFAR-10 is published at https://www.cs.tor"):
        cifar10(tmp_path, rows=20)


def test_default_folder_is_whichever_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_DATA", str(tmp_path))
    with pytest.raises(SecateurError, match=r"cifar-100-binary is missing; CIFAR-100 is published at https://www"):
        cifar100()
    (tmp_path / "data").mkdir()
    write_python(tmp_path / "data" / "cifar-100-python")
    assert len(cifar100(rows=COUNTS, validation=0.5).test) == 100


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train", {"data": content(9, 0), "fine_labels": [0] * 9}, r"data must be 200 rows of 3072 bytes, but is an a"),
        ("train", {"fine_labels": [0]}, "data must be 200 rows of 3072 bytes, but is a NoneType"),
        ("train", {"data": content(200, 0), "fine_labels": [0]}, "fine_labels must be a list of 200 whole numbers"),
        ("train", {"data": content(200, 0), "fine_labels": [0] * 199 + [100]}, "row 199 has label 100; CIFAR-100 labe"),
        ("train", {"data": content(2, 0).astype(np.int64)}, "is no pickle of .*an array of b'i8' instead of bytes"),
        ("train", [1, 2], "is no pickle of a dictionary of arrays and lists: it holds a list instead"),
        ("meta", {"fine_label_names": ["a"]}, "must hold the names of 100 classes"),
    ],
)
def test_pickles_of_something_else_are_refused(tmp_path: Path, name: str, value: object, message: str) -> None:
    write_python(tmp_path)
    (tmp_path / name).write_bytes(python2(value))
    with pytest.raises(SecateurError, match=message) as caught:
        cifar100(tmp_path, rows=COUNTS)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    write_python(tmp_path)
    whole = (tmp_path / "test").read_bytes()
    for part in (b"", b"no pickle", whole[:1000], whole.replace(b"\x85U\x01b\x87R", b"\x85U\x01b\x87b")):
        (tmp_path / "test").write_bytes(part)
        with pytest.raises(SecateurError, match=r"test is no pickle of a dictionary"):
            cifar100(tmp_path, rows=COUNTS)
    write_binary(tmp_path)
    (tmp_path / "test.bin").write_bytes(b"1234")
    with pytest.raises(SecateurError, match=r"test.bin has 4 bytes; 100 rows of 3074 bytes \(2 labels, then"):
        cifar100(tmp_path, rows=COUNTS)
    (tmp_path / "fine_label_names.txt").unlink()
    with pytest.raises(SecateurError, match=r"fine_label_names.txt is missing; CIFAR-100 is published"):
        cifar100(tmp_path, rows=COUNTS)


def test_arrays_read_as_numpy_itself_reads_them(tmp_path: Path) -> None:
    value = {"data": content(3, 0), "labels": [1, 2], "name": "x"}
    (tmp_path / "file").write_bytes(python2(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files name a module that numpy has renamed since
        truth = pickle.loads(python2(value), encoding="bytes")
    found = read_pickle(tmp_path / "file")
    assert set(found) == {"data", "labels", "name"}
    np.testing.assert_array_equal(found["data"], truth[b"data"])
    assert (found["labels"], found["name"]) == (truth[b"labels"], truth[b"name"]) == ([1, 2], b"x")
    by_columns = np.asfortranarray(content(3, 0))
    (tmp_path / "columns").write_bytes(
        python2({"data": np.frombuffer(by_columns.tobytes("F"), np.uint8).reshape(3, 3072)}).replace(b"\x89T", b"\x88T")
    )
    np.testing.assert_array_equal(read_pickle(tmp_path / "columns")["data"], by_columns)


class Evil:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "was-here"
    content = pickle.dumps({"data": Evil(trace)}, protocol)
    pickle.loads(content)
    assert trace.is_dir(), "the pickle does what it is meant to do where nothing holds it back"
    trace.rmdir()
    (tmp_path / "train").write_bytes(content)
    with pytest.raises(
        SecateurError, match=r"train is refused: it asks for posix.mkdir, but such a file holds nothing"
    ):
        read_pickle(tmp_path / "train")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\x80\x02cos\nsystem\nU\x04true\x85R.", "asks for os.system"),
        (b"\x80\x02cbuiltins\neval\nU\x011\x85R.", "asks for builtins.eval"),
        (b"(U\x04trueios\nsystem\n.", "asks for os.system"),
        (b"\x80\x02cnumpy\nload\nU\x04file\x85R.", "asks for numpy.load"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n.", "asks for numpy.core.multiarray.scalar"),
        (b"\x80\x04\x8c\x05numpy\x8c\x07dtype.a\x93.", "asks for numpy.dtype.a"),
        (b"\x80\x02U\x01xQ.", "asks for the outside object"),
        (b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.", "is no pickle of"),
    ],
)
def test_every_way_to_name_something_is_closed(tmp_path: Path, code: bytes, message: str) -> None:
    (tmp_path / "train").write_bytes(code)
    with pytest.raises(SecateurError, match=message):
        read_pickle(tmp_path / "train")
