"""What is shown of a restoration: the scan with what is unusual healed, and the rest as it is.

Scores come from the maps of a method; nothing here takes part in them. All arrays are numpy, in
model space: (N, rows, columns) voxels, (N, h, w) cells of the code grid.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..calibration.code_values import by_cell
from ..model_space import interpolated
from ..preprocessing.slices import PreparedScan
from ..runtime.side_by_side import gaussian_filter
from ..scoring.filters import masked_smooth
from ..volume import cube_ml

#: Anomalous regions smaller than this are no reason to redraw anything: healthy scans have many.
_LEAST_ML = 0.3
#: How far beyond what is anomalous tissue is redrawn: what surrounds it looks on at its edge.
_MARGIN_MM = 4.0
#: Gaussians over which the healed tissue takes on the intensities around it, each where the one
#: before does not reach, in mm.
_SURROUNDINGS_MM = (8.0, 16.0, 32.0, 64.0)
#: Share of a Gaussian's weight on tissue that stays from which on it reaches.
_REACHED = 0.2
#: Detail is what a Gaussian of this width takes away, in mm.
_DETAIL_MM = 3.0
#: Sharpness that is aimed at, as a share of the gradient energy of the scan: some is lost on the
#: way to the scan's own grid. At most so much of the detail is added.
_SHARPNESS, _MOST_DETAIL = 1.1, 4.0
#: Percentiles of the tissue that stays which nothing healed goes beyond.
_RANGE = (0.5, 99.5)


def larger_regions(anomalous: np.ndarray, spacing_mm: float) -> np.ndarray:
    """The regions of an (N, rows, columns) bool array that are large enough to be healed."""
    regions, count = ndimage.label(anomalous)
    sizes = np.bincount(regions.ravel(), minlength=count + 1) * cube_ml(spacing_mm)
    large = sizes >= _LEAST_ML
    large[0] = False
    return np.asarray(large[regions])


def cells_to_heal(anomalous: np.ndarray, brain: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Cells of the code grid that reach into an anomalous region, or near to one.

    Args:
        anomalous: (N, rows, columns) bool, of :func:`larger_regions`.
        brain: (N, h, w) bool, cells with brain in them; no others are given.
        spacing_mm: of the voxels.

    Returns:
        (N, h, w) bool.
    """
    if not anomalous.any():
        return np.zeros_like(brain)
    near = ndimage.distance_transform_edt(~anomalous, sampling=spacing_mm) <= _MARGIN_MM
    return np.asarray((by_cell(near, brain.shape) > 0) & brain)


def healed(
    prepared: PreparedScan,
    image: np.ndarray,
    own: np.ndarray,
    cells: np.ndarray,
    spacing_mm: float,
    anomalous: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Healed tissue that fits into the scan, and how far it stands in the scan's place.

    What a decoder makes is too smooth, and a little darker or brighter than the scan here and
    there. Both are seen where nothing was replaced, and are mended where something was: the
    difference of the scan and its own codes is carried on into the healed tissue, and as much
    detail is added as gives the scan's own codes the gradient energy of the scan.

    Args:
        prepared: the scan in model space.
        image: (N, rows, columns), decoded from the codes that replace those of ``cells``.
        own: (N, rows, columns), decoded from the scan's own codes.
        cells: (N, h, w) bool, the codes that were replaced.
        spacing_mm: of the voxels.
        anomalous: (N, rows, columns) bool, what is to be healed to its edge and a voxel further;
            None where that is not known.

    Returns:
        (N, rows, columns) float32 each: the healed tissue, and its weight: 0 outside the cells and
        at their border, 1 where something is anomalous, or else from a cell's width inside.
    """
    if not cells.any():
        return prepared.slices, np.zeros_like(prepared.slices)
    replaced = _in_voxels(cells, image)
    stays = prepared.mask & ~replaced
    weight = (replaced & prepared.mask).astype(np.float32)
    if stays.any():  # what lies outside the brain is no border: it stays as it is in any case
        depth = ndimage.distance_transform_edt(~stays) - 1.0
        if anomalous is None:
            share = depth / (image.shape[1] // cells.shape[1])  # in cells
        else:
            away = np.maximum(ndimage.distance_transform_edt(~anomalous) - 1.0, 0.0)
            share = depth / np.maximum(depth + away, 1e-6)
        weight *= np.clip(share, 0.0, 1.0)
    matched = image + _carried_on(prepared.slices - image, stays, spacing_mm)
    sharp = matched + _detail_wanted(prepared, own, stays, spacing_mm) * _detail(
        matched, prepared.mask, spacing_mm
    )
    if stays.any():
        sharp = np.clip(sharp, *np.percentile(prepared.slices[stays], _RANGE))
    return sharp.astype(np.float32), weight.astype(np.float32)


def spread_between(sd: np.ndarray, drawn: np.ndarray, cells: np.ndarray, count: int) -> np.ndarray:
    """The spread of restorations in all slices, where it is known in some.

    Args:
        sd: (n, rows, columns), of those.
        drawn: (n,) their numbers, evenly spaced.
        cells: (N, h, w) bool, the codes that were replaced.
        count: N.

    Returns:
        (N, rows, columns) float32, 0 where nothing was replaced; between two slices from where
        codes were replaced in them.
    """
    if len(drawn) == count:
        return np.asarray(sd, np.float32)
    replaced = _in_voxels(cells, sd)
    weight = replaced[drawn].astype(np.float32)
    apart = drawn[1] - drawn[0] if len(drawn) > 1 else 1
    place = (np.arange(count) - drawn[0]) / apart
    total, share = (interpolated(one, place) for one in (sd * weight, weight))
    sure = np.maximum(share, 1e-6)
    return np.where(replaced & (share > 0.0), total / sure, 0.0).astype(np.float32)


def _in_voxels(cells: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Cells on the grid of an image's voxels."""
    rows, columns = (n // m for n, m in zip(image.shape[1:], cells.shape[1:], strict=True))
    return cells.repeat(rows, axis=1).repeat(columns, axis=2)


def _carried_on(difference: np.ndarray, stays: np.ndarray, spacing_mm: float) -> np.ndarray:
    """A smooth difference, from where it is known to everywhere."""
    known = stays.astype(np.float32)
    total, reached = np.zeros_like(difference), np.zeros_like(difference)
    for width_mm in _SURROUNDINGS_MM:
        sigma = width_mm / spacing_mm
        share = gaussian_filter(known, sigma, mode="constant", truncate=3.0)
        mean = gaussian_filter(difference * known, sigma, mode="constant", truncate=3.0)
        more = (1.0 - reached) * np.clip(share / _REACHED, 0.0, 1.0)
        total += more * mean / np.maximum(share, 1e-6)
        reached += more
    return np.asarray(total / np.maximum(reached, 1e-6))


def _detail(image: np.ndarray, mask: np.ndarray, spacing_mm: float) -> np.ndarray:
    return np.where(mask, image - masked_smooth(image, mask, _DETAIL_MM / spacing_mm), 0.0)


def _detail_wanted(
    prepared: PreparedScan, own: np.ndarray, stays: np.ndarray, spacing_mm: float
) -> float:
    """How much of its detail is added to what the decoder makes, for the sharpness of the scan."""
    inner = stays & ndimage.binary_erosion(prepared.mask, iterations=3)
    if not inner.any():
        return 0.0

    def gradient(image: np.ndarray) -> np.ndarray:
        return np.stack([part[inner] for part in np.gradient(image)])

    smooth, detail = gradient(own), gradient(_detail(own, prepared.mask, spacing_mm))
    # The energy of smooth + x detail is that of the scan: a x^2 + 2 b x + c = 0.
    a, b = float((detail**2).sum()), float((smooth * detail).sum())
    c = float((smooth**2).sum()) - _SHARPNESS * float((gradient(prepared.slices) ** 2).sum())
    if c >= 0.0 or a <= 0.0:
        return 0.0
    return min((np.sqrt(b * b - a * c) - b) / a, _MOST_DETAIL)
