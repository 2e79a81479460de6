"""``vae-projection``: the nearest image that the VAE can reproduce, found by descent.

Dehaene, Frigo, Combrexelle and Eline (ICLR 2020), "Iterative energy-based projection on a normal
data manifold for anomaly localization".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..inference.vae_model import Piece
from ..networks.vae import VAE
from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM
from .base import Evidence, ScanContext
from .descent import descend, difference_evidence, rounded_abs, with_gradient


def projection_energy(
    vae: VAE, slices: Tensor, start: Tensor, position: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """E(x) = ||x - f(x)||^2 + weight ||x - x0||_1, f the VAE, with an L1 prior.

    Args:
        vae: the model.
        slices: (B, 1, rows, columns), x.
        start: of the same shape, the scan, x0.
        position: (B,).
        weight: of staying close.

    Returns:
        (B,) energies, and (B, 1, rows, columns) x - f(x).
    """
    error = slices - vae.reconstruct(slices, position)
    close = rounded_abs(slices - start).flatten(1).sum(1)
    return error.square().flatten(1).sum(1) + weight * close, error


@dataclass(frozen=True)
class Projection:
    """|x0 - x|, where x is x0 after gradient steps on the energy, smoothed.

    A step's direction is the gradient times the squared reconstruction error of each pixel, which
    leaves alone what the VAE reproduces as it is.

    Attributes:
        weight: of staying close to the scan; the published 0.05 for intensities of range 1 is 0.3
            for those in robust standard deviations, of range 6.
        steps: how many are tried.
        rate: of the first.
        every: n; every n-th slice is projected, and what lies between follows. It is smoothed over
            more than that in any case, and takes minutes otherwise.
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = False
    weight: float = 0.3
    steps: int = 15
    rate: float = 0.5
    every: int = 3
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("difference")

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One; its restoration is the projection."""
        yield difference_evidence(
            context,
            "project",
            "Projecting",
            lambda piece: self.project(piece)[0],
            every=self.every,
            sigma_mm=self.sigma_mm,
        )

    def project(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """(B, 1, rows, columns) projections, and (B,) their energies."""

        def energy(slices: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient, error = with_gradient(
                lambda x: projection_energy(
                    piece.vae, x, piece.slices, piece.position, self.weight
                ),
                slices,
            )
            return value, gradient * error.square()

        return descend(
            energy,
            piece.slices,
            piece.brain,
            steps=self.steps,
            rate=self.rate,
            report=piece.report,
        )
