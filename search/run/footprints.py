"""Latency and size on disk of a run's networks, measured side by side and kept in its record."""

from __future__ import annotations

import dataclasses

from backbones.artefact import load as load_artefact
from backbones.modes import device_of
from search.review.footprint import Footprint, footprints
from search.review.front import Front
from search.run.folder import RunFolder
from search.run.prepare import Start

FOOTPRINT_BATCH = 128


def with_footprints(front: Front, start: Start, folder: RunFolder) -> Front:
    """The front with latency and size on disk of the dense and the retrained networks.

    All are measured side by side in one go, on the CPU or GPU that the run uses, and again only when another network
    has been retrained since; `run.json` keeps the figures.
    """
    trained = {one.id: one.artefact for one in front.candidates if one.artefact is not None}
    if not trained:
        return front
    known = folder.record().get("footprints", {})
    if set(known) != {"dense", *trained}:
        models = {"dense": start.model, **{key: load_artefact(path, start.model) for key, path in trained.items()}}
        homes = {name: device_of(model) for name, model in models.items()}
        images, _ = next(start.data.batches("validation", FOOTPRINT_BATCH))
        try:
            found = footprints(
                {name: model.to(start.device) for name, model in models.items()}, images.to(start.device)
            )
        finally:
            for name, model in models.items():
                model.to(homes[name])
        known = {name: dataclasses.asdict(one) for name, one in found.items()}
        folder.note(footprints=known)
    sizes = {name: Footprint(**one) for name, one in known.items()}
    return dataclasses.replace(
        front,
        dense=dataclasses.replace(front.dense, footprint=sizes["dense"]),
        candidates=tuple(
            dataclasses.replace(one, footprint=sizes[one.id]) if one.artefact is not None else one
            for one in front.candidates
        ),
    )
