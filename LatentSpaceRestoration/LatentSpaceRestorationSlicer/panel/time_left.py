"""How long something that tells its progress will still take."""

from __future__ import annotations

import time
from collections.abc import Callable

from slicer.i18n import tr as _

#: Before so much time and progress, nothing is said: the first steps tell little.
_SECONDS, _FRACTION = 2.0, 0.05


class TimeLeft:
    """Estimates the time left from the time that the progress so far has taken.

    Args:
        now: gives seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()

    def seconds(self, fraction: float) -> float | None:
        """Seconds left with a fraction done; None if that cannot be told yet."""
        elapsed = self._now() - self._began
        if elapsed < _SECONDS or fraction < _FRACTION:
            return None
        return elapsed * (1.0 - min(fraction, 1.0)) / fraction

    def inWords(self, fraction: float) -> str:
        """The time left in words; empty if it cannot be told yet."""
        left = self.seconds(fraction)
        if left is None:
            return ""
        if left >= 90.0:
            return _("about {minutes} min left").format(minutes=round(left / 60.0))
        # In steps of five, which do not flicker.
        return _("about {seconds} s left").format(seconds=max(5 * round(left / 5.0), 5))
