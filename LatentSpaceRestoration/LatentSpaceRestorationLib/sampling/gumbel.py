"""Noise that is a function of where it is used alone, so that any order draws the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WEYL = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), modulo 2**64, in place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _integers(values: ArrayLike) -> NDArray[np.uint64]:
    """Integers, negative ones too, as an array of uint64 modulo 2**64."""
    return np.atleast_1d(np.asarray(values, dtype=np.int64)).astype(np.uint64)


def gumbel_noise(
    seed: int, slices: ArrayLike, restorations: ArrayLike, positions: ArrayLike, codes: int
) -> NDArray[np.float32]:
    """Standard Gumbel noise for every code, keyed by (seed, slice, restoration, position, code).

    argmax(logits + noise) is then a draw from softmax(logits). Each value is a hash of its key
    alone: splitmix64 chained over the four numbers, then one step a code.

    Args:
        seed: any integer; it counts modulo 2**64.
        slices, restorations, positions: integers that broadcast together to some shape (...,);
            single numbers count as shape (1,).
        codes: how many codes there are.

    Returns:
        (..., codes) float32, between about -3.7 and 36.8.
    """
    state = np.array([(int(seed) + _WEYL) & _MASK], dtype=np.uint64)
    state = _mix(state)
    for part in (slices, restorations, positions):
        state = _mix((state ^ _integers(part)) + np.uint64(_WEYL))
    steps = np.arange(1, codes + 1, dtype=np.uint64) * np.uint64(_WEYL)
    bits = _mix(state[..., None] + steps)
    # 53 bits, centred in their interval: never 0 or 1, so that both logarithms are finite.
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return (-np.log(-np.log(uniform))).astype(np.float32)
