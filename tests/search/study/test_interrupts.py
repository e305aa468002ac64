"""Ctrl-C in a process that lives on, as a notebook does: nothing is half-written, nothing is held, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

import search.study.heartbeat
import search.study.interrupts
from backbones.errors import SecateurError
from search.study.heartbeat import Heartbeat
from search.study.interrupts import held_signals, pause, stop_between_trials, stop_if_asked
from search.study.loops import Proposer, search_sequentially
from search.study.study import Study
from tests.search.study.study_samples import finished, make, small_parts


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """In the background of a shell Python leaves SIGINT ignored, and so it is in these tests' processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(dice: random.Random, within: float) -> threading.Thread:
    """A thread, to be started, that sends SIGINT at a random moment, a second one behind one in three."""

    def send() -> None:
        time.sleep(dice.uniform(0, within))
        os.kill(os.getpid(), signal.SIGINT)
        if dice.random() < 1 / 3:
            time.sleep(dice.uniform(0, 0.004))
            os.kill(os.getpid(), signal.SIGINT)

    return threading.Thread(target=send)


@pytest.mark.parametrize("interrupts", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_interrupts_at_random_moments_cost_nothing(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, interrupts: int
) -> None:
    monkeypatch.setattr(search.study.heartbeat, "SETTLE", 0.002)
    parts, dice = small_parts(), random.Random(interrupts)
    study = make(url, tmp_path, parts, scorer="params", sampler="random")
    stopped, longest = 0, 0.0
    for _ in range(interrupts):
        start, thread = time.monotonic(), interrupt(dice, 0.06)
        with contextlib.suppress(KeyboardInterrupt):
            thread.start()
            study.search(10**6, progress=False)
        while thread.is_alive():  # a second signal may still come
            with contextlib.suppress(KeyboardInterrupt):
                thread.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert not [one for one in threading.enumerate() if one.name == "secateur heartbeat"]
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


@pytest.mark.parametrize("moment", ["it has just begun", "it is about to end"])
def test_a_heartbeat_that_is_interrupted_ends_before_the_search_does(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts())
    blocks = iter([moment == "it has just begun", moment == "it is about to end"])

    @contextlib.contextmanager
    def interrupted() -> Iterator[None]:
        now = next(blocks, False)
        if now and moment == "it is about to end":
            raise KeyboardInterrupt
        yield
        if now:
            raise KeyboardInterrupt

    monkeypatch.setattr(search.study.heartbeat, "held_signals", interrupted)
    with pytest.raises(KeyboardInterrupt), Heartbeat(study.store, "search"):
        pass
    assert not [one for one in threading.enumerate() if one.name == "secateur heartbeat"]
    study.search(2, progress=False)


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


class Terminated(BaseException):
    """What the handler of SIGTERM raises in these tests, as the command line's does."""


@pytest.fixture
def terminable() -> Iterator[None]:
    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_terminated)
    yield
    signal.signal(signal.SIGTERM, before)


def sending(place: int, numbers: tuple[int, ...], block: Callable[[], None]) -> tuple[bool, type[BaseException] | None]:
    """Runs a block that is sent signals before its instruction of that place in interrupts.py.

    Returns:
        whether the block has so many instructions there, and what it raised.
    """
    left, raised = place, None

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != search.study.interrupts.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                with contextlib.ExitStack() as stack:  # each is sent, also where one before it has raised
                    for number in reversed(numbers):
                        stack.callback(signal.raise_signal, number)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        block()
    except (KeyboardInterrupt, Terminated) as error:
        raised = type(error)
    finally:
        sys.settrace(before)
    return left < 0, raised


def write_in_a_search() -> None:
    with stop_between_trials():
        with held_signals():
            pass
        stop_if_asked()


def interrupted_search() -> None:
    with stop_between_trials(), held_signals():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("numbers", [(2,), (15,), (2, 2), (2, 15), (15, 2), (2, 2, 2), (15, 15, 15, 15)], ids=str)
@pytest.mark.parametrize("block", [write_in_a_search, interrupted_search])
def test_a_signal_before_any_instruction_is_handed_on_and_no_handler_stays(
    terminable: None, block: Callable[[], None], numbers: tuple[int, ...]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    place, reached = 0, True
    while reached:
        reached, raised = sending(place, numbers, block)
        assert raised is not None or not reached, f"a signal before instruction {place} is lost"
        for number, what in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
            with pytest.raises(what):  # whatever is left behind lets every signal pass
                signal.raise_signal(number)
        with stop_between_trials():
            stop_if_asked()  # nothing is left over
        assert {number: signal.getsignal(number) for number in handlers} == handlers, place
        place += 1
    assert place > 100


def test_what_is_raised_in_a_finalizer_comes_to_nothing_and_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: lost.append(found.exc_type))

    class Finalized:
        def __del__(self) -> None:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)

    def search(looks: bool) -> None:
        with stop_between_trials():
            Finalized()
            assert lost.pop() is KeyboardInterrupt
            if looks:
                stop_if_asked()
                lost.append("the search went on")

    for looks in (True, False):  # or the block ends before anybody looks
        with pytest.raises(KeyboardInterrupt):
            search(looks)
        assert lost == []
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_presses_during_a_write_count_for_the_search_around_it() -> None:
    reached: list[int | str] = []

    def search(presses: int) -> None:
        with stop_between_trials():
            with held_signals():
                for press in range(presses):
                    signal.raise_signal(signal.SIGINT)
                    reached.append(press + 1)
            reached.append("whole")
        reached.append("left")

    for presses, expected in ((1, [1, "whole"]), (2, [1, 2]), (4, [1, 2])):  # two stop at once, when it is written
        with pytest.raises(KeyboardInterrupt):
            search(presses)
        assert reached == expected
        reached.clear()


def test_a_heartbeat_that_is_interrupted_as_it_starts_leaves_no_thread_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts())
    heartbeat, begin = Heartbeat(study.store, "search"), threading.Thread.start

    def start(thread: threading.Thread) -> None:
        begin(thread)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            heartbeat.__enter__()
    heartbeat._thread.join(10)
    assert not heartbeat._thread.is_alive()


def test_a_search_sets_the_level_of_the_log_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting it takes a lock that Python's logging leaves behind when it is broken off."""
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts(), scorer="params")
    levels: list[int] = []
    monkeypatch.setattr(optuna.logging, "get_verbosity", lambda: levels[-1] if levels else optuna.logging.INFO)
    monkeypatch.setattr(optuna.logging, "set_verbosity", levels.append)
    study.search(6, progress=False)
    assert levels == [optuna.logging.WARNING, optuna.logging.INFO]


def test_a_pause_ends_when_a_stop_is_asked_for() -> None:
    start = time.monotonic()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), stop_between_trials():
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
