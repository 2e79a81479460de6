"""Jobs of tensor operations, one thread each, with progress and cancelling.

PyTorch splits each operation over the cores and waits for the slowest. For operations of
microseconds, or beside another busy program, that waiting can cost far more than it gains; jobs
that do not depend on each other are better run side by side, each on one core. What they compute is
then the same to the last bit whatever the number of cores, which decides how PyTorch splits an
operation, and so how it rounds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from .side_by_side import cores

Result = TypeVar("Result")

_POLL_SECONDS = 0.05


def worker_count(device: torch.device) -> int:
    """How many jobs are worth running side by side: PyTorch's threads on a CPU, 1 elsewhere."""
    return cores() if device.type == "cpu" else 1


def run_jobs(
    jobs: Sequence[Iterator[int]], workers: int, report: Callable[[int], None] | None = None
) -> None:
    """Run generators to their ends, in inference mode.

    Args:
        jobs: each yields, after each of its steps, the work which that was, in any unit.
        workers: how many run at a time, on one of PyTorch's threads each. With one, they run in the
            calling thread.
        report: called from the calling thread with the work done so far, at first with 0; what it
            raises stops the jobs after their current steps, and is raised again.

    Raises:
        Whatever a job or ``report`` raises.
    """
    if report is not None and jobs:
        report(0)
    threads = torch.get_num_threads()
    if workers < 2 or len(jobs) < 2:
        done = 0
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                for job in jobs:
                    for work in job:
                        done += work
                        if report is not None:
                            report(done)
        finally:
            torch.set_num_threads(threads)
        return

    stop, lock, total = threading.Event(), threading.Lock(), 0

    def finish(job: Iterator[int]) -> None:
        nonlocal total
        with torch.inference_mode():
            for work in job:
                with lock:
                    total += work
                if stop.is_set():
                    return

    # set_num_threads counts for the thread that calls it, and for threads that start later: the
    # last call gives those their number back.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        pending = {pool.submit(finish, job) for job in jobs}
        while pending:
            finished, pending = wait(pending, timeout=_POLL_SECONDS)
            for future in finished:
                future.result()
            if report is not None:
                report(total)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)


def in_pieces(
    compute: Callable[[slice], Result],
    count: int,
    size: int,
    device: str,
    step: Callable[[float], None] | None = None,
) -> list[Result]:
    """Compute something piece by piece, on a CPU as many at a time as PyTorch has threads.

    Args:
        compute: takes the range of a piece; called in inference mode, in any thread.
        count: length of the whole.
        size: of a piece, at most.
        device: torch device that ``compute`` uses.
        step: called from the calling thread with the fraction done; what it raises ends the work.

    Returns:
        by piece, in order.
    """
    workers = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    rounds = math.ceil(count / (size * workers))
    # As large as each other, so that none is waited for.
    size = max(1, math.ceil(count / max(rounds * workers, 1)))
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    found: dict[int, Result] = {}

    def job(part: slice) -> Iterator[int]:
        found[part.start] = compute(part)
        yield part.stop - part.start

    report = None if step is None else lambda done: step(done / count)
    run_jobs([job(part) for part in parts], workers, report)
    return [found[part.start] for part in parts]
