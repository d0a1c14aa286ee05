"""Jobs side by side, in threads with one PyTorch thread each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from ld3m_min.io.stop import Stop

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@contextmanager
def one_thread_each(threads: int = 1) -> Iterator[None]:
    """PyTorch with so many threads for what runs inside, also in threads that begin there.

    Afterwards it is as before.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def _ignore(job: object, result: object) -> None:
    pass


def side_by_side(
    work: Callable[[JobT, Callable[[], bool]], ResultT | None],
    jobs: Iterable[JobT],
    *,
    workers: int,
    threads: int = 1,
    stop: Stop,
    finished: Callable[[JobT, ResultT], object] = _ignore,
) -> dict[JobT, ResultT]:
    """Do several jobs at a time, in threads. The first error is raised when all of them have left.

    Args:
        work: does a job. It is given the job and a function, which tells whether it is to leave
            (save, and return None): the process was asked to stop, or another job failed.
        jobs: what is to be done.
        workers: the most jobs at a time.
        threads: PyTorch threads of each.
        stop: whether the process was asked to stop.
        finished: called in the calling thread, after each job.

    Returns:
        Results by job. A job that left early, or never began, is not among them.
    """
    failed = threading.Event()
    results: dict[JobT, ResultT] = {}

    def halted() -> bool:
        return bool(stop.reason) or failed.is_set()

    def run(job: JobT) -> ResultT | None:
        torch.set_num_threads(threads)  # of this thread; what it was is put back below
        try:
            return None if halted() else work(job, halted)
        except BaseException:
            failed.set()
            raise

    with one_thread_each(threads), ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        waiting: set[Future[ResultT | None]] = set(futures)
        error: BaseException | None = None
        try:
            while waiting:
                # it wakes now and then, for signals
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    error = error or future.exception()
                    result = None if future.exception() else future.result()
                    if result is not None:
                        results[futures[future]] = result
                        finished(futures[future], result)
        except BaseException:
            failed.set()
            raise
    if error is not None:
        raise error
    return results
