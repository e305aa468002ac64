"""A run as one of many processes, on any number of machines, that share a storage: `secateur work`."""

from __future__ import annotations

from typing import Any

from backbones.errors import SecateurError
from search.run.console import Console
from search.run.folder import RunFolder
from search.run.prepare import ensure_dense, prepare
from search.run.stages import finish, open_study
from search.run.study_file import StudyFile
from search.study.storage import shown_url
from search.training.parallel import fitting_threads


def work(
    study: StudyFile, folder: RunFolder, console: Console, *, storage: str | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Shares the search and the retraining with all other workers, and writes the report of what all have found.

    Args:
        study: the settings; the same for all workers.
        folder: this worker's run folder; several workers of one machine may have the same.
        console: where the user reads on.
        storage: URL; the run folder's own database when not given.
        device: for training.

    Returns:
        the result as plain values, for `--json`.

    Raises:
        SecateurError: without a dense network that all workers agree on; while a search on its own is at work.
    """
    if not study.search.searches:
        raise SecateurError("a [search] rule or structure leaves nothing to share out; `secateur run` does it alone")
    if study.model.checkpoint is None and not folder.dense.is_file():
        raise SecateurError(
            f"workers need one dense network that all start from: a [model] checkpoint, or {folder.shown}/"
            f"dense.safetensors, which `secateur search` makes"
        )
    url = storage or folder.storage
    try:
        start = prepare(study, folder, device)
        ensure_dense(start, study, folder, console)
        with fitting_threads(start.graph.costs.dense.macs, study.search.batch):
            opened = open_study(study, start, folder, url)
            console.head(f"Working on {study.name} in {shown_url(url)}")
            opened.work(
                study.search.trials,
                top=study.retrain.top,
                recipe=study.retrain.recipe,
                flow=study.retrain.way,
                device=start.device,
                progress=console.progress,
            )
        return finish(opened, start, folder, console)
    except KeyboardInterrupt as stop:
        stop.add_note("to go on: the same command; other workers do not wait for this one")
        raise
