"""Run folders that were moved, copied, half deleted, damaged, edited, or lie where nothing can be written."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import secateur
from search.cli import main
from search.review.front import Front
from tests.search.study.test_storage import read_only
from tests.search.test_cli import MODULE, STUDY, called, refused


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run whose dense network is a checkpoint beside its study file."""
    place, before = tmp_path_factory.mktemp("finished"), Path.cwd()
    (place / "tiny.py").write_text(MODULE)
    (place / "study.toml").write_text(STUDY)
    os.chdir(place)
    try:
        assert main(["search", "study.toml", "--runs", "first", "-q"]) == 0
        shutil.copyfile("first/tiny/dense.safetensors", "dense.safetensors")
        shutil.rmtree("first")
        (place / "study.toml").write_text(STUDY.replace('net"', 'net"\ncheckpoint = "dense.safetensors"', 1))
        assert main(["run", "study.toml", "-q"]) == 0
        yield place
    finally:
        os.chdir(before)
        sys.modules.pop("tiny", None)


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of all of it somewhere else, where the test works; the original is out of reach."""
    there = tmp_path / "elsewhere"
    shutil.copytree(finished, there)
    monkeypatch.chdir(there)
    hidden = finished.with_name("hidden")
    finished.rename(hidden)
    yield there
    hidden.rename(finished)
    sys.modules.pop("tiny", None)


RUN = Path("runs/tiny")


def networks(folder: Path = RUN) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("retrain/*/network.safetensors"))}


def test_a_project_that_was_moved_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = networks()
    assert len(before) == 2
    best = secateur.open_study(RUN).front().best()
    assert best.artefact is not None
    assert best.artefact.is_relative_to(project)
    code, _, err = called(capsys, "resume", str(RUN), "--trials", "10", "-q")
    assert code == 0, err
    assert networks() | before == networks()
    assert str(project / "dense.safetensors") in (RUN / "study.toml").read_text()
    code, _, err = called(capsys, "run", "study.toml", "--trials", "10", "-q")  # and is no other study
    assert code == 0, err
    (project / "runs").rename(project / "moved")  # the folder alone
    code, _, err = called(capsys, "resume", "moved/tiny", "-q")
    assert code == 0, err
    assert all(one.artefact is None or one.artefact.is_file() for one in Front.load("moved/tiny").candidates)


def test_a_copy_is_a_run_of_its_own(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("runs", "copied")
    shutil.rmtree("copied/tiny/retrain")
    before, here = networks(), (RUN / "best.safetensors").stat().st_mtime_ns
    code, _, err = called(capsys, "resume", "copied/tiny", "-q")
    assert code == 0, err
    assert networks(Path("copied/tiny")).keys() == before.keys()  # retrained, where they were deleted
    assert networks() == before
    assert (RUN / "best.safetensors").stat().st_mtime_ns == here
    artefact = Front.load("copied/tiny").best().artefact
    assert artefact is not None
    assert artefact.resolve().is_relative_to(project / "copied")
    code, _, err = called(capsys, "report", str(RUN), "copied/tiny", "-o", "both")
    assert code == 0, err
    names = {one["name"] for one in json.loads(Path("both/front.json").read_text())["fronts"]}
    assert names == {"runs/tiny", "copied/tiny"}


@pytest.mark.parametrize("harm", ["truncated", "flipped", "exchanged", "deleted"])
def test_a_damaged_network_is_retrained_and_never_taken_for_the_best(
    project: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    front = Front.load(RUN)
    best, good = front.best(), (RUN / "best.safetensors").read_bytes()
    assert best.artefact is not None
    content = best.artefact.read_bytes()
    if harm == "truncated":
        best.artefact.write_bytes(content[:-40])
    elif harm == "flipped":
        best.artefact.write_bytes(content[:-40] + bytes(255 - byte for byte in content[-40:]))
    elif harm == "exchanged":
        other = next(path for path in RUN.glob("retrain/*/network.safetensors") if path != best.artefact)
        shutil.copyfile(other, best.artefact)
    else:
        best.artefact.unlink()
    with pytest.raises(secateur.SecateurError):
        best.save(RUN / "best.safetensors")
    assert (RUN / "best.safetensors").read_bytes() == good
    code, _, err = called(capsys, "resume", str(RUN), "-q")
    assert code == 0, err
    assert secateur.open_study(RUN).status().retrained["scored"] == 3
    told = secateur.open_study(RUN).front().best()
    assert told.id == best.id
    assert told.accuracy == best.accuracy
    told.save("again.safetensors")
    assert not list(RUN.rglob("*.part"))


def test_a_storage_that_was_edited_names_no_file_outside(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("secret.txt").write_text("secret")
    with closing(sqlite3.connect(RUN / "study.db")) as database:
        changed = database.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'artefact'",
            [json.dumps(str(Path("secret.txt").resolve()))],
        )
        assert changed.rowcount == 2
        database.commit()
    good = (RUN / "best.safetensors").read_bytes()
    assert "a stored network has the path" in refused(capsys, "resume", str(RUN), "-q")
    assert (RUN / "best.safetensors").read_bytes() == good


def test_a_finished_study_on_a_read_only_mount(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with read_only(project / "runs"):
        study = secateur.open_study(RUN)
        assert len(study.front().candidates) == 8
        study.front().best().save("small.safetensors")
        for command in (["status", str(RUN)], ["report", str(RUN), "-o", "page"]):
            code, _, err = called(capsys, *command)
            assert code == 0, err
    assert (project / "page/report.html").is_file()


def test_a_report_before_there_is_a_front_says_how_far_the_run_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("front.json", "front.csv"):
        (RUN / name).unlink()
    far = "has no front to report yet: its search has 8 of 8 trials, 2 retrainings done and 0 running; "
    assert far in refused(capsys, "report", str(RUN))
    (RUN / "study.db").unlink()
    assert "has no front to report yet: its search has not begun" in refused(capsys, "report", str(RUN))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("12", "14", "3.weight has shape (12, 8, 3, 3) there, (14, 8, 3, 3) in what [model] makes now; put its code"),
        ("12", "10", "dense.safetensors does not fit the model Sequential: "),
        ("BatchNorm2d(12), nn.ReLU()", "BatchNorm2d(12), nn.Tanh()", "the code of model's forward"),
    ],
)
def test_a_run_after_an_edit_of_ones_own_network_ends_in_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    before, text = networks(), Path("tiny.py").read_text()
    assert old in text
    sys.modules.pop("tiny", None)
    Path("tiny.py").write_text(text.replace(old, new))
    for command in (("run", "study.toml"), ("resume", str(RUN))):
        assert said in refused(capsys, *command, "-q")
    assert networks() == before


MADE_AGAIN = ("refitted", "refitted.safetensors", "front.json", "front.csv", "report.html", "plots")


@pytest.mark.parametrize("gone", [MADE_AGAIN, ("run.json", "best.safetensors")], ids=["results", "record"])
def test_what_is_gone_of_a_folder_is_made_again(
    project: Path, capsys: pytest.CaptureFixture[str], gone: tuple[str, ...]
) -> None:
    before = networks()
    for path in (RUN / name for name in gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copyfile("tiny.py", RUN / "tiny.py")  # without its record nothing knows where the study file was
    code, _, err = called(capsys, "resume", str(RUN), "-q")
    assert code == 0, err
    assert all((RUN / name).exists() for name in gone)
    assert networks() == before
