"""How well two masks agree."""

from __future__ import annotations

import numpy as np


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice overlap of two masks of the same shape, above 0 is in: 0 (apart, or both empty) to 1."""
    a, b = np.asarray(one) > 0, np.asarray(other) > 0
    both = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / both if both else 0.0
