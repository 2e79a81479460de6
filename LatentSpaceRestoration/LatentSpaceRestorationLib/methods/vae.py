"""``vae``, ``vae-kl-gradient``, ``vae-elbo-gradient``, ``vae-ensemble``: predictors from a VAE.

Zhou, Deng and Wu (2020), "Unsupervised anomaly localization using VAE and beta-VAE"; the gradients
are those of Zimmerer et al. (MICCAI 2019), "Unsupervised anomaly localization using variational
auto-encoders". beta is that of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..inference.vae_model import Piece
from ..networks.vae import VAE, squared_error
from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM
from .base import Evidence, ScanContext
from .descent import with_gradient


def residual(piece: Piece) -> tuple[Tensor, Tensor]:
    """|x - x'|, and x', the reconstruction from the most likely latents; (B, rows, columns)."""
    with torch.no_grad():
        back = piece.vae.reconstruct(piece.slices, piece.position)
    return (piece.slices - back).abs()[:, 0], back[:, 0]


def kl_divergence(vae: VAE, slices: Tensor, position: Tensor) -> Tensor:
    """(B,) KL(q(z|x) || N(0, 1)) in nats; slices (B, 1, rows, columns), position (B,)."""
    return vae.posterior(slices, position).kl().sum(1)


def negative_elbo(vae: VAE, slices: Tensor, position: Tensor, noise: Tensor) -> Tensor:
    """(B,) ||x - x'||^2 + beta KL(q(z|x) || N(0, 1)), for one draw of z.

    Args:
        vae: the model.
        slices: (B, 1, rows, columns), x.
        position: (B,).
        noise: (B, latents), that makes z from q(z|x); 0 takes the most likely z.
    """
    return _elbo_and_reconstruction(vae, slices, position, noise)[0]


def _elbo_and_reconstruction(
    vae: VAE, slices: Tensor, position: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) :func:`negative_elbo`, and (B, 1, rows, columns) x', the reconstruction."""
    back, posterior = vae(slices, position, noise)
    return squared_error(slices, back) + vae.beta * posterior.kl().sum(1), back


def gradient(energy: Callable[[Tensor], Tensor], slices: Tensor) -> Tensor:
    """Gradient of each slice's energy with respect to its pixels.

    Args:
        energy: (B, 1, rows, columns) -> (B,), where no slice changes another's.
        slices: (B, 1, rows, columns).
    """
    return with_gradient(lambda x: (energy(x), x), slices)[1]


def latent_noise(seed: int, numbers: Sequence[int], draw: int, latents: int) -> Tensor:
    """Standard normal noise of a draw, by slice: a function of seed, slice and draw alone.

    Returns:
        (len(numbers), latents) float32.
    """
    rows = [
        np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, number, draw))))
        .standard_normal(latents)
        .astype(np.float32)
        for number in numbers
    ]
    return torch.from_numpy(np.stack(rows))


#: Maps of the ensemble.
ENSEMBLE = ("residual", "kl-gradient", "elbo-gradient")


@dataclass(frozen=True)
class Reconstruction:
    """|x - x'|, smoothed.

    Attributes:
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = False
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("residual")

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One."""
        with context.control.step("reconstruct", "Reconstructing", 0.9) as report:
            error, back = context.vae_model().by_pieces(context.prepared, residual, report)
        maps = context.smoothed({"residual": error}, self.sigma_mm)
        yield Evidence.of_one(maps, back)


@dataclass(frozen=True)
class KLGradient:
    """|d KL(q(z|x) || N(0, 1)) / dx|: where a change would make the slice more usual.

    Attributes:
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = False
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("gradient")

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One; its restoration is the reconstruction."""

        def compute(piece: Piece) -> tuple[Tensor, Tensor]:
            return kl_gradient(piece)[:, 0].abs(), residual(piece)[1]

        with context.control.step("gradient", "Taking gradients", 0.9) as report:
            size, back = context.vae_model().by_pieces(context.prepared, compute, report)
        maps = context.smoothed({"gradient": size}, self.sigma_mm)
        yield Evidence.of_one(maps, back)


def kl_gradient(piece: Piece) -> Tensor:
    """(B, 1, rows, columns)."""
    return gradient(lambda x: kl_divergence(piece.vae, x, piece.position), piece.slices)


@dataclass(frozen=True)
class ELBOGradient:
    """|d ELBO / dx|, its expectation over q(z|x) from a few draws.

    Attributes:
        draws: as many as restorations are wanted, but at most so many: they differ little.
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = True
    draws: int = 4
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("gradient")

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One; its restorations are the reconstructions from the draws."""
        draws = min(self.draws, context.restorations)
        with context.control.step("gradient", "Taking gradients", 0.9) as report:
            size, mean, sd = context.vae_model().by_pieces(
                context.prepared, lambda piece: elbo_gradient(piece, context.seed, draws), report
            )
        maps = context.smoothed({"gradient": size}, self.sigma_mm)
        yield Evidence(maps, mean, sd, draws, draws)


def elbo_gradient(piece: Piece, seed: int, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Absolute gradient of the ELBO, and mean and spread of the reconstructions from the draws.

    Returns:
        (B, rows, columns) each.
    """
    total = torch.zeros_like(piece.slices)
    mean, squares = torch.zeros_like(total), torch.zeros_like(total)
    for draw in range(draws):
        noise = latent_noise(seed, piece.numbers, draw, piece.vae.latents).to(total.device)
        energy = partial(_elbo_and_reconstruction, piece.vae, position=piece.position, noise=noise)
        _, found, back = with_gradient(energy, piece.slices)
        total += found
        difference = back - mean
        mean += difference / (draw + 1)
        squares += difference * (back - mean)
        piece.report((draw + 1) / draws)
    return (total / draws).abs()[:, 0], mean[:, 0], (squares / draws).clamp_min(0).sqrt()[:, 0]


@dataclass(frozen=True)
class Ensemble:
    """The mean of three predictors, each in units of its healthy spread at the place.

    Residual, gradient of the KL divergence and gradient of the ELBO. (Their sizes differ by orders
    of magnitude, so that they cannot be added as they are.)

    Attributes:
        draws: as of :class:`ELBOGradient`.
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = True
    draws: int = 4
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule(
        dict.fromkeys(ENSEMBLE, 1 / 3), one_sided=frozenset(ENSEMBLE), combine="sum"
    )

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One; its restorations are the reconstructions from the draws."""
        draws = min(self.draws, context.restorations)

        def compute(piece: Piece) -> tuple[Tensor, ...]:
            of_kl = kl_gradient(piece)[:, 0].abs()
            return residual(piece)[0], of_kl, *elbo_gradient(piece, context.seed, draws)

        with context.control.step("gradient", "Taking gradients", 0.9) as report:
            error, of_kl, of_elbo, mean, sd = context.vae_model().by_pieces(
                context.prepared, compute, report
            )
        found = {"residual": error, "kl-gradient": of_kl, "elbo-gradient": of_elbo}
        yield Evidence(context.smoothed(found, self.sigma_mm), mean, sd, draws, draws)
