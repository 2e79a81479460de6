"""Who does the jobs: this process, one after the other, or the workers of a Dask cluster."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..course import IsCancelled, Progress
from ..errors import Cancelled, LSRError

if TYPE_CHECKING:
    from distributed import Client, Future

Work = TypeVar("Work")
Found = TypeVar("Found")

#: A job whose workers ended so many times is given up.
ATTEMPTS = 3
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Failure:
    """A job that gave no result, and why, in one line."""

    reason: str


class Engine(Protocol):
    """Does jobs and gives their results as they come."""

    def results(
        self,
        task: Callable[..., Found],
        jobs: Sequence[Work],
        is_cancelled: IsCancelled | None = None,
    ) -> Generator[tuple[Work, Found | Failure], None, None]:
        """Do all jobs, each to one result.

        Args:
            task: a function of a module that workers can import, of one job; what it raises is a
                ``Failure``.
            jobs: what it is called with.
            is_cancelled: asked often; True ends it.

        Raises:
            Cancelled: ``is_cancelled`` said so.
            LSRError: there are no workers, or they are gone.
        """
        ...


@dataclass(frozen=True)
class InTurn:
    """This process does one job after the other.

    Attributes:
        progress: takes how far all is, with what is being done.
    """

    progress: Progress | None = None

    def results(
        self,
        task: Callable[..., Found],
        jobs: Sequence[Work],
        is_cancelled: IsCancelled | None = None,
    ) -> Generator[tuple[Work, Found | Failure], None, None]:
        for number, job in enumerate(jobs):
            if is_cancelled is not None and is_cancelled():
                raise Cancelled("cancelled")
            yield job, task(job, self._part(number, len(jobs)), is_cancelled)

    def _part(self, number: int, total: int) -> Progress | None:
        progress = self.progress
        if progress is None:
            return None

        def part(fraction: float, message: str) -> None:
            progress((number + fraction) / total, f"{number + 1} / {total}: {message}")

        return part


@dataclass(frozen=True)
class OnCluster:
    """The workers of a Dask cluster do the jobs; each is done again if its worker ends.

    Attributes:
        connect: gives a client as a context, given the number of jobs.
    """

    connect: Callable[[int], Any]

    def results(
        self,
        task: Callable[..., Found],
        jobs: Sequence[Work],
        is_cancelled: IsCancelled | None = None,
    ) -> Generator[tuple[Work, Found | Failure], None, None]:
        if not jobs:
            return
        with _quiet(), self.connect(len(jobs)) as client:
            yield from _feed(client, task, jobs, is_cancelled)


def _feed(
    client: Client,
    task: Callable[..., Found],
    jobs: Sequence[Work],
    is_cancelled: IsCancelled | None,
) -> Iterator[tuple[Work, Found | Failure]]:
    """Give the workers no more jobs than they can begin.

    Dask counts the end of a worker against all jobs that it was given: those that only wait there
    would be blamed for what another one did.
    """
    from distributed import wait

    waiting = deque(jobs)
    running: dict[Future, Work] = {}
    try:
        while waiting or running:
            if is_cancelled is not None and is_cancelled():
                raise Cancelled("cancelled")
            if client.status not in ("running", "connecting"):
                raise LSRError(
                    "the scheduler is gone; start again when it is there: what is done is kept"
                )
            for _ in range(max(1, len(client.nthreads())) - len(running)):
                if waiting:
                    job = waiting.popleft()
                    running[client.submit(task, job, pure=False)] = job
            try:
                wait(list(running), timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                continue
            for future in [future for future in running if future.done()]:
                yield running.pop(future), _result(future)
    finally:
        client.cancel(list(running))


def _result(future: Future) -> Any:
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        return Failure(
            f"{error.allowed_failures + 1} workers ended while they did it, as they do when memory "
            "runs out; give workers more memory (--jobs 1), or resample the scan"
        )
    except Exception as error:
        why = next(iter(str(error).splitlines()), "")
        return Failure(f"a worker could not do it ({type(error).__name__}: {why})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own lines on workers that come and go from the user."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
