"""Ctrl-C in a process that lives on, as a notebook does: nothing is half-written, nothing is held, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

import search.study.heartbeat
from backbones.errors import SecateurError
from search.study.heartbeat import Heartbeat
from search.study.interrupts import StopBetweenTrials, held_signals, pause, stop_if_asked
from search.study.loops import Proposer, search_sequentially
from search.study.study import Study
from tests.search.study.study_samples import finished, make, small_parts


def interrupt(dice: random.Random, within: float) -> threading.Thread:
    """A thread that sends SIGINT at a random moment, a second one behind one in three."""

    def send() -> None:
        time.sleep(dice.uniform(0, within))
        os.kill(os.getpid(), signal.SIGINT)
        if dice.random() < 1 / 3:
            time.sleep(dice.uniform(0, 0.004))
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("interrupts", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_interrupts_at_random_moments_cost_nothing(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, interrupts: int
) -> None:
    monkeypatch.setattr(search.study.heartbeat, "SETTLE", 0.002)
    parts, dice = small_parts(), random.Random(interrupts)
    study = make(url, tmp_path, parts, scorer="params", sampler="random")
    stopped, longest = 0, 0.0
    for _ in range(interrupts):
        start, thread = time.monotonic(), None
        with contextlib.suppress(KeyboardInterrupt):
            thread = interrupt(dice, 0.06)
            study.search(10**6, progress=False)
        while thread is not None and thread.is_alive():  # a second signal may still come
            with contextlib.suppress(KeyboardInterrupt):
                thread.join()
        stopped += 1
        longest = max(longest, time.monotonic() - start)
    assert stopped == interrupts
    assert longest < 10  # SQLite waits 15 s for a lock that was left behind
    trials = study.optuna_study.get_trials()
    assert [trial.number for trial in trials] == list(range(len(study.store.finished)))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    study.search(len(trials) + 5, progress=False)
    whole = make(f"sqlite:///{tmp_path}/whole.db", tmp_path, parts, scorer="params", sampler="random")
    whole.search(len(trials) + 5, progress=False)
    assert finished(study) == finished(whole)


def test_the_first_interrupt_stops_between_trials_and_the_second_at_once(tmp_path: Path) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts())

    def send(study: Study, frozen: FrozenTrial) -> None:
        for _ in range(1 + (frozen.number == 4)):
            signal.raise_signal(signal.SIGINT)
        reached.append(frozen.number)

    reached: list[int] = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            study.search(50, progress=False, callbacks=[send])
    assert reached == [0, 1]
    study.search(4, progress=False)
    with pytest.raises(KeyboardInterrupt):
        study.search(50, progress=False, callbacks=[send])
    assert reached == [0, 1]  # the second interrupt of trial 4 did not wait for the end of the callback
    study.search(8, progress=False)
    assert len(finished(study)) == 8


def test_a_slot_of_a_search_that_was_broken_off_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), Heartbeat(study.store, "search"):
            pass
    assert study.optuna_study.user_attrs["worker alone"]["process"] == os.getpid()  # it was written and stands
    study.search(3, progress=False)
    assert not study.optuna_study.user_attrs["worker alone"]


def test_another_thread_of_the_same_process_is_refused(tmp_path: Path) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts())
    with (
        Heartbeat(study.store, "search"),
        pytest.raises(
            SecateurError, match="is being searched by another thread of this process; wait for it, or end it"
        ),
    ):
        study.search(3, progress=False)
    told = search_sequentially(
        study.store, study.problem, study.scores, Proposer("random", 0, study.warm), 3, time.monotonic() + 60, 1
    )
    next(told)
    told.close()
    assert len(finished(study)) == 1


def test_signals_wait_for_the_end_of_a_write_and_the_third_does_not() -> None:
    reached = []

    def write(signals: int) -> None:
        with held_signals():
            for _ in range(signals):
                signal.raise_signal(signal.SIGINT)
            reached.append(signals)

    for count in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            write(count)
    assert reached == [1, 2]
    with held_signals():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_pause_ends_when_a_stop_is_asked_for() -> None:
    start = time.monotonic()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), StopBetweenTrials():
        pause(30)
    assert time.monotonic() - start < 5
    stop_if_asked()  # nothing is left over


def test_the_claims_of_a_worker_whose_slot_was_taken_over_are_free_at_once(tmp_path: Path) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts())
    gone = Heartbeat(study.store, "work")
    gone._take_slot()  # and its process dies
    assert gone.slot == "0"
    with Heartbeat(study.store, "work") as heartbeat:
        assert heartbeat.slot == "0"
        assert heartbeat.is_dead(gone.token)
