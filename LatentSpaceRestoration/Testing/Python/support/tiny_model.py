"""A tiny model with random weights, and a generated head to run it on: for tests only.

Its grid is 4 mm and its networks are untrained, so its maps mean nothing; everything else about it
is a model bundle like any other.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics
from LatentSpaceRestorationLib.calibration.code_values import CodeValues
from LatentSpaceRestorationLib.calibration.levels import HealthyLevel, ModeCalibration
from LatentSpaceRestorationLib.calibration.normative import NormativeMap
from LatentSpaceRestorationLib.calibration.quantiles import Quantiles
from LatentSpaceRestorationLib.calibration.tail_probability import TailProbability
from LatentSpaceRestorationLib.networks.layers import fold_weight_norm
from LatentSpaceRestorationLib.networks.masked import MaskedPrior
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.networks.unet import UNet3D
from LatentSpaceRestorationLib.networks.vae import VAE
from LatentSpaceRestorationLib.networks.vqvae import VQVAE
from LatentSpaceRestorationLib.training.calibrate import to_files
from LatentSpaceRestorationLib.volume import Volume
from scipy import ndimage

GRID = (52, 40)
SPACING = 4.0
VQVAE_SETTINGS = {
    "codes": 16,
    "channels": [4, 8, 8],
    "code_dim": 6,
    "encoder_blocks": 1,
    "decoder_blocks": 1,
}
PRIOR_SETTINGS = {
    "codes": 16,
    "shape": [13, 10],
    "channels": 8,
    "blocks": 1,
    "pairs": 1,
    "attention_stride": 1,
    "key_size": 4,
    "value_size": 8,
}

MASKED_SETTINGS = {"codes": 16, "shape": [13, 10], "channels": [8, 8], "blocks": [1, 1]}

VAE_SETTINGS = {
    "shape": list(GRID),
    "latents": 6,
    "channels": [4, 6, 6],
    "neck": 2,
    "beta": 2.0,
}


def write_tiny_model(folder: Path, name: str = "tiny", seed: int = 0) -> Path:
    """Write the bundle ``folder/name`` and return its path."""
    torch.manual_seed(seed)
    vqvae = VQVAE(**VQVAE_SETTINGS)
    vqvae.codebook.count.fill_(1.0)
    # Distances of a random encoder's latents are small: keys of the same spread make codes vary.
    vqvae.codebook.keys.mul_(0.5)
    prior = PixelSNAIL(**PRIOR_SETTINGS)
    masked = MaskedPrior(**MASKED_SETTINGS)
    with torch.no_grad():  # its last layers begin at 0: all codes alike
        masked.last.weight.mul_(4.0)
    voxels = Quantiles(np.array([0.0, 50.0, 99.0, 100.0]), np.array([0.0, 0.4, 2.0, 4.0]))
    scores = tuple(np.linspace(1.0, 3.0, 20))
    place = PlaceStatistics(
        np.full((31, 13, 10), 0.5, np.float32), np.full((31, 13, 10), 0.25, np.float32)
    )
    usual = NormativeMap(place)
    ladder = np.tile(np.arange(1280, dtype=np.float32) / 400.0, (4, 1))
    # So wide that no scan is wider: what the random networks make of one is unlike the place.
    rare = NormativeMap(place, TailProbability(ladder), np.full(20, 1e3, np.float32))
    # About what the random decoder's error is, so that a generated brain is no unknown thing.
    error = PlaceStatistics(np.full_like(place.mean, 4.7), np.full_like(place.sd, 1.0))
    sums = tuple(s * 100 for s in scores)
    values = CodeValues(np.linspace(-0.2, 0.2, 16), np.linspace(0.1, 0.2, 16))
    seen = ModeCalibration(2.8, 0.0, (HealthyLevel(1, voxels, scores),), 99.0, values)
    default = ModeCalibration(2.6, 2.9, (HealthyLevel(15, voxels, scores),), 99.0)
    paper = ModeCalibration(2.8, 2.9, (HealthyLevel(15, voxels, sums),), 99.0)
    codes = Quantiles(np.array([0.0, 100.0]), np.array([0.0, 5.0]))
    calibration, tensors = to_files(
        {f"healthy{i}": "" for i in range(20)},
        codes,
        {
            "default": (
                seen,
                {"difference": rare, "residual": replace(rare, place=error), "nll": rare},
            ),
            "pixelsnail": (default, {"difference": usual, "intensity": usual}),
            "paper": (paper, {}),
        },
    )
    config = {
        "name": name,
        "kind": "anomaly",
        "modality": "T1",
        "grid": list(GRID),
        "spacing_mm": SPACING,
        "orientation": "IPL",
        "intensity": {"rule": "median and interquartile range of the brain", "clip": 3.0},
        "vqvae": VQVAE_SETTINGS,
        "prior": {"kind": "pixelsnail", **PRIOR_SETTINGS},
        "masked": MASKED_SETTINGS,
        # Random networks find more codes unlikely than trained ones.
        "scoring": {"hole_percentile": 40.0},
        "training": {"data": "none: random weights", "subjects": []},
        "metrics": {},
        "licence": "Apache-2.0",
    }
    tensor_files = {
        "vqvae.safetensors": vqvae.state_dict(),
        "prior.safetensors": fold_weight_norm(prior).state_dict(),
        "masked.safetensors": masked.state_dict(),
        "place.safetensors": tensors,
    }
    card = "# A model with random weights\n\nFor tests. Not for any use on people.\n"
    return write_bundle(folder / name, config, tensor_files, calibration, card).folder


def write_tiny_vae_model(folder: Path, name: str = "tiny-vae", seed: int = 0) -> Path:
    """Write the bundle ``folder/name``, a VAE that is not calibrated, and return its path."""
    torch.manual_seed(seed)
    vae = VAE(**VAE_SETTINGS)
    with torch.no_grad():  # a posterior that says something, and images that are not all alike
        vae.to_posterior.weight.mul_(4.0)
        vae.from_latents.weight.mul_(4.0)
    config = {
        "name": name,
        "kind": "vae",
        "modality": "T1",
        "grid": list(GRID),
        "spacing_mm": SPACING,
        "orientation": "IPL",
        "intensity": {"rule": "median and interquartile range of the brain", "clip": 3.0},
        "vae": VAE_SETTINGS,
        "training": {"data": "none: random weights", "subjects": []},
        "metrics": {},
        "licence": "Apache-2.0",
    }
    return write_bundle(folder / name, config, {"vae.safetensors": vae.state_dict()}).folder


def write_tiny_brain_model(folder: Path, seed: int = 0) -> Path:
    """Write an untrained ``brain-extraction`` bundle: it finds nothing sensible in a whole head."""
    torch.manual_seed(seed)
    settings = {"channels": [4, 8]}
    config = {
        "name": "brain-extraction",
        "kind": "brain-extraction",
        "modality": "T1",
        "spacing_mm": 2.0,
        "unet": settings,
        "licence": "Apache-2.0",
    }
    network = UNet3D(**settings)
    return write_bundle(
        folder / "brain-extraction", config, {"unet.safetensors": network.state_dict()}, None, "x\n"
    ).folder


def generated_brain(
    shape: tuple[int, int, int] = (44, 52, 40),
    affine: np.ndarray | None = None,
    seed: int = 0,
) -> Volume:
    """A brain-extracted "scan": an ellipsoid of smooth tissue-like noise, zero around it.

    Args:
        shape: (I, J, K).
        affine: voxel index -> RAS in mm; None is 4 mm along RAS, centred.
        seed: of the noise.

    Returns:
        the scan, about 1.2 l of brain where the shape has room for it.
    """
    if affine is None:
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        affine[:3, 3] = -2.0 * (np.array(shape) - 1)
    index = np.indices(shape).reshape(3, -1)
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2.0) + affine[:3, 3]
    offset = affine[:3, :3] @ index + (affine[:3, 3] - centre)[:, None]
    radius = np.array([66.0, 84.0, 54.0])[:, None]
    brain = (np.square(offset / radius).sum(axis=0) <= 1.0).reshape(shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 8.0 / spacing)
    tissue = 100.0 + 30.0 * smooth / smooth.std()
    return Volume(np.where(brain, np.clip(tissue, 20, 200), 0.0).astype(np.float32), affine, "head")
