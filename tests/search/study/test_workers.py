"""Many processes on one study: none scores twice, the living redo what the dead left, searches keep apart."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from torch import nn

import search.study.heartbeat
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from search.data.data import Data
from search.study.heartbeat import Heartbeat, HeartbeatMonitor, boot_and_namespace, start_ticks
from search.study.retraining_task import RetrainConfig
from search.study.samplers import SAMPLERS
from search.study.storage import open_storage
from search.study.stored import status
from search.study.study import Study
from search.study.trials import WITHDRAWN, TrialStore, make_study
from search.training.recipe import Recipe
from tests.launcher import Launcher
from tests.search.study.postgres import PASSWORD, Server
from tests.search.study.study_samples import begin, finished, make, small_data, small_graph, small_model

Parts = tuple[nn.Module, ChannelGraph, Data]
TRIALS = 24


@pytest.fixture(scope="module")
def parts() -> Parts:
    model = small_model()
    return model, small_graph(model), small_data()


def wait_for(folder: Path, lines: int) -> list[str]:
    """The ids in the log of what was scored, as soon as there are so many."""
    log = folder / "log"
    for _ in range(1200):
        found = log.read_text().split() if log.exists() else []
        if len(found) >= lines:
            return found
        time.sleep(0.05)
    raise AssertionError(f"only {found} were scored in a minute")


def test_two_workers_and_a_third_that_is_killed(tmp_path: Path, parts: Parts, url: str, launcher: Launcher) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    name = ["--work", "--trials", str(TRIALS), "--pause", "0.1", "--heartbeat", "2", "--log", str(tmp_path / "log")]
    victim = begin(launcher, url, folder, *name, "--sampler", "nsga2")
    wait_for(tmp_path, 3)  # in the middle of a score
    victim.kill()
    others = [begin(launcher, url, folder, *name, "--sampler", "nsga2") for _ in range(2)]
    for process in others:
        process.end()
    study = make(url, folder, parts, sampler="nsga2")
    trials = [trial for trial in study.optuna_study.get_trials() if WITHDRAWN not in trial.user_attrs]
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == TRIALS
    assert states[TrialState.RUNNING] == 0
    assert states[TrialState.FAIL] == 1
    [lost] = [trial for trial in trials if trial.state is TrialState.FAIL]
    [again] = [trial for trial in trials if trial.user_attrs.get("redone") == lost.number]
    assert again.params == lost.params
    assert again.state is TrialState.COMPLETE
    scored = Counter((tmp_path / "log").read_text().split())
    twice = {structure for structure, times in scored.items() if times > 1}
    assert twice <= {lost.user_attrs["structure"]}
    assert {one.user_attrs["claim"].partition("/")[0] for one in trials[5:]} == {
        one.user_attrs["claim"].partition("/")[0] for one in trials[5:] if one.state is not TrialState.FAIL
    }
    told = status(url)
    assert told.trials["scored"] == states[TrialState.COMPLETE]
    assert told.trials["failed"] == 1
    assert not told.workers
    study.search(TRIALS + 3, progress=False)  # and on, alone
    assert PASSWORD not in str(told)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_four_workers_that_start_together_on_a_fresh_storage(
    tmp_path: Path, launcher: Launcher, request: pytest.FixtureRequest, kind: str, times: int
) -> None:
    for number in range(times):
        folder = tmp_path / str(number)
        folder.mkdir()
        url = f"sqlite:///{folder}/s.db" if kind == "sqlite" else request.getfixturevalue("server").database()
        options = ("--work", "--trials", "6", "--heartbeat", "2")
        for process in [begin(launcher, url, folder, *options) for _ in range(4)]:
            process.end()
        assert status(url).trials == {"scored": 6}


def test_the_tables_of_a_storage_are_made_by_eight_at_once(tmp_path: Path, url: str) -> None:
    ready = threading.Barrier(8)

    def open_at_once(number: int) -> str:
        ready.wait()
        return make_study("s", open_storage(url), [StudyDirection.MAXIMIZE]).study_name

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(open_at_once, range(8))) == {"s"}


def test_a_server_that_is_restarted_in_mid_study_costs_nothing(
    tmp_path: Path, parts: Parts, server: Server, launcher: Launcher
) -> None:
    url = server.database()
    options = ["--work", "--trials", "30", "--pause", "0.1", "--log", str(tmp_path / "log"), "--sampler", "qmc"]
    process = begin(launcher, url, tmp_path, *options)
    wait_for(tmp_path, 5)
    server.stop()
    time.sleep(1.0)
    server.start()
    process.end()
    assert "is away" in process.errors
    assert PASSWORD not in process.errors + process.out
    trials = make(url, tmp_path, parts, sampler="qmc").optuna_study.get_trials()
    assert [trial.number for trial in trials] == list(range(30))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    scored = (tmp_path / "log").read_text().split()
    assert len(scored) == len(set(scored))


def test_workers_share_every_rung_of_the_finalists(tmp_path: Path, parts: Parts, launcher: Launcher) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    make(url, tmp_path, parts).search(12, progress=False)
    name = ["--work", "--trials", "12", "--top", "2", "--finalists", "5", "--heartbeat", "2"]
    victim = begin(launcher, url, tmp_path, *name)
    for _ in range(400):
        if status(url).retrained.get("running"):
            break
        time.sleep(0.02)
    victim.kill()
    for process in [begin(launcher, url, tmp_path, *name) for _ in range(2)]:
        process.end()
    told = status(url)
    assert told.retrained["scored"] == 5 + 2  # no training twice: five of one epoch, two of both
    assert "running" not in told.retrained
    assert [one["reached_epochs"] for one in told.trainings] == [2, 2, 1, 1, 1]
    assert len(told.accuracies) == 2
    study = make(url, tmp_path, parts)
    front = study.retrain(2, finalists=5, recipe=Recipe(epochs=2, lr=0.05, batch_size=16), progress=False)
    assert {one.id for one in front.candidates if one.accuracy is not None} == set(told.accuracies)
    assert status(url).retrained == told.retrained  # nothing was left to do
    assert "7 done" in str(told)
    assert all(one in str(told) for one in told.accuracies)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_one_worker_finishes_with_every_sampler(tmp_path: Path, parts: Parts, sampler: str) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, parts, sampler=sampler)
    study.work(12, progress=False)
    assert len(study.candidates()) == 12
    assert len({one.id for one in study.candidates()}) > 3


@pytest.mark.parametrize("at", [0, 3, 11])
def test_of_trials_begun_at_the_same_moment_none_is_one_too_many(
    tmp_path: Path, parts: Parts, monkeypatch: Any, at: int
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = make(url, tmp_path, parts)
    others: list[Study] = []
    claim = TrialStore.claim

    def after_another(store: TrialStore, *about: Any) -> Any:
        if len(store.finished) == at and not others:  # what this worker is about to claim, another takes just before
            others.append(make(url, tmp_path, parts))
            others[0].work(at + 1, progress=False)
        return claim(store, *about)

    monkeypatch.setattr(TrialStore, "claim", after_another)
    study.work(12, progress=False)
    assert others
    assert len(study.candidates()) == 12
    rules = [one.user_attrs["warm"] for one in study.store.finished if "warm" in one.user_attrs]
    assert len(rules) == len(set(rules)) > 1
    assert status(url).trials == {"scored": 12}


def test_a_search_and_workers_refuse_each_other(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    monkeypatch.setattr(search.study.heartbeat, "SECONDS", 3.0)
    url = f"sqlite:///{tmp_path}/s.db"
    study = make(url, tmp_path, parts)

    def trying(study: Study, trial: Any) -> None:
        second = make(url, tmp_path, parts)
        with pytest.raises(SecateurError, match=r"study 's' (is being searched by|has workers \(?)") as caught:
            second.search(9, progress=False)
        refusals.append(str(caught.value))

    refusals: list[str] = []
    study.search(2, progress=False, callbacks=[trying])
    study.work(4, progress=False, callbacks=[trying])
    assert ["being searched" in line for line in refusals] == [True, True, False, False]
    study.search(6, progress=False)
    assert len(study.candidates()) == 6


def record(**changes: Any) -> dict[str, Any]:
    process = os.getppid()  # of its own a process knows better
    own = {"token": "t", "beat": 1, "place": boot_and_namespace(), "process": process, "born": start_ticks(process)}
    return own | changes


def test_a_process_of_this_machine_is_looked_up() -> None:
    watch = HeartbeatMonitor(30.0)
    assert watch.is_alive(record()) is True
    assert watch.is_alive(record(token="u", born="1")) is False  # another process has the number now
    assert watch.is_alive(record(token="v", process=2**22 + 1)) is False


def test_a_process_elsewhere_is_judged_by_its_counter_and_ones_own_clock(monkeypatch: Any) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "time", lambda: random.uniform(0, 2e9))  # wall clocks may jump as they like
    watch = HeartbeatMonitor(30.0)
    assert watch.is_alive(record(place="elsewhere", beat=1)) is None
    now += 20
    assert watch.is_alive(record(place="elsewhere", beat=1)) is None
    assert watch.is_alive(record(place="elsewhere", beat=2)) is True
    now += 29
    assert watch.is_alive(record(place="elsewhere", beat=2)) is True
    now += 2
    assert watch.is_alive(record(place="elsewhere", beat=2)) is False


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = make(url, tmp_path, parts)
    study.search(10, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 86_400.0)
        patch.setattr("optuna.storages._rdb.storage.datetime", _Yesterday)
        patch.setattr("optuna.storages._in_memory.datetime", _Yesterday)
        study.search(20, progress=False)
    whole = make(f"sqlite:///{tmp_path}/whole.db", tmp_path, parts)
    whole.search(20, progress=False)
    assert finished(study) == finished(whole)


def test_a_slot_that_was_given_away_is_left_alone(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    monkeypatch.setattr(search.study.heartbeat, "SECONDS", 0.6)
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, parts)
    with Heartbeat(study.store, "work") as heartbeat:
        assert heartbeat.slot == "0"
        study.optuna_study.set_user_attr("worker 0", record(token="thief"))
        for _ in range(100):
            if heartbeat.slot == "1":
                break
            time.sleep(0.05)
        assert heartbeat.slot == "1"
        assert not heartbeat.is_dead(heartbeat.token)
    assert study.optuna_study.user_attrs["worker 1"] == {}
    assert study.optuna_study.user_attrs["worker 0"]["token"] == "thief"


def test_who_is_waited_for_is_said_once(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    monkeypatch.setattr(search.study.heartbeat, "MOMENT", 0.0)
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, parts)
    study.optuna_study.set_user_attr("worker 7", record(token="far", place="elsewhere", host="there", process=12))
    with Heartbeat(study.store, "work") as heartbeat:
        heartbeat.waits(["far"], "retrains")
        said = "waiting for what process 12 on there retrains, for up to 30 s to see whether it still works"
        with pytest.warns(UserWarning, match=said):
            heartbeat.waits(["far"], "retrains")
        heartbeat.waits(["far"], "retrains")
        study.optuna_study.set_user_attr("worker 8", record(token="near"))
        heartbeat.waits(["near"], "scores")
        with pytest.warns(UserWarning, match=rf"waiting for what process {os.getppid()} on \w+ scores$"):
            heartbeat.waits(["near"], "scores")


def test_a_retraining_of_a_process_that_left_no_trace_is_waited_for_aloud_and_done_again(
    tmp_path: Path, parts: Parts, monkeypatch: Any
) -> None:
    monkeypatch.setattr(search.study.heartbeat, "SECONDS", 1.2)
    monkeypatch.setattr(search.study.heartbeat, "MOMENT", 0.0)
    monkeypatch.setattr("search.study.retrain.RETRAIN_POLL", 0.05)
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, parts)
    study.search(4, progress=False)
    [one] = study.finalists(1).members
    recipe = Recipe(epochs=1, lr=0.05, batch_size=64)
    facts = {"structure": one.id, "trial": one.number, "recipe": RetrainConfig(recipe).text}
    left = create_trial(state=TrialState.RUNNING, user_attrs=facts)
    study._retrainer().writer.claim(left, "gone/1")
    with pytest.warns(UserWarning, match="waiting for what a process that is gone retrains, for up to 1 s"):
        front = study.retrain(1, recipe=recipe, progress=False)
    assert front.best().accuracy is not None
    assert status(f"sqlite:///{tmp_path}/s.db").retrained == {"failed": 1, "scored": 1}


def test_status_says_what_a_study_is_at(tmp_path: Path, parts: Parts) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = make(url, tmp_path, parts)
    assert "trials: none" in str(status(url))
    lines: list[str] = []
    study.search(8, progress=False, callbacks=[lambda *_: lines.append(str(status(url)))])
    assert "yes" in lines[-1]
    told = status(url, "s")
    best = max(one.score or 0.0 for one in study.candidates())
    assert told.best["score"] == best
    assert re.fullmatch(rf"trial {told.best['trial']}( \(\w+\))?, {told.best['structure']}", told.best["name"])
    assert f"best by score: {told.best['name']}: {best:.6g}, " in str(told)
    assert told.made_with["weights"] == json.loads(json.dumps(told.made_with))["weights"]
    make(url, tmp_path, parts, name="other")
    with pytest.raises(SecateurError, match=r"has 2 studies .*; say which one"):
        status(url)


class _Yesterday:
    """A clock that was set back."""

    @staticmethod
    def now() -> Any:
        import datetime

        return datetime.datetime(2001, 1, 1)
