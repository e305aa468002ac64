"""Fingerprints of weights: the same number today as in every stored study."""

from __future__ import annotations

import torch
from torch import nn

from backbones.fingerprint import fingerprint


def counted() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for number, value in enumerate(model.state_dict().values()):
            value.copy_(torch.arange(value.numel()).reshape(value.shape) + number)
    return model


def test_the_fingerprint_of_known_weights_never_changes() -> None:
    assert fingerprint(counted()) == "6b7e14c286b34889"


def test_values_names_shapes_and_types_matter_and_the_device_layout_does_not() -> None:
    model = counted()
    known = fingerprint(model)
    weight = model.get_parameter("0.weight")
    weight.data = weight.data.T.contiguous().T
    assert fingerprint(model) == known
    assert fingerprint(counted().double()) != known
    assert fingerprint(nn.Sequential(*reversed(list(counted())))) != known
    with torch.no_grad():
        model.get_parameter("0.bias")[0] += 1
    assert fingerprint(model) != known
