"""The baseline VAE: its size, its loss by hand, its folding, its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.networks.vae import VAE, Posterior, folded_vae, squared_error
from LatentSpaceRestorationLib.networks.vqvae import VQVAE
from LatentSpaceRestorationLib.training.data.slices import Slices
from LatentSpaceRestorationLib.training.engine.run import Run, Schedule
from LatentSpaceRestorationLib.training.networks.vae import (
    train_vae,
    vae_figures,
    vae_loss,
    vae_picture,
)
from torch import nn

TINY = {"shape": [16, 12], "latents": 5, "channels": [3, 4, 4], "neck": 2}


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def tiny_vae(seed: int = 0, **changes: object) -> VAE:
    """Random weights, and BatchNorms that have seen something."""
    torch.manual_seed(seed)
    vae = VAE(**{**TINY, **changes})
    with torch.no_grad():
        for _ in range(3):
            vae(torch.randn(6, 1, 16, 12), torch.rand(6) - 0.5)
    return vae.eval()


def images(count: int = 3, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    slices = torch.randn(count, 1, 16, 12, generator=random).clamp(-3, 3)
    return slices, torch.linspace(-0.3, 0.3, count)


@pytest.mark.parametrize(
    ("vqvae", "vae"),
    [
        (
            {
                "channels": (16, 48, 96),
                "code_dim": 64,
                "encoder_blocks": 1,
                "decoder_blocks": 1,
                "encoder_position": False,
            },
            {},
        ),
        (
            {},
            {
                "shape": (160, 160),
                "channels": (16, 32, 64, 256),
                "encoder_blocks": 2,
                "decoder_blocks": 2,
            },
        ),
    ],
    ids=["as shipped", "as published"],
)
def test_it_is_as_large_as_the_vqvae_it_stands_beside(
    vqvae: dict[str, object], vae: dict[str, object]
) -> None:
    beside = VQVAE(**vqvae)
    expected = parameters(beside.encoder, beside.decoder)
    assert parameters(VAE(**vae)) == pytest.approx(expected, rel=0.2)


def test_slices_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        VAE(**{**TINY, "shape": [16, 14]})


def test_kl_of_normal_distributions() -> None:
    posterior = Posterior(torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(posterior.kl(), torch.tensor([[0.0, 2.0, 0.5 * (np.e - 2.0)]]))
    samples = posterior.draw(torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0)))
    # E_q[log q - log p], by drawing.
    normal = torch.distributions.Normal
    q = normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    drawn = (q.log_prob(samples) - normal(0.0, 1.0).log_prob(samples)).mean(0)
    torch.testing.assert_close(drawn, posterior.kl()[0], atol=0.05, rtol=0.02)


def test_the_loss_is_error_and_beta_kl_per_pixel() -> None:
    vae = tiny_vae()
    slices, position = images()
    target = slices + 0.1
    values = {}
    for beta in (0.0, 3.0):
        generator = torch.Generator().manual_seed(5)
        values[beta], figures = vae_loss(vae, slices, position, beta, generator, target)
    noise = torch.randn(3, 5, generator=torch.Generator().manual_seed(5))
    reconstruction, posterior = vae(slices, position, noise)
    kl = posterior.kl().sum(1).mean()
    error = squared_error(target, reconstruction)
    assert error.shape == (3,)
    torch.testing.assert_close(error[1], (target[1] - reconstruction[1]).square().sum())
    torch.testing.assert_close(values[0.0], error.mean() / 192)
    torch.testing.assert_close(values[3.0] - values[0.0], 3.0 * kl / 192)
    assert figures == pytest.approx(
        {"error": float(error.mean().detach()) / 192, "kl": float(kl.detach())}
    )


def test_folding_changes_nothing_but_the_speed() -> None:
    vae = tiny_vae()
    slices, position = images()
    folded = folded_vae(vae)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.decoder.layers)
    torch.testing.assert_close(
        folded.reconstruct(slices, position),
        vae.reconstruct(slices, position),
        atol=1e-5,
        rtol=1e-4,
    )
    assert not any(p.requires_grad for p in folded.parameters())
    slices.requires_grad_(True)
    folded.reconstruct(slices, position).sum().backward()
    assert slices.grad is not None
    assert float(slices.grad.abs().max()) > 0


def prepared_slices(seed: int, count: int = 24) -> Slices:
    """Blobs of one of two sizes."""
    random = np.random.default_rng(seed)
    row, column = np.indices((16, 12))
    radius = random.choice([3.0, 5.0], count)[:, None, None]
    inside = np.hypot(row - 8, column - 6) < radius
    values = np.where(inside, 150 + random.normal(0, 5, inside.shape), 0).astype(np.uint8)
    position = random.uniform(-0.4, 0.4, count).astype(np.float32)
    return Slices(values, position, np.zeros(count, np.int64), ["A"])


def test_training_lowers_the_error_and_beta_the_information(tmp_path: Path) -> None:
    schedule = Schedule(80, batch=8, learning_rate=1e-2, warmup=5, average=0.9, precision="float32")
    figures = {}
    for beta in (0.01, 30.0):
        vae = train_vae(
            {**TINY, "beta": beta},
            prepared_slices(0),
            prepared_slices(1),
            Run(schedule, tmp_path / f"vae-{beta}.pt", report=lambda _: None),
        )
        assert not vae.training
        assert vae.beta == beta
        figures[beta] = vae_figures(vae, prepared_slices(1))
        picture = vae_picture(vae, prepared_slices(1), count=4)
        assert picture.shape == (1, 2 * 16, 4 * 12)
    assert figures[0.01]["l1_brain"] < 0.8
    assert figures[30.0]["kl"] < 0.2 * figures[0.01]["kl"]
    assert figures[30.0]["active"] < figures[0.01]["active"]
