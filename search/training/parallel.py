"""Several processes for one training, several trainings in processes of their own, and how many threads each takes.

One training is shared by processes only where the user starts it so (`torchrun`), never by itself on a CPU with several
cores. Processes of one thread get through more images than one process with as many threads, but the batch norms of
each see its own share of the batch, 64 of 128 images on two cores and 4 on 32: results would depend on the machine.
Trainings side by side (`in_processes`) use the cores as well and leave each of them what it is.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from pickle import PicklingError
from tempfile import mkdtemp
from typing import Any, TypeVar

import cloudpickle
import torch
import torch.distributed as dist
from joblib import cpu_count
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from search.checks import checked_device

_T = TypeVar("_T")
Begin = Callable[[], None]
SMALL_BATCH = 1_000_000_000
"""MACs of a batch below which a second thread costs more than it brings.

A ResNet-20 on 8 x 8 images has 0.16 G in a batch of 64; with two threads on two cores that others use as well, one
step took up to ten times as long as with one thread, waiting at the barriers of each small layer.
"""


UNSENDABLE = (PicklingError, TypeError, AttributeError, RuntimeError, OSError)
"""What is raised where a task cannot be sent to a process, or the process dies."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that train one network together.

    Attributes:
        rank: number of this process, 0 to size - 1; 0 writes files and shows progress.
        size: number of processes; 1 outside torchrun.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model itself, or one that averages gradients over all processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the values of rank 0, in place: weights, batch-norm statistics, averages."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def trains_together() -> bool:
    """Whether this process is one of several that train one network, such as `torchrun` begins."""
    return dist.is_initialized() or (int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ)


@contextmanager
def process_group(device: str | torch.device) -> Iterator[ProcessGroup]:
    """The processes that train together: this one alone, or, under `torchrun`, all that were launched.

    A process group that is already there is used and left open; otherwise one is made (nccl on CUDA, gloo elsewhere)
    and closed afterwards.

    Args:
        device: "cpu", "cuda" (one device a process: LOCAL_RANK chooses it) or any torch device.

    Raises:
        SecateurError: for a device that is not there.
    """
    place = checked_device(device)
    if not trains_together():
        yield ProcessGroup(0, 1, place)
        return
    if str(place) == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    opened = not dist.is_initialized()
    if opened:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), place)
    finally:
        if opened:
            dist.destroy_process_group()


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes begun inside the block do not see Ctrl-C, from their first moment on; this one does, if late.

    One that is interrupted while it imports leaves whoever waits for it waiting.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    for tracker in (resource_tracker, loky_tracker):  # theirs would let signals through again
        tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def sent_by_file(task: object, owner: object) -> Path:
    """Writes what processes of their own are to work on to a file, which is removed with `owner`.

    Sent by a pipe it would hold up this process where one dies that begins. Classes and functions of a script go with
    it. Raises one of `UNSENDABLE` where the task cannot be written.
    """
    folder = Path(mkdtemp(prefix="secateur-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    torch.save(task, folder / "task", pickle_module=cloudpickle)
    return folder / "task"


def received(sent: Path, threads: int) -> Any:
    """In a process that joblib began: what `sent_by_file` wrote. From now on it is a child as those of `process_pool`.

    Tensors are mapped, so that the processes share them until they write to them.
    """
    _become_child(threads, sent)
    return torch.load(sent, weights_only=False, mmap=True)  # by this process's parent, in a folder of this user alone


def threads_each(jobs: int) -> int:
    """Threads for each of so many jobs at the same time: the cores that this process may use, divided among them."""
    return max(1, int(cpu_count()) // jobs)


def in_processes(tasks: Iterable[Callable[[], _T]], processes: int, begin: Begin | None = None) -> Iterator[_T]:
    """Results as they come. Tasks are drawn when their turn comes, so that only a few of them take memory.

    Args:
        tasks: calls that can be pickled, such as `functools.partial` of a function of a module.
        processes: at the same time, the cores that this process may use divided among them.
        begin: called once in every process before its first task; can be pickled too.

    Raises:
        Exception: what the first task that fails raises; the others are ended.
    """
    with process_pool(processes, begin) as pool:
        yield from results_of(pool, tasks, processes)


@contextmanager
def process_pool(processes: int, begin: Begin | None = None) -> Iterator[ProcessPoolExecutor]:
    """Processes for one batch of tasks after another (`results_of`); ended with the block, at once where it fails."""
    threads = threads_each(processes)
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, _processes(), _begin, (threads, begin))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(cancel_futures=True)
        raise


def _processes() -> BaseContext:
    """New processes that share nothing with this one. All but the first begin at once where the system can fork.

    They are forked from one that has its imports, which take each new interpreter seconds; the first optimiser or seed
    of a process imports `torch._dynamo`.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["secateur", "torch._dynamo"])
    return context


def results_of(pool: ProcessPoolExecutor, tasks: Iterable[Callable[[], _T]], processes: int) -> Iterator[_T]:
    """Results of a pool's processes as they come; see `in_processes`."""
    running: set[Future[_T]] = set()
    for task in tasks:
        with kept_from_children():
            running.add(pool.submit(task))
        if len(running) > processes:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def _begin(threads: int, begin: Begin | None) -> None:
    _become_child(threads)
    if begin is not None:
        begin()


def _become_child(threads: int, sent: Path | None = None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    end_with_parent(sent)
    torch.set_num_threads(threads)


def end_with_parent(sent: Path | None = None) -> None:
    """From now on this process ends when the one that began it is gone, killed or not, whatever it is at.

    What it writes is moved into place whole, so nothing is lost but what was not written yet.

    Args:
        sent: the file of `sent_by_file`, which a killed process leaves behind: it is removed then.
    """
    parent = multiprocessing.parent_process()

    def wait_for_the_end() -> None:
        if parent is None:
            return
        sentinel = getattr(parent, "sentinel", None)
        if sentinel is not None:
            connection.wait([sentinel])
        else:  # joblib's processes have none
            while os.getppid() == parent.pid:
                time.sleep(1.0)
        if sent is not None:
            shutil.rmtree(sent.parent, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, name="end with parent", daemon=True).start()


@contextmanager
def fitting_threads(macs: int, batch: int) -> Iterator[None]:
    """Within the block torch computes small networks on one core; `OMP_NUM_THREADS`, where set, is left alone.

    The choice follows from the sizes alone, so that a run that was stopped goes on with the same sums.

    Args:
        macs: multiply-adds of one sample.
        batch: samples at a time.
    """
    before = torch.get_num_threads()
    if macs * batch < SMALL_BATCH and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
