"""SIGKILL at random moments, again and again: the study ends as if nothing had happened."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.launcher import Launcher
from tests.search.study.study_samples import begin, finished, make, small_parts

TRIALS = 40


@pytest.mark.parametrize(
    ("sampler", "jobs", "kills"),
    [("tpe", 1, 5), ("nsga2", 3, 5), pytest.param("tpe", 1, 50, marks=pytest.mark.slow)],
)
def test_a_study_that_is_killed_again_and_again_ends_as_one_that_never_was(
    tmp_path: Path, launcher: Launcher, sampler: str, jobs: int, kills: int
) -> None:
    trials = max(TRIALS, 4 * kills)
    parts = small_parts()
    options = ["--trials", str(trials), "--sampler", sampler, "--jobs", str(jobs), "--pause", "0.02"]
    url = f"sqlite:///{tmp_path}/s.db"
    dice = random.Random(kills)
    done = before = 0
    while done < kills:
        process = begin(launcher, url, tmp_path, *options)
        time.sleep(dice.uniform(0.05, 0.9))
        code = process.kill()
        assert code in (-9, 0), process.errors
        if code == 0:  # it was done before the kill: the rest needs more trials
            trials += TRIALS
            options[1] = str(trials)
            continue
        done += 1
        kept = _count(tmp_path / "s.db")
        assert kept >= before  # nothing is lost
        before = kept
    begin(launcher, url, tmp_path, *options).end()
    study = make(url, tmp_path, parts, sampler=sampler)
    whole = make(f"sqlite:///{tmp_path}/whole.db", tmp_path, parts, sampler=sampler)
    whole.search(trials, progress=False, jobs=jobs)
    assert finished(study) == finished(whole)
    assert len(finished(study)) == trials
    assert {trial.state for trial in study.optuna_study.get_trials()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    with sqlite3.connect(tmp_path / "s.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def _count(path: Path) -> int:
    try:
        with sqlite3.connect(path) as database:
            found: int = database.execute("SELECT count(*) FROM trials").fetchone()[0]
    except sqlite3.OperationalError:  # killed before there was a table
        return 0
    finally:
        database.close()
    return found
