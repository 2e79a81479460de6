"""Who does the jobs: this process, one after the other, or the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import Cancelled, LSRError
from ..runtime.progress import IsCancelled, Progress

if TYPE_CHECKING:
    from distributed import Client, Future

Work = TypeVar("Work")
Found = TypeVar("Found")

#: A job whose workers on this machine ended so many times is done alone, and then given up.
ATTEMPTS = 2
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Failure:
    """A job that gave no result, and why, in one line."""

    reason: str


class _Killed(Failure):
    """A job whose workers ended."""


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
    """All jobs, and at the end, one by one, those whose workers ended.

    Dask holds the end of a worker against all that the worker was given: only a job that is alone
    can be told from one that waited behind the culprit.
    """
    suspects: list[Work] = []
    for job, found in _done(client, task, jobs, is_cancelled):
        if isinstance(found, _Killed):
            suspects.append(job)
        else:
            yield job, found
    for suspect in suspects:
        yield from _done(client, task, [suspect], is_cancelled)


def _done(
    client: Client,
    task: Callable[..., Found],
    jobs: Sequence[Work],
    is_cancelled: IsCancelled | None,
) -> Iterator[tuple[Work, Found | Failure]]:
    from distributed import as_completed

    futures = {client.submit(task, job, pure=False): job for job in jobs}
    completed = as_completed(futures)
    try:
        while not completed.is_empty():
            if is_cancelled is not None and is_cancelled():
                raise Cancelled("cancelled")
            batch = completed.next_batch(block=False)
            for future in batch:
                yield futures.pop(future), _result(future)
            if not batch:
                time.sleep(_POLL_SECONDS)
    finally:
        with contextlib.suppress(Exception):  # of a client that lost its scheduler
            client.cancel(list(futures))


def _result(future: Future) -> Any:
    from distributed.scheduler import KilledWorker

    if future.cancelled():
        raise LSRError("the scheduler is gone; start again when it is there: what is done is kept")
    try:
        return future.result()
    except KilledWorker as error:
        return _Killed(
            f"{error.allowed_failures + 1} workers ended while they did nothing else, as they do "
            "when memory runs out; give workers more memory (fewer of them), or resample the scan"
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
