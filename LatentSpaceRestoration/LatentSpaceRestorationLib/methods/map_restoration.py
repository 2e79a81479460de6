"""``map-restoration``: the most likely healthy image, given the scan and a VAE as the prior.

Chen, You, Tezcan and Konukoglu (Medical Image Analysis 2020), "Unsupervised lesion detection via
image restoration with a normative prior".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..inference.vae_model import Piece
from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM
from .base import Evidence, ScanContext
from .descent import descend, difference_evidence, rounded_abs, with_gradient
from .vae import negative_elbo


def total_variation(images: Tensor) -> Tensor:
    """Sum of absolute differences of neighbouring pixels, along rows and along columns.

    Args:
        images: (B, 1, rows, columns).

    Returns:
        (B,); kinks are rounded.
    """
    down = rounded_abs(images[:, :, 1:] - images[:, :, :-1])
    right = rounded_abs(images[:, :, :, 1:] - images[:, :, :, :-1])
    return down.flatten(1).sum(1) + right.flatten(1).sum(1)


@dataclass(frozen=True)
class MAPRestoration:
    """|y - x|, where x minimises -log p(x) - log p(y|x), smoothed; y is the scan.

    log p(x) is replaced by the ELBO of a VAE of healthy slices, from the most likely latents, and
    -log p(y|x) is a total variation, ``weight * TV(y - x)``: a lesion is one piece of image that
    was replaced, not many specks.

    Attributes:
        weight: of the total variation.
        steps: how many are tried.
        rate: of the first.
        every: n; every n-th slice is restored, and what lies between follows. It is smoothed over
            more than that in any case, and takes minutes otherwise.
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = False
    weight: float = 0.5
    steps: int = 20
    rate: float = 0.1
    every: int = 3
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("difference")

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One."""
        yield difference_evidence(
            context,
            "restore",
            "Restoring",
            lambda piece: self.restore(piece)[0],
            every=self.every,
            sigma_mm=self.sigma_mm,
        )

    def energy(self, piece: Piece, slices: Tensor) -> Tensor:
        """(B,) -ELBO(x) + weight TV(y - x), for (B, 1, rows, columns) slices x."""
        most_likely = torch.zeros(len(slices), piece.vae.latents, device=slices.device)
        unlikely = negative_elbo(piece.vae, slices, piece.position, most_likely)
        return unlikely + self.weight * total_variation(piece.slices - slices)

    def restore(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """(B, 1, rows, columns) restorations, and (B,) their energies."""

        def energy(slices: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient, _ = with_gradient(lambda x: (self.energy(piece, x), x), slices)
            return value, gradient

        return descend(
            energy,
            piece.slices,
            piece.brain,
            steps=self.steps,
            rate=self.rate,
            report=piece.report,
        )
