"""Variational autoencoder of the same parts and size as the VQ-VAE: the baseline beside it.

Kingma and Welling (2014); with a weight beta on the KL term, Higgins et al. (2017). The encoder and
the decoder are the VQ-VAE's; in place of the codebook, a slice becomes one vector of latents.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import channels_last
from .vqvae import Decoder, Encoder, folded_layers

#: Log-variances are kept within this, so that no exponential overflows.
_LARGEST_LOG_VARIANCE = 10.0


@dataclass(frozen=True)
class Posterior:
    """q(z|x), a normal distribution with a diagonal covariance, for each of B slices.

    Attributes:
        mean, log_variance: (B, latents) float32.
    """

    mean: Tensor
    log_variance: Tensor

    def kl(self) -> Tensor:
        """(B, latents) KL divergence of q(z|x) from N(0, 1) by latent, in nats.

        1/2 (mean^2 + variance - log variance - 1), Kingma and Welling (2014), appendix B.
        """
        squares = self.mean.square() + self.log_variance.exp()
        return 0.5 * (squares - self.log_variance - 1.0)

    def draw(self, noise: Tensor) -> Tensor:
        """(B, latents) z = mean + sd * noise, for standard normal ``noise`` of that shape."""
        return self.mean + (0.5 * self.log_variance).exp() * noise


class VAE(nn.Module):
    """Encoder, latents and decoder.

    The decoder's distribution of a pixel is normal with variance 1/2 around the reconstruction, so
    that -log p(x|z) is the sum of squared differences, but for a constant.

    Args:
        shape: (rows, columns) of a slice; both are multiples of 2 to the number of levels.
        latents: length of z.
        channels: per level, finest first; ``len(channels) - 1`` levels of stride 2.
        neck: channels of the coarsest map where it is made into a vector, and back. Dense layers
            over all of its channels would be larger than the rest together.
        encoder_blocks, decoder_blocks: gated residual blocks per level.
        dropout: of the 2-D dropout in the blocks.
        beta: weight of the KL divergence in training and in the ELBO.
    """

    def __init__(
        self,
        shape: Sequence[int] = (104, 80),
        latents: int = 128,
        channels: Sequence[int] = (16, 32, 64, 64),
        neck: int = 4,
        encoder_blocks: int = 1,
        decoder_blocks: int = 1,
        dropout: float = 0.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        step = 2 ** (len(channels) - 1)
        if any(size % step for size in shape):
            raise ValueError(f"slices of {tuple(shape)} cannot be halved {len(channels) - 1} times")
        self.latents, self.beta = latents, beta
        self.coarsest = (neck, shape[0] // step, shape[1] // step)
        size = neck * self.coarsest[1] * self.coarsest[2]
        self.encoder = Encoder(channels, neck, encoder_blocks, dropout)
        self.to_posterior = nn.Linear(size, 2 * latents)
        self.from_latents = nn.Linear(latents, size)
        self.decoder = Decoder(channels, neck, decoder_blocks, dropout)

    def posterior(self, slices: Tensor, position: Tensor) -> Posterior:
        """(B, 1, rows, columns) slices in [-3, 3] and (B,) positions -> q(z|x)."""
        features = self.encoder(slices, position).flatten(1)
        mean, log_variance = self.to_posterior(features).float().chunk(2, dim=1)
        limit = _LARGEST_LOG_VARIANCE
        return Posterior(mean, log_variance.clamp(-limit, limit))

    def decode(self, latents: Tensor, position: Tensor) -> Tensor:
        """(B, latents) and (B,) positions -> (B, 1, rows, columns), the mean of p(x|z)."""
        return self.decoder(self.from_latents(latents).unflatten(1, self.coarsest), position)

    def reconstruct(self, slices: Tensor, position: Tensor) -> Tensor:
        """Slices by way of the most likely latents: (B, 1, rows, columns) float32."""
        return self.decode(self.posterior(slices, position).mean, position).float()

    def forward(
        self, slices: Tensor, position: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Posterior]:
        """Reconstruction of a draw from q(z|x), and q(z|x).

        Args:
            slices: (B, 1, rows, columns).
            position: (B,).
            noise: (B, latents), standard normal; None draws it.
        """
        posterior = self.posterior(slices, position)
        if noise is None:
            noise = torch.randn_like(posterior.mean)
        return self.decode(posterior.draw(noise), position).float(), posterior


def squared_error(slices: Tensor, reconstruction: Tensor) -> Tensor:
    """(B,) -log p(x|z) but for a constant: the sum over pixels of squared differences."""
    return (slices - reconstruction).square().flatten(1).sum(1)


def folded_vae(vae: VAE) -> VAE:
    """A copy in eval mode, for inference: BatchNorm in the convolutions, maps channels_last.

    It computes the same function within rounding, and the same whatever the batch. Its weights need
    no gradient; gradients with respect to the slices go through it.
    """
    with torch.inference_mode(False), torch.no_grad():
        copied = copy.deepcopy(vae).eval()
        for part in (copied.encoder, copied.decoder):
            part.layers = folded_layers(part.layers)
    return channels_last(copied).requires_grad_(False)
