"""What the networks read in a scan, and what they expect there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..calibration.quantiles import Quantiles

if TYPE_CHECKING:
    from ..preprocessing.slices import PreparedScan


@dataclass(frozen=True)
class Reading:
    """What the networks read in a scan, before any restoration.

    Attributes:
        codes: (N, h, w) int64.
        nll: (N, h, w) float32, nats, of each code given those before it.
        brain: (N, h, w) bool, codes whose cell has brain in it.
    """

    codes: np.ndarray
    nll: np.ndarray
    brain: np.ndarray

    @property
    def nll_of_brain(self) -> np.ndarray:
        """(n,) nats, of the brain's codes."""
        return np.asarray(self.nll[self.brain])


@dataclass(frozen=True)
class Decoded:
    """What is decoded already: slices in which no code was replaced need not be again.

    Attributes:
        codes: (N, h, w) int64.
        images: (N, rows, columns) float32.
    """

    codes: np.ndarray
    images: np.ndarray

    def some(self, numbers: np.ndarray) -> Decoded:
        """Of some of the slices, by their numbers."""
        return Decoded(self.codes[numbers], self.images[numbers])

    @classmethod
    def of_some(cls, count: int, parts: Sequence[tuple[np.ndarray, Decoded]]) -> Decoded:
        """Of some slices each, by their numbers, put together; 0 elsewhere."""
        first = parts[0][1]
        codes = np.zeros((count, *first.codes.shape[1:]), first.codes.dtype)
        images = np.zeros((count, *first.images.shape[1:]), first.images.dtype)
        for numbers, part in parts:
            codes[numbers], images[numbers] = part.codes, part.images
        return cls(codes, images)


@dataclass(frozen=True)
class ReadingPlan:
    """How a masked prior reads a scan.

    Attributes:
        tile: side of a tile in codes.
        apart: of so many slices, one is read.
        both_sides: whether each is read as it is and mirrored, and not one so and the next the
            other way: networks see blocks of voxels from one corner on, and left and right must not
            matter. Where slices take turns, which of them are mirrored follows from the brain:
            see :func:`torque`.
    """

    tile: int
    apart: int = 1
    both_sides: bool = True

    def of(self, prepared: PreparedScan) -> list[tuple[np.ndarray, bool]]:
        """Numbers of a scan's slices that are read together, and whether mirrored.

        They are counted from the top of the brain, so that they are the same however far down a
        scan or its brain reaches.
        """
        depth = depths(prepared.position)
        read = np.flatnonzero(depth % self.apart == 0)
        if not len(read):
            read, depth = np.zeros(1, int), np.zeros(1, int)
        if self.both_sides:
            return [(read, False), (read, True)]
        turn = (depth[read] // self.apart) % 2 == 1
        parts = [(read[~turn], False), (read[turn], True)]
        if torque(prepared) > 0.0:
            parts = [(numbers, not turned) for numbers, turned in parts]
        found = [part for part in parts if len(part[0])]
        # A single slice is read as it is.
        return found if len(found) > 1 else [(found[0][0], False)]


def depths(position: np.ndarray) -> np.ndarray:
    """(N,) how many slices below the top of the brain each lies; evenly spaced.

    Args:
        position: (N,) of the slices, ascending; the same where they were clipped.
    """
    steps = np.diff(np.asarray(position, float))
    steps = steps[steps > 1e-6]
    if not len(steps):
        return np.arange(len(position))[::-1]
    middle = int(np.abs(position).argmin())  # of which the position is not clipped
    lowest = round((0.5 - float(position[middle])) / float(np.median(steps))) + middle
    return lowest - np.arange(len(position))


def torque(prepared: PreparedScan) -> float:
    """Which side of a brain is which: the other way round in its mirror image.

    Brains are turned a little against themselves, with more on the right in front and on the left
    behind (Toga and Thompson 2003, "Mapping brain asymmetry"). What is measured is the mean of
    intensity times place, from side to side and from front to back, over the brain: -0.001 to
    -0.003 in eight healthy scans, the same to a tenth after turning and interpolating them.
    """
    _, rows, columns = prepared.slices.shape
    along, across = (np.arange(n) - (n - 1) / 2.0 for n in (rows, columns))
    sums = np.where(prepared.mask, prepared.slices, 0.0).sum(axis=0, dtype=float)
    return float(along @ sums @ across) / (rows * columns * max(int(prepared.mask.sum()), 1))


@dataclass(frozen=True)
class Expected:
    """What a masked prior expects of a scan; 0 in slices that it has not read.

    Attributes:
        read: (N,) bool, the slices that it has read, as they are or mirrored.
        brain: (N, h, w) bool, codes whose cell has brain in it; of all slices.
        nll: (N, h, w) float32, nats, of each code given those outside its tile.
        image: (N, rows, columns) float32, decoded from the expected latents.
        variance: (N, h, w) float32, of a cell's mean intensity about what is expected.
        residual: (N, rows, columns) float32, absolute difference of the scan and what is decoded
            from its codes.
        expected_residual: (N, h, w) float32, its mean in a cell of the codes that are expected.
        entropy, nll_variance: (N, h, w) float32, mean and variance in nats of the NLL that codes
            have which the prior itself draws.
        decoded: codes, and what is decoded from them, of the slices that were read as they are.
        decodes: (N,) bool, these slices.
    """

    read: np.ndarray
    brain: np.ndarray
    nll: np.ndarray
    image: np.ndarray
    variance: np.ndarray
    residual: np.ndarray
    expected_residual: np.ndarray
    entropy: np.ndarray
    nll_variance: np.ndarray
    decoded: Decoded
    decodes: np.ndarray

    @classmethod
    def of_readings(
        cls, brain: np.ndarray, readings: Sequence[tuple[np.ndarray, bool, Expected]]
    ) -> Expected:
        """Readings of some slices each, put together; where there are two, their mean.

        Args:
            brain: of all slices.
            readings: numbers of the slices, whether they were mirrored, and what was expected of
                them.
        """
        count = len(brain)
        times = np.zeros(count, np.float32)
        maps = {}
        for numbers, _, _ in readings:
            times[numbers] += 1.0
        divisor = np.maximum(times, 1.0)[:, None, None]
        for name in _MAPS:
            parts = [
                (numbers, getattr(found, name)[:, :, :: -1 if turned else 1])
                for numbers, turned, found in readings
            ]
            total = np.zeros((count, *parts[0][1].shape[1:]), np.float32)
            for numbers, values in parts:
                total[numbers] += values
            maps[name] = total / divisor
        own, decodes = [], np.zeros(count, bool)
        for numbers, turned, found in readings:
            if not turned:
                decodes[numbers] = True
                own.append((numbers, found.decoded))
        return cls(
            read=times > 0.0,
            brain=brain,
            decoded=Decoded.of_some(count, own),
            decodes=decodes,
            **maps,
        )

    @property
    def nll_of_brain(self) -> np.ndarray:
        """(n,) nats, of the brain's codes in the slices that were read."""
        return np.asarray(self.nll[self.brain & self.read[:, None, None]])


#: Of :class:`Expected`, what a mirror image has as well.
_MAPS = (*("nll", "image", "variance", "residual", "expected_residual", "entropy", "nll_variance"),)


def code_quantiles(nll: Sequence[np.ndarray]) -> Quantiles:
    """Distribution of the NLL of the brain's codes over healthy scans, in nats.

    Args:
        nll: (n,) of each scan.
    """
    return Quantiles.of(np.concatenate(nll))
