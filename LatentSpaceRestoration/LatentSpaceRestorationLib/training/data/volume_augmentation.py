"""Copies of whole heads as another scanner or person might have given them, made once and kept.

MONAI, not TorchIO: it needs nothing but numpy and torch, where TorchIO brings some twenty packages;
both are kept up. MONAI counts in voxels, which is no loss here: a head lies on an isotropic grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...preprocessing.slices import ResampledScan

#: Smoothness of the elastic displacement, mm.
_ELASTIC_SIGMA_MM = 16.0


@dataclass(frozen=True)
class VolumeAugmentation:
    """Ranges of the random changes; each is drawn anew for every copy.

    Attributes:
        copies: of each training scan, besides the scan as it is; 0 needs no MONAI.
        rotation_deg, scale: about each axis, +-degrees and +-share.
        elastic_mm: standard deviation of a smooth displacement.
        bias: size of the coefficients of a smooth multiplicative field (logarithm).
        blur_mm: largest standard deviation of a Gaussian, drawn by axis.
        coarse: largest factor by which the voxels grow in a third of the copies.
        seed: of the draws.
    """

    copies: int = 0
    rotation_deg: float = 6.0
    scale: float = 0.06
    elastic_mm: float = 1.5
    bias: float = 0.3
    blur_mm: float = 1.2
    coarse: float = 2.0
    seed: int = 0


def version() -> str:
    """The library's, which decides what a seed draws."""
    return str(_monai().__version__)


def vary_head(
    head: ResampledScan,
    mask: np.ndarray,
    spacing_mm: float,
    settings: VolumeAugmentation,
    seed: int,
    labels: np.ndarray | None = None,
) -> tuple[ResampledScan, np.ndarray, np.ndarray | None]:
    """A head and its brain, changed together.

    Args:
        head: at ``spacing_mm``.
        mask: (slices, rows, columns) bool, brain.
        spacing_mm: of both.
        settings: ranges.
        seed: of this copy.
        labels: (slices, rows, columns) uint8, tissues, if they are known.

    Returns:
        head, mask and labels of the same shapes.

    Raises:
        ConfigError: MONAI is not installed.
    """
    monai = _monai()
    transforms = monai.transforms
    sigma = _ELASTIC_SIGMA_MM / spacing_mm
    # A Gaussian leaves this much of the standard deviation of white noise in [-1, 1], per voxel.
    left = math.sqrt(1.0 / 3.0) / (2.0 * math.sqrt(math.pi) * sigma) ** 1.5
    magnitude = settings.elastic_mm / spacing_mm / left
    angle = math.radians(settings.rotation_deg)
    blur = (0.0, settings.blur_mm / spacing_mm)
    low = float(head.array.min())
    given = {"image": (head.array - low)[None], "mask": mask[None].astype(np.float32)}
    if labels is not None:
        given["labels"] = labels[None].astype(np.float32)
    change = transforms.Compose(
        [
            transforms.Rand3DElasticd(
                tuple(given),
                sigma_range=(sigma, sigma),
                magnitude_range=(0.0, magnitude),
                prob=1.0,
                rotate_range=(angle,) * 3,
                scale_range=(settings.scale,) * 3,
                mode=("bilinear", *["nearest"] * (len(given) - 1)),
                padding_mode="zeros",
            ),
            transforms.RandBiasFieldd("image", coeff_range=(-settings.bias, settings.bias), prob=1),
            transforms.RandGaussianSmoothd(
                "image", sigma_x=blur, sigma_y=blur, sigma_z=blur, prob=1.0
            ),
            transforms.RandSimulateLowResolutiond(
                "image", prob=1.0 / 3.0, zoom_range=(1.0 / settings.coarse, 1.0)
            ),
        ]
    )
    change.set_random_state(seed=seed)
    changed = change(given)
    array = np.asarray(changed["image"][0], dtype=np.float32) + low
    brain = np.asarray(changed["mask"][0]) > 0.5
    moved = None if labels is None else np.round(changed["labels"][0]).astype(np.uint8)
    return replace(head, array=array), brain & head.inside, moved


def _monai() -> Any:
    try:
        import monai.transforms
    except ImportError as error:
        raise ConfigError(
            "volume_augmentation.copies needs MONAI, which is not installed; install the extra "
            '"training", or set it to 0'
        ) from error
    return monai
