"""One piece of work on a worker thread, while the panel stays alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import slicer

Result = TypeVar("Result")
Progress = Callable[[float, str], None]
#: ``work(progress, isCancelled)``: pure, touches neither nodes nor widgets.
Work = Callable[[Progress, Callable[[], bool]], Result]

_POLL_SECONDS = 0.03


class WorkerRun(Generic[Result]):
    """Runs ``work`` on one thread; the main thread waits for it and handles events meanwhile."""

    def __init__(self, work: Work[Result]) -> None:
        self._work = work
        self._cancelled = threading.Event()
        self._done = threading.Event()
        self._latest: tuple[float, str] | None = None
        self._result: Result | None = None
        self._error: BaseException | None = None

    @property
    def isCancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to stop; it does so between two of its steps."""
        self._cancelled.set()

    def wait(self, showProgress: Progress) -> Result:
        """Start, and come back with the result when the work is done.

        Args:
            showProgress: called on this thread with the fraction done and a message.

        Raises:
            whatever the work raised.
        """
        threading.Thread(target=self._run, name="LatentSpaceRestoration", daemon=True).start()
        shown: tuple[float, str] | None = None
        while not self._done.wait(_POLL_SECONDS):
            # Widgets may only be touched here, so that the thread leaves its news to be fetched.
            if self._latest is not None and self._latest is not shown:
                shown = self._latest
                showProgress(*shown)
            slicer.app.processEvents()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._result = self._work(self._report, self._cancelled.is_set)
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def _report(self, fraction: float, message: str) -> None:
        self._latest = (fraction, message)
