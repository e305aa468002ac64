"""The official binary layout, on small files of the same form and, where it is there, on the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backbones.errors import SecateurError
from search.data.cifar import TEST_FILE, TRAIN_FILES, cifar10
from search.data.readers import load_data
from search.data.sources import Split

ROWS = 20
ROW = 1 + 3 * 32 * 32


def write(folder: Path) -> np.ndarray:
    """(6, 20, 3073) bytes in six files, two images of every class in each."""
    content = np.random.default_rng(0).integers(0, 256, (6, ROWS, ROW), dtype=np.uint8)
    content[:, :, 0] = np.arange(ROWS) % 10
    for rows, name in zip(content, (*TRAIN_FILES, TEST_FILE), strict=True):
        (folder / name).write_bytes(rows.tobytes())
    return content


def test_rows_are_a_label_and_three_planes(tmp_path: Path) -> None:
    content = write(tmp_path)
    data = cifar10(tmp_path, rows=ROWS)
    assert isinstance(data.test, Split)
    assert (len(data.train), len(data.validation)) == (90, 10)
    np.testing.assert_array_equal(data.test.labels.numpy(), content[5, :, 0])
    assert int(data.test.images[7, 2, 4, 31]) == content[5, 7, 1 + 2 * 1024 + 4 * 32 + 31]


def test_default_folder_is_below_secateur_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    write(folder)
    monkeypatch.setenv("SECATEUR_DATA", str(tmp_path))
    assert load_data("cifar10", rows=ROWS).fingerprint == cifar10(folder, rows=ROWS).fingerprint
    monkeypatch.delenv("SECATEUR_DATA")
    with pytest.raises(SecateurError, match=r"set SECATEUR_DATA .*data/cifar-10-batches-bin"):
        cifar10()


def test_missing_file_names_all_expected(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(
        SecateurError, match=r"data_batch_3.bin is missing.*data_batch_1.bin to data_batch_5.bin and test"
    ):
        cifar10(tmp_path, rows=ROWS)


def test_wrong_size_and_label_are_refused(tmp_path: Path) -> None:
    content = write(tmp_path)
    with pytest.raises(SecateurError, match=r"has 61460 bytes; 10000 rows of 3073 bytes .* make 30730000"):
        cifar10(tmp_path)
    content[5, 4, 0] = 11
    (tmp_path / TEST_FILE).write_bytes(content[5].tobytes())
    with pytest.raises(SecateurError, match="row 4 has label 11; CIFAR-10 labels are 0 to 9"):
        cifar10(tmp_path, rows=ROWS)


def test_other_class_counts_only_warn(tmp_path: Path) -> None:
    content = write(tmp_path)
    content[5, 0, 0] = 5
    (tmp_path / TEST_FILE).write_bytes(content[5].tobytes())
    with pytest.warns(UserWarning, match="test images a class"):
        cifar10(tmp_path, rows=ROWS)


def test_real_files_have_the_published_statistics(shared_data: Path) -> None:
    data = load_data("cifar10", folder=shared_data / "data" / "cifar-10-batches-bin")
    assert isinstance(data.train, Split)
    assert len(data.train) == 45_000
    # Means .4914 .4822 .4465 and deviations .2470 .2435 .2616 of the 50,000 training images are the usual figures.
    mean, std = data.train.moments()
    np.testing.assert_allclose(mean, data.mean, atol=2e-3)
    np.testing.assert_allclose(std, data.std, atol=2e-3)
