"""Image files to pixels, kept as a memory map: values, reuse, interruption, corrupt files, memory."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import types
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backbones.errors import SecateurError
from search.data import decoded as module
from search.data import pictures
from search.data.data import Data
from search.data.decoded import Decoded, DecodeJob, cache_folder, decoded, key_of
from search.data.pictures import ImageFile, View, read_pictures
from search.data.sources import Split, split_off
from tests.search.data.reader_samples import picture

SHAPE = (3, 64, 64)


def some(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def kept(folder: Path, count: int = 6, key: str = "key") -> Decoded:
    """Decodes `some` images, which are the items themselves."""
    return decoded(folder, "some", key, lambda: DecodeJob(list(some(count)), lambda item: item, SHAPE, {"a": [1]}))


def never(*_: object, **__: object) -> np.ndarray:
    raise AssertionError("decoded twice")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def written(folder: Path) -> list[ImageFile]:
    """Four pictures in two classes: 20 x 16 pixels of one grey each."""
    found = [ImageFile(folder / f"{number}.jpg", number % 2) for number in range(4)]
    for number, item in enumerate(found):
        picture(item.path, 40 * number)
    return found


def test_the_middle_square_is_kept_and_the_strip_is_not(tmp_path: Path) -> None:
    pixels = np.zeros((26, 40), dtype=np.uint8)
    pixels[:20, 10:30] = 200  # the middle of what is left without six rows at the bottom
    picture(tmp_path / "a.png", pixels)
    picture(tmp_path / "b.png", pixels.T.copy())
    item = ImageFile(tmp_path / "a.png", 0)
    view = View(20, strip=6)
    assert (read_pictures("a", tmp_path, [item], view).images == 200).all()
    assert read_pictures("a", tmp_path, [item], View(10, strip=6)).shape == (3, 10, 10)
    tall = read_pictures("a", tmp_path, [ImageFile(tmp_path / "b.png", 0)], View(26, grey=True))
    np.testing.assert_array_equal(tall.images[0, 0], pixels.T[7:33])
    box = read_pictures("a", tmp_path, [ImageFile(tmp_path / "a.png", 0, (10, 0, 20, 10))], View(10))
    assert (box.images == 200).all()
    beyond = read_pictures("a", tmp_path, [ImageFile(tmp_path / "a.png", 0, (20, 0, 99, 99))], View(20, strip=6))
    assert (beyond.images[0, 0, :, :10] == 200).all()
    assert (beyond.images[0, 0, :, 10:] == 0).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.floats(0, 0.9), st.floats(0.1, 1))
def test_any_shape_and_box_gives_a_square_of_the_colours_inside(
    width: int, height: int, size: int, grey: bool, start: float, share: float
) -> None:
    pixels = np.random.default_rng(width).integers(50, 200, (height, width, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    left, top = start * (width - 1), start * (height - 1)
    box = (left, top, min(width, left + 1 + share * width), min(height, top + 1 + share * height))
    found = pictures.decode(ImageFile(file, 0, box), View(size, grey=grey), Image)  # type: ignore[arg-type]
    assert found.shape == (1 if grey else 3, size, size)
    assert found.dtype == np.uint8
    assert found.min() >= pixels.min() - 1
    assert found.max() <= pixels.max() + 1


def test_colours_come_in_their_order_and_every_mode_is_read(tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 3), dtype=np.uint8)
    colour[...] = (250, 128, 2)
    image = Image.fromarray(colour)
    for mode in ("RGB", "P", "RGBA", "L", "1", "LA"):
        image.convert(mode).save(tmp_path / f"{mode}.png")
    image.convert("CMYK").save(tmp_path / "CMYK.tif")
    see_through = image.convert("P")
    see_through.save(tmp_path / "bytes.png", transparency=bytes(range(256)))
    files = sorted(tmp_path.iterdir())
    found = read_pictures("modes", tmp_path, [ImageFile(path, 0) for path in files], View(4))
    by_name = {path.name: pixels[:, 0, 0].tolist() for path, pixels in zip(files, found.images, strict=True)}
    assert by_name["RGB.png"] == by_name["RGBA.png"] == by_name["CMYK.tif"] == [250, 128, 2]
    assert by_name["L.png"] == by_name["LA.png"] == [by_name["L.png"][0]] * 3
    assert by_name["P.png"] == by_name["bytes.png"]
    Image.fromarray(np.full((4, 4), 3000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SecateurError, match=r"deep.png has more than 8 bits a channel"):
        read_pictures("modes", tmp_path, [ImageFile(tmp_path / "deep.png", 0)], View(4))


def test_the_second_time_nothing_is_decoded_until_a_file_changes(tmp_path: Path) -> None:
    items, view, home = written(tmp_path), View(16), tmp_path
    first = read_pictures("four", home, items, view)
    assert first.images[:, 0, 0, 0].tolist() == [0, 40, 80, 120]
    assert first.labels.tolist() == [0, 1, 0, 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "decode", never)
        again = read_pictures("four", home, items, view)
        assert torch.equal(again.images, first.images)
        assert again.content == first.content
        with pytest.raises(AssertionError, match="decoded twice"):
            read_pictures("four", home, items, View(8))
        os.utime(items[0].path, ns=(1, 1))
        with pytest.raises(AssertionError, match="decoded twice"):
            read_pictures("four", home, items, view)
    picture(items[0].path, 240)
    assert read_pictures("four", home, items, view).images[0, 0, 0, 0] == 240


def test_the_cache_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = written(tmp_path / "home")
    monkeypatch.delenv("SECATEUR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "usual"))
    usual = cache_folder(None, tmp_path / "home")
    assert (usual.parent, usual.name[:-8]) == (tmp_path / "usual" / "secateur", "home-")
    assert usual != cache_folder(None, tmp_path / "other" / "home")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(None, tmp_path).is_relative_to(Path.home())
    (tmp_path / "old" / ".secateur").mkdir(parents=True)
    assert cache_folder(None, tmp_path / "old") == tmp_path / "old" / ".secateur"
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "environment"))
    read_pictures("four", tmp_path / "home", items, View(8))
    read_pictures("four", tmp_path / "home", items, View(8), cache=tmp_path / "given")
    assert names(tmp_path / "environment") == names(tmp_path / "given") != []
    assert not (tmp_path / "home" / ".secateur").exists()
    (tmp_path / "file").touch()
    with pytest.raises(SecateurError, match=r"file/four-8-\w+.npy cannot be written: .*set SECATEUR_CACHE to a folder"):
        read_pictures("four", tmp_path / "home", items, View(8), cache=tmp_path / "file")


def test_a_corrupt_picture_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    items = written(tmp_path)
    whole = items[2].path.read_bytes()
    for broken in (whole[:-200], b"", b"\xff\xd8 no picture"):
        items[2].path.write_bytes(broken)
        with pytest.raises(
            SecateurError, match=r"/2.jpg cannot be read as an image: .*; fetch the file again"
        ) as caught:
            read_pictures("four", tmp_path, items, View(8))
        assert "\n" not in str(caught.value)
        assert names(cache_folder(None, tmp_path)) == []
    items[2].path.unlink()
    with pytest.raises(SecateurError, match=rf"{tmp_path}: 2.jpg is missing"):
        read_pictures("four", tmp_path, items, View(8))


def test_a_box_that_leaves_nothing_is_named(tmp_path: Path) -> None:
    [item, *_] = written(tmp_path)
    outside = ImageFile(item.path, 0, (30, 0, 40, 10))
    with pytest.raises(SecateurError, match="nothing is left of 20 x 16 pixels after cutting to 30, 0, 20, 10"):
        read_pictures("four", tmp_path, [outside], View(8))
    for size in (0, 5000, 2.5, True):
        with pytest.raises(SecateurError, match="1 <= size <= 4096 pixels must hold, but got size="):
            View(size)  # type: ignore[arg-type]


def test_without_pillow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = written(tmp_path)
    read_pictures("four", tmp_path, items, View(8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert len(read_pictures("four", tmp_path, items, View(8))) == 4, "decoded images need no Pillow"
    with pytest.raises(SecateurError, match=r"image files need Pillow; .*: pip install pillow"):
        read_pictures("four", tmp_path, items, View(9))


def test_interrupted_decoding_leaves_nothing_and_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = iter(range(100))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell

    def decode(item: np.ndarray) -> np.ndarray:
        if next(ready) == 20:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        return item

    monkeypatch.setattr(module, "_BLOCK", 1)
    monkeypatch.setattr(module, "cpu_count", lambda: 1)  # eight images are written before the next are decoded
    try:
        with pytest.raises(KeyboardInterrupt):
            decoded(tmp_path, "some", "key", lambda: DecodeJob(list(some(40)), decode, SHAPE))
    finally:
        signal.signal(signal.SIGINT, before)
    assert names(tmp_path) == []
    np.testing.assert_array_equal(kept(tmp_path).images, some())
    assert len(names(tmp_path)) == 2


def test_what_a_killed_process_left_does_not_count_and_is_cleared_away(tmp_path: Path) -> None:
    kept(tmp_path)
    (tmp_path / "some-key.json").unlink()  # killed between the two files
    (tmp_path / "some-key.npy").write_bytes(b"half")
    (tmp_path / ".some-key.npy.x1.part").write_bytes(b"half")
    (tmp_path / ".some-other.npy.x1.part").write_bytes(b"of another")
    np.testing.assert_array_equal(kept(tmp_path).images, some())
    assert names(tmp_path) == [".some-other.npy.x1.part", "some-key.json", "some-key.npy"]


def test_a_broken_cache_is_told_of_and_made_again(tmp_path: Path) -> None:
    kept(tmp_path)
    array, facts = tmp_path / "some-key.npy", tmp_path / "some-key.json"
    content, text = array.read_bytes(), facts.read_text()

    def broken(path: Path, change: bytes) -> None:
        path.write_bytes(change)
        with pytest.warns(UserWarning, match=r"cache .*some-key.npy cannot be read and is made again: "):
            np.testing.assert_array_equal(kept(tmp_path).images, some())

    broken(array, content[:-10])
    broken(array, b"")
    broken(facts, b"{")
    broken(facts, b"[]")
    broken(facts, json.dumps({**json.loads(text), "shape": [1, 3, 64, 64]}).encode())
    assert array.read_bytes() == content
    assert facts.read_text() == text


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    kept(tmp_path)
    np.save(tmp_path / "some-key.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.warns(UserWarning, match="cannot be read and is made again"):
        assert kept(tmp_path).content


def test_a_full_disk_is_told_of_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.data.decoded.shutil.disk_usage", lambda path: types.SimpleNamespace(free=10_000))
    with pytest.raises(SecateurError, match=r"cannot be written: 0.0 GB are needed, 0.0 GB are free; give cache=..."):
        kept(tmp_path)
    assert names(tmp_path) == []


def test_of_several_at_once_one_decodes_and_the_others_wait(tmp_path: Path) -> None:
    calls: list[int] = []

    def decode(item: np.ndarray) -> np.ndarray:
        calls.append(1)
        time.sleep(0.02)
        return item

    found: list[Decoded] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                decoded(tmp_path, "some", "key", lambda: DecodeJob(list(some()), decode, SHAPE))
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 6
    assert all(torch.equal(one.images, found[0].images) for one in found)
    assert len(found) == 3


def test_keys_tell_apart_what_matters() -> None:
    assert key_of(View(8), [("a", 1, 2)]) == key_of(View(8), [("a", 1, 2)])
    assert len({key_of(View(8), "a"), key_of(View(9), "a"), key_of(View(8, grey=True), "a"), key_of(View(8), "b")}) == 4


def resident(path: Path) -> tuple[int, int]:
    """(mapped, in memory) kB of a file in this process."""
    text = Path("/proc/self/smaps").read_text()
    [part] = re.findall(rf"{re.escape(str(path))}\n(Size:.*?VmFlags)", text, flags=re.DOTALL)
    sizes = dict(re.findall(r"^(Size|Rss): +(\d+) kB", part, flags=re.MULTILINE))
    return int(sizes["Size"]), int(sizes["Rss"])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux to tell what is in memory")
def test_only_the_images_that_are_looked_at_come_into_memory(tmp_path: Path) -> None:
    count = 800  # 9.8 MB
    kept(tmp_path, count)
    everything = kept(tmp_path, count).split([number % 2 for number in range(count)])
    train, test = split_off(everything, 0.5, 2, 0, "here")
    data = Data.from_tensors("some", train, test, mean=(0.5,) * 3, std=(0.5,) * 3)
    path = tmp_path / "some-key.npy"
    assert data.fingerprint
    mapped, used = resident(path)
    assert mapped >= count * 12 > 20 * used
    images, labels = data.batch(4)
    assert (images.shape, labels.shape) == ((4, *SHAPE), (4,))
    assert used <= resident(path)[1] < mapped / 2
    assert isinstance(data.train, Split)
    assert data.train.pool.data_ptr() == test.pool.data_ptr()
    before = path.read_bytes()
    everything.pool[0] += 1  # nothing that is written to the tensor reaches the file
    assert path.read_bytes() == before


def test_a_mapped_split_gives_what_the_same_split_in_memory_gives(tmp_path: Path) -> None:
    everything = kept(tmp_path, 40).split([number % 4 for number in range(40)])
    held = Split(torch.from_numpy(some(40)), everything.labels)
    mapped, plain = (
        Data.from_tensors("some", *split_off(split, 0.25, 4, 3, "here"), validation=0.2, seed=5)
        for split in (everything, held)
    )
    assert mapped.mean == plain.mean
    assert mapped.std == plain.std
    for name in ("train", "validation", "test"):
        one, other = mapped.source(name), plain.source(name)
        assert isinstance(one, Split)
        assert isinstance(other, Split)
        assert one.rows is not None
        assert other.rows is None
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.nbytes == other.nbytes == other.pool.nbytes
        moved = one.to(torch.device("cpu"))
        assert moved.rows is None
        assert torch.equal(moved.pool, other.pool)
        for size in (1, 7, 100):
            for (a, b), (c, d) in zip(mapped.batches(name, size), plain.batches(name, size), strict=True):
                assert torch.equal(a, c)
                assert torch.equal(b, d)
    assert torch.equal(mapped.example, plain.example)
    for a, b in zip(mapped.batch(9, 1), plain.batch(9, 1), strict=True):
        assert torch.equal(a, b)


def test_fingerprints_of_mapped_data_follow_content_rows_and_labels(tmp_path: Path) -> None:
    labels = [number % 2 for number in range(12)]

    def data(images: Decoded, labels: list[int], seed: int = 0) -> str:
        train, test = split_off(images.split(labels), 0.5, 2, seed, "here")
        return Data.from_tensors("some", train, test, mean=(0.5,) * 3, std=(0.5,) * 3, seed=0).fingerprint

    one, same, other = kept(tmp_path / "a", 12), kept(tmp_path / "b", 12), kept(tmp_path / "a", 13, key="other")
    assert data(one, labels) == data(same, labels)
    assert len({data(one, labels), data(one, labels[::-1]), data(one, labels, 1), data(other, [*labels, 0])}) == 4
