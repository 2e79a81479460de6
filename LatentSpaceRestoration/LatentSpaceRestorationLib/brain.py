"""Brain extraction: a mask on the head's grid, by a small U-Net or from the scan itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .errors import InputError
from .preprocessing import Head

if TYPE_CHECKING:
    from .bundle import Bundle
    from .networks.unet import UNet3D

#: A scan whose voxels off the background fill less than this, in ml, holds a brain without a head.
EXTRACTED_ML = 2300.0
#: Share of a brain's surface that may lie at one side of the scan, beyond the cap, a voxel high,
#: that a scan cropped to the brain (a ball of that radius, in mm) leaves there.
EDGE_SHARE, _RADIUS_MM = 0.03, 70.0
#: What a network takes for brain of a brain without a head, at least.
_SAME_SHARE = 0.8
#: Less than this, in ml, is no brain, nor is more than the other.
SMALLEST_ML = 300.0
LARGEST_ML = 3000.0


@dataclass(frozen=True)
class BrainMask:
    """A brain mask and where it comes from.

    Attributes:
        mask: (slices, rows, columns) bool on the head's grid.
        source: ``"given"``, ``"extracted scan"`` or ``"network"``.
        warnings: what the user should know.
    """

    mask: np.ndarray
    source: str
    warnings: tuple[str, ...] = ()


def already_extracted(head: Head, spacing_mm: float) -> np.ndarray | None:
    """The brain of a scan from which all else was removed, or None for a whole head.

    A scan counts as extracted when all but at most a brain's volume has one value, the background,
    be it the least one or not.

    Returns:
        (slices, rows, columns) bool, holes filled, or None.
    """
    inside = head.inside
    if not inside.any():
        return None
    distance = np.abs(head.array - _most_frequent(head.array[inside]))
    spread = float(np.percentile(distance[inside], 99.5))
    if spread <= 0:
        return None
    present = (distance > 1e-3 * spread) & inside
    voxel_ml = spacing_mm**3 / 1000.0
    if float(present.sum()) * voxel_ml > EXTRACTED_ML:
        return None
    share_of_background = 1.0 - present.sum() / inside.sum()
    if share_of_background < 0.1:
        return None
    mask = largest_piece(ndimage.binary_opening(present))
    return mask if float(mask.sum()) * voxel_ml >= SMALLEST_ML else None


def _most_frequent(values: np.ndarray) -> float:
    """The most frequent intensity, as far as a thousand bins can tell."""
    # In float32, intensities far from 0 lie too close together for so many bins.
    counts, edges = np.histogram(values.astype(np.float64), bins=1000)
    fullest = int(counts.argmax())
    within = (values >= edges[fullest]) & (values <= edges[fullest + 1])
    return float(np.median(values[within]))


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of a (D, H, W) bool mask, with its holes filled."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax())


def edge_share(mask: np.ndarray, inside: np.ndarray) -> float:
    """Share of a mask's surface that lies where the scan ends, in one piece: its largest cut.

    Args:
        mask: (D, H, W) bool.
        inside: (D, H, W) bool, within the scan; beyond the array there is none.
    """
    padded, outside = np.pad(mask, 1), ~np.pad(inside, 1)
    surface = padded & ~ndimage.binary_erosion(padded)
    pieces, count = ndimage.label(surface & ndimage.binary_dilation(outside), np.ones((3, 3, 3)))
    largest = float(np.bincount(pieces.ravel())[1:].max()) if count else 0.0
    return largest / max(float(surface.sum()), 1.0)


def edge_limit(spacing_mm: float) -> float:
    """The share above which a brain does not end where the scan does by its own shape."""
    return EDGE_SHARE + spacing_mm / (2.0 * _RADIUS_MM)


def network_input(array: np.ndarray) -> np.ndarray:
    """Intensities for the network: 0 is the darkest, 1 is bright tissue, at most 2.

    Args:
        array: (D, H, W) native intensities.
    """
    low = float(np.percentile(array, 0.5))
    shifted = np.maximum(array - low, 0.0)
    bright = shifted[shifted > shifted.mean()]
    scale = float(np.percentile(bright, 90)) if bright.size else 1.0
    return np.clip(shifted / max(scale, 1e-12), 0.0, 2.0).astype(np.float32)


def load_network(bundle: Bundle) -> UNet3D:
    """The extraction network of a bundle, in evaluation mode.

    Raises:
        BundleError: a file is damaged or does not fit the settings.
    """
    from .networks.unet import UNet3D

    try:
        network = UNet3D(**bundle.config["unet"])
        network.load_state_dict(bundle.tensors("unet.safetensors"))
    except (RuntimeError, TypeError, KeyError) as error:
        raise bundle.misfit(error) from error
    return network.eval()


def brain_probability(network: UNet3D, head: Head, device: str = "cpu") -> np.ndarray:
    """(slices, rows, columns) float32, the network's probability that a voxel is brain.

    The mean over the head and its mirror image: left and right must not matter.
    """
    import torch
    import torch.nn.functional as F

    from .parallel import in_pieces

    x = torch.from_numpy(network_input(head.array))[None, None]
    padding: list[int] = []
    for size in reversed(x.shape[2:]):
        padding += [0, -size % network.multiple]
    d, h, w = head.array.shape

    network = network.to(device)
    images = x, x.flip(4)

    def look(part: slice) -> torch.Tensor:
        logits = network(F.pad(images[part.start], padding).to(device))
        return torch.sigmoid(logits)[0, 0, :d, :h, :w].float().cpu()

    found, mirrored = in_pieces(look, 2, 1, device)
    return np.asarray(((found + mirrored.flip(2)) / 2.0).numpy())


def extract_brain(
    head: Head, spacing_mm: float, network: UNet3D | None, device: str = "cpu"
) -> BrainMask:
    """Find the brain of a head scan.

    Args:
        head: on the patient's axes, at the spacing the network was trained at.
        spacing_mm: that spacing.
        network: None if no extraction model is installed.
        device: torch device.

    Raises:
        InputError: no brain was found.
    """
    extracted = already_extracted(head, spacing_mm)
    # Part of a head has no more voxels than a brain, but it ends where the scan does.
    cut = extracted is not None and edge_share(extracted, head.inside) > edge_limit(spacing_mm)
    if extracted is not None and cut and network is not None:
        found = largest_piece(brain_probability(network, head, device) > 0.5) & head.inside
        least = SMALLEST_ML / (spacing_mm**3 / 1000.0)
        if least <= found.sum() and (found & extracted).sum() < _SAME_SHARE * extracted.sum():
            return BrainMask(found, "network")
    if extracted is not None:
        return BrainMask(
            extracted, "extracted scan", ("the scan is already brain-extracted and taken as it is",)
        )
    if network is None:
        raise InputError("no brain-extraction model is installed; give a brain mask")
    mask = largest_piece(brain_probability(network, head, device) > 0.5) & head.inside
    volume = float(mask.sum()) * spacing_mm**3 / 1000.0
    if not SMALLEST_ML <= volume <= LARGEST_ML:
        raise InputError(
            f"no brain was found (what looks most like one has {volume:.0f} ml); "
            "check that this is a T1-weighted head scan, or give a brain mask"
        )
    return BrainMask(mask, "network")
