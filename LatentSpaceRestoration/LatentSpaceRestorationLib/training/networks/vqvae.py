"""Training of the VQ-VAE on prepared slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...model_space import CLIP
from ...networks import distributed
from ...networks.layers import channels_last
from ...networks.vqvae import VQVAE
from ..data.augmentation import Augmentation, augment, augmented_batch
from ..data.slices import Slices
from ..engine.loop import train
from ..engine.run import Run, generator_of

#: Slices whose latents the codebook's first keys are the centres of.
_START_SLICES = 256
#: Slices that go through the encoder together for that.
_START_PIECE = 32
#: Of their latents, so many.
_START_LATENTS = 20_000


def reconstruction_error(network: VQVAE, slices: Slices, limit: int = 256) -> dict[str, float]:
    """Mean absolute error in the brain and perplexity, over up to ``limit`` slices.

    Returns:
        ``l1_brain`` in robust standard deviations, and ``perplexity`` in keys.
    """
    images, position = slices.take(slices.spread(limit))
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


def reconstruction_picture(network: VQVAE, slices: Slices, count: int = 6) -> Tensor:
    """(1, H, W) in [0, 1]: slices above, what comes back of them below."""
    images, position = slices.take(slices.spread(count + 2)[1:-1])
    device = network.codebook.keys.device
    with torch.inference_mode():
        x, p = images.to(device), position.to(device)
        back = network.decode(network.encode(x, p), p)
    return tiles([images, back.cpu()])


def tiles(rows: list[Tensor]) -> Tensor:
    """(B, 1, H, W) slices in [-CLIP, CLIP] -> one (1, rows H, B W) picture in [0, 1]."""
    picture = torch.cat([torch.cat(list(row[:, 0]), 1) for row in rows])
    return ((picture + CLIP) / (2.0 * CLIP)).clamp(0.0, 1.0)[None]


def train_vqvae(
    settings: Mapping[str, Any],
    data: Slices,
    held_out: Slices,
    run: Run,
    augmentation: Augmentation | None = None,
    *,
    codebook_start: int = 150,
    gradient: float = 0.0,
) -> VQVAE:
    """Train a VQ-VAE: L1, of the slice and of its gradient, + beta times the commitment term.

    Args:
        settings: arguments of :class:`VQVAE`.
        data, held_out: prepared slices, of different subjects.
        run: how long, where, and whom to tell.
        augmentation: None for the usual one.
        codebook_start: steps as a plain autoencoder before the k-means start of the codebook.
        gradient: weight of the differences between neighbours, which edges are made of.
    """
    torch.manual_seed(run.schedule.seed)
    network = VQVAE(**settings)
    channels_last(network)
    augmentation = augmentation or Augmentation()

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        if step == codebook_start:
            _start_codebook(_as_vqvae(model), data, augmentation, run)
        x, target, position = augmented_batch(data, run, step, augmentation, generator)
        out = model(x, position, generator)
        difference = out.reconstruction.float() - target
        l1 = difference.abs().mean()
        value = l1 + out.commitment
        if gradient > 0.0:
            for axis in (2, 3):
                value = value + gradient * difference.diff(dim=axis).abs().mean()
        return value, {
            "l1": float(l1.detach()),
            "commitment": float(out.commitment.detach()),
            "perplexity": out.perplexity,
        }

    averaged = train(
        network,
        loss,
        run,
        validate=lambda model: reconstruction_error(_as_vqvae(model), held_out),
        pictures=lambda model: {
            "slices and reconstructions": reconstruction_picture(_as_vqvae(model), held_out)
        },
    )
    return _as_vqvae(averaged)


def _start_codebook(network: VQVAE, data: Slices, augmentation: Augmentation, run: Run) -> None:
    """k-means over the latents of many slices, not of one batch alone."""
    generator = generator_of(run.schedule.seed, 0)
    device = network.codebook.keys.device
    # BatchNorm makes latents depend on who is in a piece: pieces are the same for any number of
    # processes, and each is shared by all of them.
    size = _START_PIECE - _START_PIECE % distributed.size()
    index = torch.randperm(len(data), generator=generator)[:_START_SLICES]
    index = index[: len(index) - len(index) % distributed.size()]
    images, position = data.take(index)
    latents = []
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        tissue = data.tissue_of(index)
        x, _ = augment(images, augmentation, generator, tissue=tissue, is_share=False)
        for piece, place in zip(x.split(size), position.split(size), strict=True):
            own = distributed.part(len(piece))
            found = network.encoder(piece[own].to(device), place[own].to(device))
            latents.append(distributed.all_rows(found.permute(0, 2, 3, 1).flatten(0, 2)))
    everything = torch.cat(latents)
    pick = torch.randperm(len(everything), generator=generator)[:_START_LATENTS]
    network.codebook.start(everything[pick.to(device)], generator)


def _as_vqvae(model: nn.Module) -> VQVAE:
    network = distributed.bare(model)
    assert isinstance(network, VQVAE)
    return network
