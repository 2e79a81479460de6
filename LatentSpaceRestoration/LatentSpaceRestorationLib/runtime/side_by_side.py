"""Work on arrays that is shared out among the cores: the same to the last bit, however many.

Compiled loops of NumPy and SciPy let other threads run meanwhile. Networks have :mod:`threads`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from scipy import ndimage

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 8  # beyond that, threads wait for Python's lock more than they compute
#: Planes of a slab, at most, and voxels: the same whatever the cores.
_PLANES, _VOXELS = 16, 500_000


def cores() -> int:
    """How many threads may work at a time: as many as PyTorch's, if that is there already."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    count = int(asked) if asked.isdecimal() else os.cpu_count() or 1
    # Half imported, it does not have it yet.
    threads = getattr(sys.modules.get("torch"), "get_num_threads", lambda: count)
    return max(1, min(int(threads()), _MOST_WORKERS))


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Results of a function, in order; as many at a time as there are cores.

    Raises:
        What the function raises, of the first item that it does so for.
    """
    given = list(items)
    workers = min(cores(), len(given))
    if workers < 2:
        return [function(item) for item in given]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, given))


def slabs(shape: Sequence[int], axis: int = 0) -> list[slice]:
    """Parts of an axis of an array, each of some planes."""
    count = int(shape[axis])
    plane = int(np.prod(shape)) // max(count, 1)
    planes = min(max(_VOXELS // max(plane, 1), 1), _PLANES)
    return [slice(at, min(at + planes, count)) for at in range(0, count, planes)]


def gaussian_filter(
    array: np.ndarray,
    sigma: float | Sequence[float] | np.ndarray,
    *,
    mode: str = "reflect",
    truncate: float = 4.0,
) -> np.ndarray:
    """``scipy.ndimage.gaussian_filter`` of an array of floats with two axes or more."""

    def along(axis: int, width: float, given: np.ndarray) -> np.ndarray:
        filtered = np.empty(given.shape, given.dtype)
        across = 0 if axis else 1

        def some(part: slice) -> None:
            where = (slice(None),) * across + (part,)
            ndimage.gaussian_filter1d(
                given[where], width, axis, output=filtered[where], mode=mode, truncate=truncate
            )

        side_by_side(some, slabs(given.shape, across))
        return filtered

    for axis, width in enumerate(np.broadcast_to(sigma, array.ndim)):
        if width > 1e-15:
            array = along(axis, float(width), array)
    return array
