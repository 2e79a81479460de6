"""Progress, cancelling, timing and time budget of one detection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import Cancelled

Step = Callable[[float], None]
Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]

#: The largest group of restorations: after each the map is shown anew.
LARGEST_GROUP = 8


class RunControl:
    """One detection's way from 0 to 1.

    Args:
        progress: called with the fraction done and what is being done.
        is_cancelled: asked often; True ends the detection.
        budget: seconds from now after which no further restorations are begun; None is no limit.

    Attributes:
        seconds: by step, summed up where a step comes again.
    """

    def __init__(
        self,
        progress: Progress | None = None,
        is_cancelled: IsCancelled | None = None,
        budget: float | None = None,
    ) -> None:
        self._progress, self.is_cancelled, self.budget = progress, is_cancelled, budget
        self._started = time.perf_counter()
        self._fraction = 0.0
        self.seconds: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def check(self) -> None:
        """Raise Cancelled if the caller wants to stop."""
        if self.is_cancelled is not None and self.is_cancelled():
            raise Cancelled("cancelled")

    @contextmanager
    def step(self, name: str, message: str, end: float) -> Iterator[Callable[[float], None]]:
        """A step that takes progress from where it is to ``end``; yields a report of its share."""
        begin = self._fraction

        def report(done: float) -> None:
            self.check()
            self._fraction = begin + max(0.0, end - begin) * min(1.0, done)
            if self._progress is not None:
                self._progress(self._fraction, message)

        report(0.0)
        started = time.perf_counter()
        yield report
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        report(1.0)

    def groups(self, count: int) -> Iterator[range]:
        """Numbers 0 to ``count - 1`` of restorations in groups: 1, 2, 4, 8, and then 8 at a time.

        So the first result does not wait for the others, and what is held at a time is bounded.
        With a budget, a group is no larger than what has been seen of the time lets expect to fit,
        and when nothing fits any more the groups end; the first is always given.
        """
        done, size = 0, 1
        began = time.perf_counter()
        while done < count:
            size = min(size, count - done)
            if self.budget is not None and done:
                pace = (time.perf_counter() - began) / done
                size = min(size, int((self.budget - self.elapsed) / pace))
                if size < 1:
                    return
            yield range(done, done + size)
            done += size
            size = min(2 * size, LARGEST_GROUP)
