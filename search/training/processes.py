"""Tasks in processes of their own, several at once; Ctrl-C ends them with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
Begin = Callable[[], None]


def in_processes(tasks: Iterable[Callable[[], T]], processes: int, begin: Begin | None = None) -> Iterator[T]:
    """Results as they come. Tasks are drawn when their turn comes, so that only a few of them take memory.

    Args:
        tasks: calls that can be pickled, such as `functools.partial` of a function of a module.
        processes: at the same time, the cores divided among them.
        begin: called once in every process before its first task; can be pickled too.

    Raises:
        Exception: what the first task that fails raises; the others are ended.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (threads, begin))
    running: set[Future[T]] = set()
    try:
        for task in tasks:
            running.add(pool.submit(task))
            if len(running) > processes:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        pool.shutdown()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(cancel_futures=True)
        raise


def _begin(threads: int, begin: Begin | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    torch.set_num_threads(threads)
    if begin is not None:
        begin()
