"""One piece of work on a worker thread, while the panel stays alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import slicer

Result = TypeVar("Result")
News = TypeVar("News")
Progress = Callable[[float, str], None]
#: ``work(progress, isCancelled, tell)``: pure, touches neither nodes nor widgets. What it tells is
#: shown on the main thread.
Work = Callable[[Progress, Callable[[], bool], Callable[[News], None]], Result]

_POLL_SECONDS = 0.03
#: How long work that was cancelled is waited for. It looks between two steps whether it was; some,
#: such as loading torch for the first time, take seconds, and cannot be broken off.
_PATIENCE_SECONDS = 0.5


class WorkerRun(Generic[News, Result]):
    """Runs ``work`` on one thread; the main thread waits for it and handles events meanwhile."""

    def __init__(self, work: Work[News, Result]) -> None:
        self._work = work
        self._cancelled = threading.Event()
        self._cancelledAt = 0.0
        self._done = threading.Event()
        self._progress: tuple[float, str] | None = None
        self._news: News | None = None
        self._result: Result | None = None
        self._error: BaseException | None = None

    @property
    def isCancelled(self) -> bool:
        """Whether somebody asked for the end."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the work to stop; it does so between two of its steps."""
        if not self.isCancelled:
            self._cancelledAt = time.monotonic()
            self._cancelled.set()

    def wait(self, showProgress: Progress, showNews: Callable[[News], None]) -> Result:
        """Start, and come back with the result when the work is done.

        What comes faster than it can be shown is replaced by what comes next, and once somebody
        asked for the end, nothing is shown any more. Work that then does not end soon is left to
        itself: it comes to its end by itself, and what it gives is dropped.

        Args:
            showProgress: called on this thread with the fraction done and a message.
            showNews: called on this thread with what the work tells.

        Raises:
            Cancelled: it was cancelled and has not ended yet.
            whatever the work, or the showing, raised.
        """
        threading.Thread(target=self._run, name="LatentSpaceRestoration", daemon=True).start()
        progress: tuple[float, str] | None = None
        news: News | None = None
        try:
            while not self._done.wait(_POLL_SECONDS):
                # Nodes and widgets may only be touched here: the thread leaves its news to be
                # fetched.
                if self._progress is not progress and not self.isCancelled:
                    progress = self._progress
                    showProgress(*progress)
                if self._news is not news and not self.isCancelled:
                    news = self._news
                    showNews(news)
                slicer.app.processEvents()
                waited = time.monotonic() - self._cancelledAt
                if self.isCancelled and waited > _PATIENCE_SECONDS:
                    from LatentSpaceRestorationLib.errors import Cancelled

                    raise Cancelled("cancelled")
        except BaseException:
            self.cancel()  # the thread would work for nobody
            raise
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._result = self._work(self._report, self._cancelled.is_set, self._tell)
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def _report(self, fraction: float, message: str) -> None:
        self._progress = (fraction, message)

    def _tell(self, news: News) -> None:
        self._news = news
