"""The commands around a shared study: work, status, --fork, --jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.cli import main
from tests.search.test_cli import MODULE, STUDY


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_work_status_and_fork_go_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["work", "study.toml"]) == 2
    assert "workers need one dense network" in capsys.readouterr().err
    assert main(["search", "study.toml", "--jobs", "2", "--quiet"]) == 0
    assert main(["status", "runs/tiny"]) == 0
    assert "trials: 8 scored" in capsys.readouterr().out
    assert main(["work", "study.toml", "--trials", "12", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["trials"] == 12
    assert len(result["retrained"]) == 2
    assert main(["status", "runs/tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["retrained"] == {"scored": 2}
    assert told["trials"]["scored"] + told["trials"].get("infeasible", 0) == 12

    (folder / "new.toml").write_text(STUDY.replace('"tiny"\n[model]', '"new"\n[model]').replace("30%..50%", "20%..45%"))
    assert main(["search", "new.toml", "--fork", "runs/tiny", "--trials", "20"]) == 0
    assert "taken from runs/tiny: " in capsys.readouterr().out
    assert main(["search", "new.toml", "--fork", "runs/tiny", "--trials", "22"]) == 0  # goes on
    assert "has trials of its own" in capsys.readouterr().out
    assert main(["search", "new.toml", "--fork", "runs/new"]) == 2
    assert "cannot be forked from itself" in capsys.readouterr().err


def test_status_of_what_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "runs/none"]) == 2
    assert main(["status", "sqlite:///none.db"]) == 2
    assert main(["status", "postgresql+psycopg://me:hunter2@127.0.0.1:1/none"]) == 2
    said = capsys.readouterr().err
    assert said.count("secateur: error:") == 3
    assert "hunter2" not in said
    assert not (folder / "none.db").exists()
