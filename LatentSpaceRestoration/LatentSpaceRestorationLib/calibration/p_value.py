"""How often a healthy scan has a score as high."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def p_value(score: float, healthy: Sequence[float]) -> float:
    """Chance that a healthy scan scores as high: (1 + #{healthy >= score}) / (1 + n).

    With n healthy scans it is never below 1 / (n + 1): that many scans can prove no more.
    """
    above = int(np.count_nonzero(np.asarray(healthy, float) >= score))
    return (1.0 + above) / (1.0 + len(healthy))
