"""What the networks read in a scan, and what they expect there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ..calibration.quantiles import Quantiles


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


@dataclass(frozen=True)
class Decoded:
    """What is decoded already: slices in which no code was replaced need not be again.

    Attributes:
        codes: (N, h, w) int64.
        images: (N, rows, columns) float32.
    """

    codes: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class Expected:
    """What a masked prior expects of a scan.

    Attributes:
        reading: the codes, with the NLL of each given those outside its tile.
        image: (N, rows, columns) float32, decoded from the expected latents.
        variance: (N, h, w) float32, of a cell's mean intensity about what is expected.
        reconstruction: (N, rows, columns) float32, decoded from the codes as they are.
        residual: (N, rows, columns) float32, absolute difference of the scan and that.
        expected_residual: (N, h, w) float32, its mean in a cell of the codes that are expected.
        entropy, nll_variance: (N, h, w) float32, mean and variance in nats of the NLL that codes
            have which the prior itself draws.
    """

    reading: Reading
    image: np.ndarray
    variance: np.ndarray
    reconstruction: np.ndarray
    residual: np.ndarray
    expected_residual: np.ndarray
    entropy: np.ndarray
    nll_variance: np.ndarray

    @property
    def decoded(self) -> Decoded:
        """The scan's own codes and what they are decoded to."""
        return Decoded(self.reading.codes, self.reconstruction)

    def mean_with_mirrored(self, other: Expected) -> Expected:
        """The mean with that of the scan's mirror image.

        Codes and what is decoded from them are those of the scan.
        """

        def mean(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return (mine + theirs[:, :, ::-1]) / np.float32(2.0)

        maps = {
            one.name: mean(getattr(self, one.name), getattr(other, one.name))
            for one in fields(self)
            if one.name not in ("reading", "reconstruction")
        }
        nll = mean(self.reading.nll, other.reading.nll)
        return replace(self, reading=replace(self.reading, nll=nll), **maps)


def code_quantiles(readings: Sequence[Reading]) -> Quantiles:
    """Distribution of the NLL of the brain's codes over healthy scans, in nats."""
    return Quantiles.of(np.concatenate([r.nll[r.brain] for r in readings]))
