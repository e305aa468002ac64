"""Tiny copies of published data sets, in their exact layout on disk."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(path: Path, value: int | np.ndarray, size: tuple[int, int] = (20, 16)) -> None:
    """Writes one image file: all pixels grey of this value, or an array (H, W) or (H, W, 3).

    At quality 100 and without subsampling an even grey comes back from a JPEG file exactly.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0]), value, dtype=np.uint8) if isinstance(value, int) else value
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    Image.fromarray(pixels).convert("RGB").save(path, **options)


def python2(value: object) -> bytes:
    """The pickle of a value as Python 2 writes it with protocol 2, the way the CIFAR files were made."""
    return b"\x80\x02" + _dumped(value) + b"."


def _dumped(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}" + b"".join(_dumped(key) + _dumped(item) + b"s" for key, item in value.items())
    if isinstance(value, list):
        return b"](" + b"".join(_dumped(item) for item in value) + b"e"
    if isinstance(value, np.ndarray):
        shape = b"(" + b"".join(_dumped(length) for length in value.shape) + b"t"
        dtype = b"cnumpy\ndtype\n" + _dumped(value.dtype.str[1:]) + b"K\x00K\x01\x87R"
        dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + _dumped(value.tobytes()) + b"tb"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    text = value.encode() if isinstance(value, str) else value
    assert isinstance(text, bytes)
    return b"T" + struct.pack("<i", len(text)) + text
