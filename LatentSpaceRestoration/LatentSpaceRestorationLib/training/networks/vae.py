"""Training of the VAE on prepared slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...model_space import CLIP
from ...networks import distributed
from ...networks.layers import channels_last
from ...networks.vae import VAE, squared_error
from ..data.augmentation import Augmentation, augmented_batch
from ..data.slices import Slices
from ..engine.loop import train
from ..engine.run import Run
from .vqvae import tiles

#: A latent whose KL divergence is below this, in nats, says nothing about the slice.
_ACTIVE = 0.05


def vae_loss(
    model: nn.Module,
    images: Tensor,
    position: Tensor,
    beta: float,
    generator: torch.Generator,
    target: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """-ELBO with a weight on its KL term, per pixel, mean over slices (Higgins et al. 2017).

    (sum of (target - reconstruction)^2 + beta KL(q(z|x) || N(0, 1))) / pixels, with one draw from
    q(z|x). Per pixel, so that learning rates and clipping are those of the VQ-VAE.

    Args:
        model: the VAE, or what several processes have around it.
        images: (B, 1, rows, columns), this process's share of a batch.
        position: (B,).
        beta: weight of the KL term; 1 is the ELBO.
        generator: of the draw, which is made for the whole batch, as in :func:`augment`.
        target: what is to be reconstructed, where the images are noisy.

    Returns:
        the loss, and ``error`` per pixel and ``kl`` in nats a slice.
    """
    pixels = images[0].numel()
    whole = len(images) * distributed.size()
    noise = torch.randn(whole, _as_vae(model).latents, generator=generator)
    own = noise[distributed.part(whole)].to(images.device)
    reconstruction, posterior = model(images, position, own)
    error = squared_error(images if target is None else target, reconstruction).mean()
    kl = posterior.kl().sum(1).mean()
    figures = {"error": float(error.detach()) / pixels, "kl": float(kl.detach())}
    return (error + beta * kl) / pixels, figures


def vae_figures(network: VAE, slices: Slices, limit: int = 256) -> dict[str, float]:
    """How well slices come back, over up to ``limit`` slices.

    Returns:
        ``l1_brain``, mean absolute error in the brain in robust standard deviations, as of a
        VQ-VAE; ``kl`` in nats a slice; ``active``, the number of latents that say something.
    """
    images, position = slices.take(slices.spread(limit))
    device = network.from_latents.weight.device
    error, voxels, divergences = 0.0, 0.0, []
    with torch.inference_mode():
        for x, p in zip(images.to(device).split(32), position.to(device).split(32), strict=True):
            brain = x > -CLIP
            error += float(((network.reconstruct(x, p) - x).abs() * brain).sum())
            voxels += float(brain.sum())
            divergences.append(network.posterior(x, p).kl().cpu())
    by_latent = torch.cat(divergences).mean(0)
    return {
        "l1_brain": error / voxels,
        "kl": float(by_latent.sum()),
        "active": float((by_latent > _ACTIVE).sum()),
    }


def vae_picture(network: VAE, slices: Slices, count: int = 6) -> Tensor:
    """(1, H, W) in [0, 1]: slices above, what comes back of them below."""
    images, position = slices.take(slices.spread(count + 2)[1:-1])
    device = network.from_latents.weight.device
    with torch.inference_mode():
        back = network.reconstruct(images.to(device), position.to(device))
    return tiles([images, back.cpu()])


def train_vae(
    settings: Mapping[str, Any],
    data: Slices,
    held_out: Slices,
    run: Run,
    augmentation: Augmentation | None = None,
) -> VAE:
    """Train a VAE with :func:`vae_loss`; beta is in its settings.

    Args:
        settings: arguments of :class:`VAE`.
        data, held_out: prepared slices, of different subjects.
        run: how long, where, and whom to tell.
        augmentation: None for the usual one.
    """
    torch.manual_seed(run.schedule.seed)
    network = VAE(**settings)
    channels_last(network)
    augmentation = augmentation or Augmentation()

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        x, target, position = augmented_batch(data, run, step, augmentation, generator)
        return vae_loss(model, x, position, network.beta, generator, target)

    averaged = train(
        network,
        loss,
        run,
        validate=lambda model: vae_figures(_as_vae(model), held_out),
        pictures=lambda model: {
            "slices and reconstructions": vae_picture(_as_vae(model), held_out)
        },
    )
    return _as_vae(averaged)


def _as_vae(model: nn.Module) -> VAE:
    network = distributed.bare(model)
    assert isinstance(network, VAE)
    return network
