"""A study opened from its storage alone shows what the study itself shows, and has nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from torch import nn

import secateur as sc
from backbones.errors import SecateurError
from search.data.data import SplitName
from search.study.metadata import METADATA
from search.training.metrics import measure
from search.training.recipe import Recipe
from tests.launcher import Launcher
from tests.search.study.study_samples import make, small_parts

FAST = Recipe(epochs=1, batch_size=32, distill=0.0)


def without_outline(url: str) -> None:
    """Makes the storage one of an older version."""
    storage = optuna.storages.RDBStorage(url)
    number = storage.get_study_id_from_name("s")
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(
            f"delete from study_user_attributes where key = '{METADATA}' and study_id = {number}"
        )
    storage.engine.dispose()


def test_it_shows_what_the_study_shows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = make(url, tmp_path, small_parts(), budget=sc.Budget(macs=[0.2, 0.4]))
    study.search(12, progress=False)
    study.retrain(top=1, recipe=FAST, progress=False)
    seen = sc.open_study(url)
    assert (seen.name, seen.storage) == ("s", url)
    assert seen.front() == study.front()
    assert seen.front().caps == study.front().caps
    assert len(seen.front().caps) == 2
    [retrained] = [one for one in seen.candidates() if one.accuracy is not None]
    assert retrained.structure == study.structure(retrained.number) == seen.structure(retrained.number)
    assert retrained.artefact is not None
    assert retrained.artefact.is_file()
    assert seen.trials_dataframe().equals(study.trials_dataframe())
    assert seen.made_with["scorer"] == "random, 16 images"
    assert "trials: 12 scored" in str(seen.status())

    study.search(14, progress=False)  # seen at the next look
    assert len(seen.candidates()) == 14


def test_what_is_lost_against_the_dense_network_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, parts, measured = f"sqlite:///{tmp_path}/s.db", small_parts(), list[str]()

    def counted(model: nn.Module, data: sc.Data, split: SplitName, **options: Any) -> float:
        measured.append(split)
        return measure(model, data, split, **options)

    monkeypatch.setattr("search.study.study.measure", counted)
    study = make(url, tmp_path, parts)
    study.search(6, progress=False)
    assert study.front().dense.accuracy is None  # nothing to compare it with yet
    front = study.retrain(top=1, recipe=FAST, progress=False)
    model, _, data = parts
    assert (front.dense.accuracy, front.dense.test_accuracy) == (
        sc.accuracy(model, data, "validation"),
        sc.accuracy(model, data, "test"),
    )
    best = front.best()
    assert best.test_accuracy is not None
    lost = best.test_accuracy - sc.accuracy(model, data, "test")
    [row] = [row for row in front.rows() if row["trial"] == best.number]
    assert row["test_accuracy_change"] == pytest.approx(lost)
    assert f"{lost:+.2%}".rstrip("%").lstrip("+-") in repr(front)
    assert "against dense" in repr(front)
    assert front.to_dataframe()["accuracy_change"].notna().sum() == 1
    make(url, tmp_path, parts).front()
    assert sc.open_study(url).front().dense == front.dense
    assert measured == ["validation", "test"]
    assert repr(study) == f"Study('s', 6 trials, {url!r})"


def test_another_process_needs_the_storage_only(tmp_path: Path, launcher: Launcher) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts())
    study.search(5, progress=False)
    best = study.front().best()
    code = (
        "import secateur as sc\n"
        "best = sc.open_study('sqlite:///s.db').front().best(macs='30%')\n"
        "print(best.id, best.cost.macs, sum(best.structure.widths.values()))"
    )
    said = launcher.printed(code, tmp_path)
    assert best.structure is not None
    assert best.cost is not None
    assert said.split() == [best.id, str(best.cost.macs), str(sum(best.structure.widths.values()))]


def test_a_run_folder_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(f"sqlite:///{tmp_path}/study.db", tmp_path, small_parts()).search(3, progress=False)
    monkeypatch.chdir(tmp_path.parent)
    assert len(sc.open_study(tmp_path.name).candidates()) == 3


def test_a_storage_of_an_older_version_stays_readable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    parts = small_parts()
    study = make(url, tmp_path, parts)
    study.search(6, progress=False)
    whole = study.front()
    without_outline(url)
    old = sc.open_study(url)
    front = old.front()
    assert [(one.cost, one.score) for one in front.candidates] == [(one.cost, one.score) for one in whole.candidates]
    assert [one.label for one in front.candidates] == [one.id for one in whole.candidates]
    assert front.dense.cost is None
    assert front.scorer == "random"
    assert front.best().name == whole.best().id
    with pytest.raises(SecateurError, match="no trial 0 with a structure; an older version made it: open it once with"):
        old.structure(0)

    make(url, tmp_path, parts)  # opened once with its network
    assert sc.open_study(url).front() == whole


def test_it_has_only_what_a_storage_can_give(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    make(url, tmp_path, small_parts()).search(1, progress=False)
    seen = sc.open_study(url)
    assert not any(hasattr(seen, name) for name in ("search", "work", "retrain", "model", "graph", "data"))
    with pytest.raises(SecateurError, match=r"study 's' has no trial 99 with a structure$"):
        seen.structure(99)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with pytest.raises(SecateurError, match="it does not exist"):
        sc.open_study(url)
    with pytest.raises(SecateurError, match="is neither a run folder"):
        sc.open_study(tmp_path)
    make(url, tmp_path, small_parts())
    make(url, tmp_path, small_parts(), name="other")
    with pytest.raises(SecateurError, match=r"has 2 studies \('s', 'other'\); say which one"):
        sc.open_study(url)
    with pytest.raises(SecateurError, match="has no study 'third'; it has 's', 'other'"):
        sc.open_study(url, "third")
    optuna.create_study(study_name="foreign", storage=url)
    with pytest.raises(SecateurError, match=r"'foreign' in .* is not secateur's"):
        sc.open_study(url, "foreign")


def test_an_edited_outline_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = make(url, tmp_path, small_parts())
    study.optuna_study.set_user_attr(METADATA, {"groups": 3})
    with pytest.raises(SecateurError, match="the stored outline of the study cannot be read"):
        sc.open_study(url)
