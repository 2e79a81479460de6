"""Training of the VQ-VAE on prepared slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.vqvae import VQVAE
from ..preprocessing import CLIP
from .augmentation import Augmentation, augment
from .loop import Schedule, generator_of, order_of, train
from .slices import Slices


def from_uint8(values: Tensor) -> Tensor:
    """(B, H, W) uint8 -> (B, 1, H, W) float32 in [-CLIP, CLIP]."""
    return values.float().mul(2.0 * CLIP / 255.0).sub(CLIP).unsqueeze(1)


def reconstruction_error(network: VQVAE, slices: Slices, limit: int = 256) -> dict[str, float]:
    """Mean absolute error in the brain and perplexity, over up to ``limit`` slices.

    Returns:
        ``l1_brain`` in robust standard deviations, and ``perplexity`` in keys.
    """
    pick = torch.linspace(0, len(slices.values) - 1, min(limit, len(slices.values))).long()
    images = from_uint8(torch.from_numpy(slices.values)[pick])
    position = torch.from_numpy(slices.position)[pick]
    error, voxels = 0.0, 0.0
    use = torch.zeros(network.codebook.keys.shape[0])
    device = network.codebook.keys.device
    with torch.inference_mode():
        for x, p in zip(images.to(device).split(32), position.to(device).split(32), strict=True):
            codes = network.encode(x, p)
            brain = x > -CLIP
            error += float(((network.decode(codes, p) - x).abs() * brain).sum())
            voxels += float(brain.sum())
            use += torch.bincount(codes.flatten(), minlength=len(use)).cpu()
    share = use / use.sum()
    perplexity = float(torch.exp(-(share * (share + 1e-10).log()).sum()))
    return {"l1_brain": error / voxels, "perplexity": perplexity}


def train_vqvae(
    settings: dict[str, Any],
    data: Slices,
    held_out: Slices,
    schedule: Schedule,
    checkpoint: Path,
    augmentation: Augmentation | None = None,
    *,
    codebook_start: int = 150,
    device: str = "cpu",
    minutes: float = float("inf"),
    report: Callable[[str], None] = print,
) -> VQVAE:
    """Train a VQ-VAE: L1 + beta times the commitment term.

    Args:
        settings: arguments of :class:`VQVAE`.
        data, held_out: prepared slices, of different subjects.
        schedule, checkpoint, device, minutes, report: see :func:`loop.train`.
        augmentation: None for the usual one.
        codebook_start: steps as a plain autoencoder before the k-means start of the codebook.
    """
    torch.manual_seed(schedule.seed)
    network = VQVAE(**settings)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    values = torch.from_numpy(data.values)
    position = torch.from_numpy(data.position)
    augmentation = augmentation or Augmentation()

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        if step == codebook_start:
            _start_codebook(_as_vqvae(model), values, position, augmentation, schedule)
        index = order_of(len(values), schedule.batch, step, schedule.seed)
        with torch.autocast("cpu", enabled=False):
            x, target = augment(from_uint8(values[index]), augmentation, generator)
        x, target = x.to(device), target.to(device)
        out = model(
            x.contiguous(memory_format=torch.channels_last), position[index].to(device), generator
        )
        l1 = (out.reconstruction.float() - target).abs().mean()
        return l1 + out.commitment, {
            "l1": float(l1.detach()),
            "commitment": float(out.commitment.detach()),
            "perplexity": out.perplexity,
        }

    averaged = train(
        network,
        loss,
        schedule,
        checkpoint,
        device=device,
        minutes=minutes,
        report=report,
        validate=lambda model: reconstruction_error(_as_vqvae(model), held_out),
    )
    return _as_vqvae(averaged)


def _start_codebook(
    network: VQVAE,
    values: Tensor,
    position: Tensor,
    augmentation: Augmentation,
    schedule: Schedule,
) -> None:
    """k-means over the latents of many slices, not of one batch alone."""
    generator = generator_of(schedule.seed, 0)
    device = network.codebook.keys.device
    index = torch.randperm(len(values), generator=generator)[:256]
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        x, _ = augment(from_uint8(values[index]), augmentation, generator)
        latents = torch.cat(
            [
                network.encoder(part.to(device), place.to(device)).permute(0, 2, 3, 1).flatten(0, 2)
                for part, place in zip(x.split(32), position[index].split(32), strict=True)
            ]
        )
    pick = torch.randperm(len(latents), generator=generator)[:20000]
    network.codebook.start(latents[pick.to(device)], generator)


def _as_vqvae(model: nn.Module) -> VQVAE:
    assert isinstance(model, VQVAE)
    return model
