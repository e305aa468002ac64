"""Runs a model to look at it, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.modes import evaluating
from backbones.program import first_line


@contextmanager
def measuring(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Eval mode on one core for the length of a block; every module's mode and the thread count come back after it.

    One core, because the order in which several cores add up gradients is not theirs to promise.

    Raises:
        SecateurError: when the model fails on the images.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(model):
            yield
    except SecateurError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shape = tuple(images.shape)
        raise SecateurError(f"the model cannot be measured on data of shape {shape}: {first_line(error)}") from error
    finally:
        torch.set_num_threads(threads)
