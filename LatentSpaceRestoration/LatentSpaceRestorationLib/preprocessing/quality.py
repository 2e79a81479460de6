"""Whether a scan is like those that a model knows: what a person should doubt in its map.

Nothing is refused here. Each check gives a line or nothing, from the scan and its brain in model
space; the lines go with the result, into the panel, the figures and the log. Where one of them says
that the map is not to be trusted, no percentile is told and nothing is flagged.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from ..calibration.atlas import PlaceSums
from ..errors import DISTRUST
from ..model_space import DEPTH_MM
from ..volume import Volume, cube_ml
from .brain_extraction import edge_limit, edge_share
from .resampling import covered
from .slices import PreparedScan

_AS_IT_LIES = (
    "the head could not be laid as the brains that were learned lie, and was used as it lies: a "
    "tilt may count as unusual"
)
#: Air in CT, in Hounsfield units, and the share of a scan's voxels that are at least that dark.
_AIR_HU, _AIR_SHARE = (-1100.0, -800.0), 0.01
#: Where the median of a brain lies in CT, with room for blood and for what a mask takes in, and
#: how far its tissues are apart at most.
_BRAIN_HU, _BRAIN_SPREAD_HU = (-50.0, 150.0), 80.0
#: Brains of adults: ml, and mm from side to side, back to front and bottom to top, with room.
BRAIN_ML = (700.0, 2200.0)
BRAIN_MM = {"wide": (105.0, 175.0), "long": (130.0, 220.0), "high": (90.0, 185.0)}
#: Voxels further apart than this many of the model's blur what the model sees sharp.
COARSE = 2.0
#: Correlation with the usual intensities by place, below which a brain is not like those, and by
#: how much a brain that is turned round must be more like them to count as lying that way.
LIKENESS = 0.25
TURNED = 0.05
#: How many times the healthy share of unlikely codes, and how many healthy standard deviations of
#: reconstruction error, on average over the brain, a scan may have that a model knows.
UNLIKELY, ERROR = 2.3, 1.0
#: How many times as widely as those of the middle healthy scan a known scan's values may spread.
WIDE = 1.8
#: So many times what nearly all voxels stay below are no tissue, and no vessel.
_SPIKE = 10.0
#: What is wider than this, in places by depth, row and column, does not count: bias fields.
_WIDE = (3.0, 2.0, 2.0)
_FEWEST_PLACES = 50


def doubts(
    volume: Volume, prepared: PreparedScan, spacing_mm: float, atlas: np.ndarray | None
) -> tuple[str, ...]:
    """What the user should know before a map is believed, the gravest first.

    Args:
        volume: what was measured of the scan.
        prepared: the scan in model space.
        spacing_mm: of the model's grid.
        atlas: from :func:`alignment.read_atlas`; None leaves the comparison out.
    """
    size, edge = (*_size(prepared, spacing_mm),), (*_edge(volume, prepared, spacing_mm),)
    unlike = () if atlas is None else _unlike(prepared, atlas, bool(size), bool(edge))
    as_it_lies = () if prepared.is_aligned is not False else (_AS_IT_LIES,)
    coarse, spikes = _coarse(volume, spacing_mm), _spikes(volume)
    return (
        *(*_hounsfield(volume, prepared), *unlike, *size, *edge),
        *(*coarse, *spikes, *as_it_lies),
    )


def doubts_of_model(
    unlikely: tuple[float, float] | None, error: float | None, width: float | None = None
) -> tuple[str, ...]:
    """What a model's own statistics say of a scan, beside those of healthy ones.

    Measured with brain-t1: 4 to 6% of codes are unlikely in healthy scans of the scanner that was
    learned from, 4, 8, 8 and 10% in T1 scans with lesions of other scanners, 13 and 14% back to
    front and upside down, 19 to 22% in phantoms, 32 to 46% in inverted and T2-like contrast, 23%
    in noise. The error is -0.4 to 0.2 in healthy scans, -1.1 to -0.5 in those with lesions, 0.0
    and 1.2 back to front and upside down, 2.3 to 7.4 in T2-like contrast, 9 to 10 in phantoms and
    noise. Values spread 0.9 to 1.1 times as widely as usual in healthy scans, and 1.5, 2.5, 2.5
    and 3.4 times in the four with lesions.

    Args:
        unlikely: share of the brain's codes that are unlikely, and the same of healthy scans; None
            where that is not known.
        error: mean over the brain of the reconstruction error, less the normative value there,
            in healthy standard deviations there; None where that is not known.
        width: how many times as widely as those of the middle healthy scan its values spread about
            what is usual at their place; None where that is not known.
    """
    reasons = []
    if unlikely is not None and unlikely[0] > UNLIKELY * unlikely[1]:
        reasons.append(
            f"{100 * unlikely[0]:.0f}% of its codes are unlikely, against {100 * unlikely[1]:.0f}% "
            "in healthy scans"
        )
    if error is not None and error > ERROR:
        reasons.append(f"its reconstruction error is {error:.1f} healthy spreads above the usual")
    if not reasons and width is not None and width > WIDE:
        return (
            f"this scan departs from healthy ones all over, {width:.1f} times as much as usual, as "
            "scans of another scanner or sequence do: only what stands out of that is shown, and "
            "an anomaly must be the plainer to be seen",
        )
    if not reasons:
        return ()
    return (
        f"this does not look like the scans that the model knows ({' and '.join(reasons)}): check "
        f"contrast, orientation and brain mask; {DISTRUST}",
    )


def likeness(
    slices: np.ndarray, mask: np.ndarray, position: np.ndarray, atlas: np.ndarray
) -> float | None:
    """Correlation, over places, of a brain's intensities with the usual ones; -1 to 1.

    Of both, what is as wide as a bias field is taken away first. Measured at 2 mm: 0.58 to 0.71 in
    healthy scans of the scanner that was learned from, 0.46 to 0.70 in T1 scans with lesions of
    other scanners and in one with a strong bias field, -0.05 to 0.1 in noise and phantoms, -0.58
    to -0.54 in inverted and T2-like contrast; turned round, a scan has 0.07 less or lower.

    Args:
        slices: (N, rows, columns), normalised.
        mask: (N, rows, columns) bool.
        position: (N,) of the slices.
        atlas: (depths, h, w) from :func:`alignment.read_atlas`.

    Returns:
        None where there are too few places, or nothing to be compared.
    """
    sums = PlaceSums.of(slices, mask, position)
    if sums.count.shape != atlas.shape:
        return None
    known = sums.filled
    if np.count_nonzero(known) < _FEWEST_PLACES:
        return None
    own = np.where(known, sums.total / np.maximum(sums.count, 1.0), 0.0)
    share = np.maximum(ndimage.gaussian_filter(known.astype(float), _WIDE), 1e-3)

    def detail(values: np.ndarray) -> np.ndarray:
        return (values - ndimage.gaussian_filter(np.where(known, values, 0.0), _WIDE) / share)[
            known
        ]

    mine, theirs = detail(own), detail(atlas)
    if min(mine.std(), theirs.std()) < 1e-3:
        return None
    return float(np.corrcoef(mine, theirs)[0, 1])


def _unlike(prepared: PreparedScan, atlas: np.ndarray, odd_size: bool, cut: bool) -> Iterator[str]:
    """Where a brain of an odd size lies is not known well, and of a part not what it lacks."""
    slices, mask, position = prepared.slices, prepared.mask, prepared.position
    as_is = likeness(slices, mask, position, atlas)
    if as_is is None:
        return
    depth = (0.5 - position) * DEPTH_MM
    from_below = (0.5 - (depth.max() - depth[::-1]) / DEPTH_MM).astype(np.float32)
    same, back = slice(None), slice(None, None, -1)
    turned = {
        "upside down": (back, same, from_below),
        "back to front": (same, back, position),
        "upside down and back to front": (back, back, from_below),
    }
    found = {
        how: likeness(slices[part, rows], mask[part, rows], where, atlas) or 0.0
        for how, (part, rows, where) in turned.items()
    }
    best = max(found, key=lambda how: found[how])
    if as_is < -max(LIKENESS, found[best]):
        yield (
            "what is bright in the brains that were learned is dark in this one, as in T2-weighted "
            f"or inverted scans: give a T1-weighted one; {DISTRUST}"
        )
    elif found[best] >= max(LIKENESS, as_is + TURNED) and not (odd_size or cut):
        yield (
            f"the brain lies {best}, by what is where in it: check the scan's orientation; "
            f"{DISTRUST}"
        )
    elif as_is < LIKENESS and not cut:
        yield (
            "this does not look like the brains that were learned (another contrast, another "
            f"orientation, or no brain): look at the brain mask; {DISTRUST}"
        )


def _hounsfield(volume: Volume, prepared: PreparedScan) -> Iterator[str]:
    """CT: there is air as in CT, and a brain as in CT, whose tissues differ by little."""
    low, high = _AIR_HU
    array = volume.array
    low_brain, high_brain = _BRAIN_HU
    if not (low_brain <= prepared.centre <= high_brain and prepared.scale <= _BRAIN_SPREAD_HU):
        return
    if array.min() < high and np.mean((array >= low) & (array <= high)) >= _AIR_SHARE:
        yield (
            f"intensities reach down to {array.min():.0f}, as in CT: give a T1-weighted MRI; "
            f"{DISTRUST}"
        )


def _size(prepared: PreparedScan, spacing_mm: float) -> Iterator[str]:
    mask = prepared.mask
    found_ml = float(mask.sum()) * cube_ml(spacing_mm) / max(1.0 - prepared.cropped, 1e-6)
    low, high = BRAIN_ML
    if not low <= found_ml <= high:
        yield (
            f"the brain found has {found_ml:.0f} ml, outside {low:.0f} to {high:.0f} ml: "
            "look at the brain mask, or give one"
        )
        return
    for (name, (least, most)), axes in zip(BRAIN_MM.items(), ((0, 1), (0, 2), (1, 2)), strict=True):
        there = np.flatnonzero(mask.any(axis=axes))
        size = float(there[-1] - there[0] + 1) * spacing_mm
        if not least <= size <= most:
            yield (
                f"the brain found is {size:.0f} mm {name}, outside {least:.0f} to {most:.0f} mm: "
                "part of it may be missing, or too much was taken for it; look at the brain mask"
            )
            return


def _edge(volume: Volume, prepared: PreparedScan, spacing_mm: float) -> Iterator[str]:
    # With a margin: the model's own grid may end where the scan does not.
    mask = np.pad(prepared.mask, 1)
    affine = prepared.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(axis=1)
    share = edge_share(mask, np.broadcast_to(covered(volume, mask.shape, affine), mask.shape))
    if share > edge_limit(spacing_mm):
        yield (
            f"the scan ends within the brain ({100 * share:.0f}% of its surface lies at the edge): "
            f"give a scan of the whole head; near the edge {DISTRUST}"
        )


def _spikes(volume: Volume) -> Iterator[str]:
    """A few voxels that outshine all others by far: smoothing spreads them over others."""
    array = volume.array
    darkest, brightest = float(array.min()), float(array.max())
    above = array[array > darkest]
    most = float(np.percentile(above, 99.9)) if len(above) else 0.0
    # From the darkest on, so that an offset does not matter.
    least = darkest + _SPIKE * (most - darkest)
    if not brightest > least:
        return
    count = int(np.count_nonzero(array > least))
    yield (
        f"{count} voxels reach {brightest:.3g}, where 999 of 1000 stay below {most:.3g}: what "
        "lies around them may count as unusual; cut them off"
    )


def _coarse(volume: Volume, spacing_mm: float) -> Iterator[str]:
    coarsest = float(volume.spacing.max())
    if coarsest > COARSE * spacing_mm * 1.01:
        yield (
            f"voxels are up to {coarsest:.1f} mm apart, and {spacing_mm:g} mm where was learned: "
            "small anomalies do not show, and blur may count as unusual"
        )
