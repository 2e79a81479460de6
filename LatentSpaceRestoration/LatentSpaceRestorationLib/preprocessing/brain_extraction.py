"""Brain extraction: a mask on the head's grid, by a small U-Net or from the scan itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..bundle import schema
from ..errors import InputError
from ..volume import cube_ml
from .slices import ResampledScan, crop

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from ..networks.unet import UNet3D

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
#: A box that a brain has room in, slices, rows and columns at 2 mm: what the network is shown, so
#: that it sees the same of a head whatever lies around it.
BOX = (96, 112, 96)
#: Where the brain is, is looked for at this many times the spacing.
COARSE = 2
#: Brightest intensity that a network is shown, in the brain's median above air.
BRIGHTEST = 3.0
#: Less than this, in ml, is no whole brain of an adult.
_WHOLE_ML = 700.0
#: The box is laid about the brain at most so often, until its middle moves by no more, in voxels.
_MOST_LOOKS, _OFF_CENTRE = 3, 4
#: Where a brain comes from.
GIVEN, EXTRACTED, NETWORK = "given", "extracted scan", "network"
_TAKEN_AS_IT_IS = "the scan is already brain-extracted and taken as it is"


@dataclass(frozen=True)
class BrainNetworks:
    """What finds a brain.

    Attributes:
        outline: draws it; in a box about the brain, if there is a locator, or else in a whole head.
        locator: finds where it is, at half the resolution; None in bundles made before there was
            one.
        threshold: probability above which a voxel is brain.
    """

    outline: UNet3D
    locator: UNet3D | None = None
    threshold: float = 0.5


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


def already_extracted(
    head: ResampledScan, measured: np.ndarray, spacing_mm: float
) -> np.ndarray | None:
    """The brain of a scan from which all else was removed, or None for a whole head.

    A scan may count as extracted when all but at most a brain's volume was put in, by whatever
    value (see :mod:`field_of_view`).

    Args:
        head: the scan.
        measured: (slices, rows, columns) bool, what was not put in.
        spacing_mm: of both.

    Returns:
        (slices, rows, columns) bool, holes filled, or None.
    """
    present = measured & head.inside
    voxel_ml = cube_ml(spacing_mm)
    if not present.any() or float(present.sum()) * voxel_ml > EXTRACTED_ML:
        return None
    mask = largest_piece(ndimage.binary_opening(present))
    return mask if float(mask.sum()) * voxel_ml >= SMALLEST_ML else None


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
    """Intensities for a network that sees a whole head: 0 is the darkest, 1 is bright tissue.

    Args:
        array: (D, H, W) native intensities.

    Returns:
        (D, H, W) float32, at most 2.
    """
    low = float(np.percentile(array, 0.5))
    shifted = np.maximum(array - low, 0.0)
    bright = shifted[shifted > shifted.mean()]
    scale = float(np.percentile(bright, 90)) if bright.size else 1.0
    return np.clip(shifted / max(scale, 1e-12), 0.0, 2.0).astype(np.float32)


def roughly_scaled(array: np.ndarray) -> np.ndarray:
    """Intensities for the network that finds where the brain is, before that is known.

    0 is air, 1 is tissue that is neither dark nor bright, wherever the bounds of the scan are: the
    median of what is brighter than Otsu's threshold, which parts air from tissue.

    Args:
        array: (D, H, W) native intensities.

    Returns:
        (D, H, W) float32 in [0, BRIGHTEST].
    """
    low, high = np.percentile(array, (0.5, 99.5))
    if not high > low:
        return np.zeros(array.shape, np.float32)
    shifted = np.clip(array - low, 0.0, high - low)
    tissue = shifted[shifted > _otsu(shifted)]
    return scaled(array, float(low), float(low) + float(np.median(tissue)))


def _otsu(values: np.ndarray) -> float:
    """Otsu's threshold (1979), of 256 bins. Slicer is not asked to install scikit-image for it."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2.0
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    total = np.cumsum(counts * centres)
    means = total[:-1] / np.maximum(below, 1), (total[-1] - total[:-1]) / np.maximum(above, 1)
    return float(centres[(below * above * (means[0] - means[1]) ** 2).argmax()])


def scaled(array: np.ndarray, air: float, tissue: float) -> np.ndarray:
    """Intensities with air at 0 and the brain's median at 1, float32 in [0, BRIGHTEST]."""
    values = (array - air) / max(tissue - air, 1e-12)
    return np.clip(values, 0.0, BRIGHTEST).astype(np.float32)


def boxed(
    array: np.ndarray, centre: np.ndarray, shape: Sequence[int], fill: float = 0.0
) -> tuple[np.ndarray, tuple[slice, ...], tuple[slice, ...]]:
    """As :func:`slices.crop`, by the voxel that is to lie at ``shape // 2`` of the box."""
    start = [int(c) - n // 2 for c, n in zip(centre, shape, strict=True)]
    return crop(array, start, shape, fill)


def middle_of(mask: np.ndarray) -> np.ndarray:
    """(3,) the median of a mask along each axis, in voxels from the array's corner.

    What leaks out moves it little, and in the mirror image it lies as far from the other corner.
    """
    return np.array([float(np.median(index)) + 0.5 for index in np.nonzero(mask)])


def load_networks(bundle: Bundle) -> BrainNetworks:
    """The networks of a bundle of brain extraction, in evaluation mode.

    Raises:
        BundleError: a file is damaged or does not fit the settings.
    """
    from ..networks.unet import UNet3D

    def load(settings: str, file: str) -> UNet3D:
        try:
            network = UNet3D(**bundle.config[settings])
            network.load_state_dict(bundle.tensors(file))
        except (RuntimeError, TypeError, KeyError) as error:
            raise bundle.misfit(error) from error
        return network.eval()

    locator = load("locator", schema.LOCATOR) if bundle.has_network("locator") else None
    threshold = float(bundle.config.get("probability", 0.5))
    return BrainNetworks(load("unet", schema.OUTLINE), locator, threshold)


def brain_found(networks: BrainNetworks, head: ResampledScan, device: str = "cpu") -> np.ndarray:
    """(slices, rows, columns) bool, what the networks take for brain, in one piece."""
    probability = brain_probability(networks, head, device)
    return largest_piece(probability > networks.threshold) & head.inside


def brain_probability(
    networks: BrainNetworks, head: ResampledScan, device: str = "cpu"
) -> np.ndarray:
    """(slices, rows, columns) float32, the probability that a voxel is brain.

    The mean over the head and its mirror image: left and right must not matter.
    """
    if networks.locator is None:
        return _looked_at_twice(networks.outline, network_input(head.array), device)
    found = _located(networks.locator, head, device)
    probability = np.zeros(head.array.shape, np.float32)
    air = float(np.percentile(head.array, 0.5))
    centre: np.ndarray | None = None
    for _ in range(_MOST_LOOKS):
        if not found.any():
            break
        before, centre = centre, 2 * np.round(middle_of(found) / 2.0).astype(int)
        if before is not None and np.abs(centre - before).max() <= _OFF_CENTRE:
            break
        box, here, there = boxed(head.array, centre, BOX, air)
        darkest = float(np.percentile(box, 0.5))
        shown = scaled(box, darkest, float(np.median(head.array[found])))
        probability[:] = 0.0
        probability[there] = _looked_at_twice(networks.outline, shown, device)[here]
        found = largest_piece(probability > networks.threshold)
    return probability


def _located(locator: UNet3D, head: ResampledScan, device: str) -> np.ndarray:
    """(slices, rows, columns) bool, roughly the brain."""
    import torch
    import torch.nn.functional as F

    # All but the mean over the blocks is as in training, where the block is part of the copy.
    whole = torch.from_numpy(head.array.astype(np.float32))[None, None]
    blocks = F.avg_pool3d(whole, COARSE, ceil_mode=True, count_include_pad=False)
    rough = roughly_scaled(blocks[0, 0].numpy())
    found = largest_piece(_looked_at(locator, [rough], device)[0] > 0.5)
    for axis, size in enumerate(head.array.shape):
        found = found.repeat(COARSE, axis=axis).take(np.arange(size), axis=axis)
    return found & head.inside


def _looked_at_twice(network: UNet3D, image: np.ndarray, device: str) -> np.ndarray:
    """(D, H, W) float32, the mean probability over an image and its mirror image."""
    mirror = np.ascontiguousarray(image[:, :, ::-1])
    straight, mirrored = _looked_at(network, [image, mirror], device)
    return np.asarray((straight + mirrored[:, :, ::-1]) / 2.0, dtype=np.float32)


def _looked_at(network: UNet3D, images: list[np.ndarray], device: str) -> list[np.ndarray]:
    """(D, H, W) float32 probabilities of each of some images of one shape."""
    import torch
    import torch.nn.functional as F

    from ..runtime.threads import in_pieces

    d, h, w = images[0].shape
    padding: list[int] = []
    for size in (w, h, d):
        # Norms need more than one voxel at the coarsest level.
        padding += [0, max(-size % network.multiple, 2 * network.multiple - size)]
    network = network.to(device)

    def look(part: slice) -> torch.Tensor:
        x = F.pad(torch.from_numpy(images[part.start])[None, None], padding)
        return torch.sigmoid(network(x.to(device)))[0, 0, :d, :h, :w].float().cpu()

    return [np.asarray(found.numpy()) for found in in_pieces(look, len(images), 1, device)]


def extract_brain(
    head: ResampledScan,
    measured: np.ndarray,
    spacing_mm: float,
    networks: BrainNetworks | None,
    device: str = "cpu",
) -> BrainMask:
    """Find the brain of a head scan.

    Args:
        head: on the patient's axes, at the spacing the networks were trained at.
        measured: (slices, rows, columns) bool, what was not put in (see :mod:`field_of_view`).
        spacing_mm: of both.
        networks: None if no extraction model is installed.
        device: torch device.

    Raises:
        InputError: no brain was found.
    """
    extracted = already_extracted(head, measured, spacing_mm)
    if networks is None:
        if extracted is None:
            raise InputError("no brain-extraction model is installed; give a brain mask")
        return BrainMask(extracted, EXTRACTED, (_TAKEN_AS_IT_IS,))
    mask = brain_found(networks, head, device)
    volume = float(mask.sum()) * cube_ml(spacing_mm)
    if extracted is not None:
        # Part of a head, or a small one, may have no more voxels than a brain.
        cut = edge_share(extracted, head.inside) > edge_limit(spacing_mm)
        least = SMALLEST_ML if cut else _WHOLE_ML
        if volume < least or (mask & extracted).sum() >= _SAME_SHARE * extracted.sum():
            return BrainMask(extracted, EXTRACTED, (_TAKEN_AS_IT_IS,))
    if not SMALLEST_ML <= volume <= LARGEST_ML:
        raise InputError(
            f"no brain was found (what looks most like one has {volume:.0f} ml); "
            "check that this is a T1-weighted head scan, or give a brain mask"
        )
    return BrainMask(mask, NETWORK)
