"""Batch augmentation against what it would do image by image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from backbones.errors import SecateurError
from search.data.augment import Augment


def images(count: int = 64, size: int = 6, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 2, size, size), generator=generator).to(dtype)


@given(st.integers(1, 3), st.booleans(), st.integers(0, 3))
def test_every_image_is_a_window_of_its_padded_self(border: int, flip: bool, seed: int) -> None:
    batch = images()
    result = Augment(crop=border, flip=flip)(batch, torch.Generator().manual_seed(seed))
    padded = F.pad(batch, (border,) * 4)
    for padded_image, found in zip(padded, result, strict=True):
        windows = padded_image.unfold(1, 6, 1).unfold(2, 6, 1).permute(1, 2, 0, 3, 4).reshape(-1, 2, 6, 6)
        choices = torch.cat([windows, windows.flip(3)]) if flip else windows
        assert bool((choices == found).flatten(1).all(1).any())


def test_flip_turns_about_half() -> None:
    batch = images(2000)
    result = Augment(flip=True)(batch, torch.Generator().manual_seed(0))
    turned = (result == batch.flip(3)).flatten(1).all(1)
    assert bool((turned | (result == batch).flatten(1).all(1)).all())
    assert 0.45 < float(turned.float().mean()) < 0.55


def test_all_shifts_are_drawn() -> None:
    batch = torch.zeros(3000, 1, 5, 5)
    batch[:, 0, 2, 2] = 1
    result = Augment(crop=2)(batch, torch.Generator().manual_seed(0))
    share = result.mean(0)[0]
    assert bool((share > 0.02).all())
    assert float(share.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutout_blanks_one_square_with_the_fill_colour(dtype: torch.dtype) -> None:
    batch = images(500, 9, dtype)
    fill = torch.tensor([0, 7])
    result = Augment(cutout=3)(batch, torch.Generator().manual_seed(0), fill)
    changed = (result == fill.to(dtype)[None, :, None, None]).all(1)
    sizes = changed.flatten(1).sum(1)
    assert int(sizes.max()) == 9
    assert int(sizes.min()) == 4
    keep = ~changed[:, None].expand_as(batch)
    assert torch.equal(result[keep], batch[keep])
    assert result.dtype == dtype


def test_same_generator_state_same_draw_and_nothing_to_do_is_free() -> None:
    batch = images()
    everything = Augment(crop=2, flip=True, cutout=2)
    first, again = (everything(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert Augment()(batch, torch.Generator()) is batch


def test_bad_settings_are_refused() -> None:
    with pytest.raises(
        SecateurError, match=r"augment\.crop must be a whole number of pixels, 0 to 512, but got crop=-1"
    ):
        Augment(crop=-1)
