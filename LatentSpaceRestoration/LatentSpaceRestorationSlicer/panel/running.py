"""One piece of work on a worker thread, while the panel stays alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import qt
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
#: While Slicer waits for events no Python thread can work: it gets so long, that often, until its
#: end, for otherwise it would never come to it, and would keep its memory.
_TURN_SECONDS, _PAUSE_MILLISECONDS = 0.02, 20
_ending: set[qt.QTimer] = set()


def letComeToItsEnd(thread: threading.Thread) -> None:
    """Give a thread that nobody waits for time to work in, as long as it lives."""
    timer = qt.QTimer()
    timer.setInterval(_PAUSE_MILLISECONDS)

    def turn() -> None:
        if thread.is_alive():
            time.sleep(_TURN_SECONDS)  # lets go of what Python threads share
        else:
            timer.stop()
            _ending.discard(timer)

    timer.connect("timeout()", turn)
    timer.start()
    _ending.add(timer)


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
        thread = threading.Thread(target=self._run, name="LatentSpaceRestoration", daemon=True)
        thread.start()
        progress: tuple[float, str] | None = None
        news: News | None = None
        try:
            while not self._done.wait(_POLL_SECONDS):
                # Nodes and widgets may only be touched here: the thread leaves its news to be
                # fetched.
                newest, told = self._progress, self._news
                if newest is not None and newest is not progress and not self.isCancelled:
                    progress = newest
                    showProgress(*progress)
                if told is not None and told is not news and not self.isCancelled:
                    news = told
                    showNews(news)
                slicer.app.processEvents()
                waited = time.monotonic() - self._cancelledAt
                if self.isCancelled and waited > _PATIENCE_SECONDS:
                    from LatentSpaceRestorationLib.errors import Cancelled

                    raise Cancelled("cancelled")
        except BaseException:
            self.cancel()  # the thread would work for nobody
            letComeToItsEnd(thread)
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
