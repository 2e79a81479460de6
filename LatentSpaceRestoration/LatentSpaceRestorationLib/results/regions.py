"""What a result says, in words: how unusual the scan is, and where that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import DISTRUST
from ..runtime.side_by_side import gaussian_filter
from ..scoring.signs import SIGNS
from ..volume import Box, box_of, positions, voxel_ml

#: What is said in place of a percentile.
NO_PERCENTILE = f"no percentile, since {DISTRUST}"

#: Closer to the middle of the brain than this share of its half extent is neither side.
_MIDDLE = 0.12
#: The peak of the map is looked for in its Gaussian mean of this standard deviation.
_PEAK_MM = 3.0
#: Signs that give away this share of a region are kept, and those of this one are said.
_TOLD_SHARE, _MAIN_SHARE = 0.1, 0.25
#: Voxels no further apart than this tell where it is.
_FINE_MM = 1.0
_SIDES = (
    ("left", "midline", "right"),
    ("back", "middle", "front"),
    ("lower", "mid-height", "upper"),
)


@dataclass(frozen=True)
class Extent:
    """How far the brain reaches, which gives places in it their names, and how large it is.

    Attributes:
        low_mm, high_mm: (R, A, S) of the outermost voxels' centres.
        volume_ml: of the brain; 0 where there is none.
    """

    low_mm: tuple[float, float, float]
    high_mm: tuple[float, float, float]
    volume_ml: float

    @classmethod
    def of(cls, brain_mask: np.ndarray, affine: np.ndarray) -> Extent:
        """The extent of the non-zero voxels of an (I, J, K) mask; affine: (4, 4) IJK -> RAS."""
        box = box_of(brain_mask)
        inside = brain_mask[box] != 0
        # Whichever way the axes run, a column of voxels is outermost at one of its ends.
        ends = np.zeros_like(inside)
        rows, columns = np.nonzero(inside.any(axis=2))
        for way in (inside, inside[:, :, ::-1]):
            depth = way[rows, columns].argmax(axis=1)
            at = depth if way is inside else inside.shape[2] - 1 - depth
            ends[rows, columns, at] = True
        first = np.array([part.start for part in box])
        points = positions(ends, affine) + affine[:3, :3] @ first
        if not len(points):
            return cls((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)
        (r0, a0, s0), (r1, a1, s1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return cls((r0, a0, s0), (r1, a1, s1), int(np.count_nonzero(inside)) * voxel_ml(affine))

    def words(self, position_mm: np.ndarray) -> str:
        """Side, front to back and height of an (R, A, S), such as ``left, back, upper``."""
        if not self.volume_ml:
            return "place in the brain unknown"
        low, high = np.array(self.low_mm), np.array(self.high_mm)
        share = (position_mm - (low + high) / 2.0) / np.maximum((high - low) / 2.0, 1e-6)
        sides = np.where(share < -_MIDDLE, 0, np.where(share > _MIDDLE, 2, 1))
        return ", ".join(words[side] for words, side in zip(_SIDES, sides, strict=True))


@dataclass(frozen=True)
class Evidence:
    """What a region is flagged for.

    Attributes:
        signs: names of :data:`scoring.signs.SIGNS` with the share of its voxels that they give
            away, the largest first; those of a tenth and more. Empty where they are not known.
        intensity, expected: means of the scan and of its restoration; None where not known.
    """

    signs: tuple[tuple[str, float], ...] = ()
    intensity: float | None = None
    expected: float | None = None

    @property
    def main(self) -> tuple[str, ...]:
        """Names of the signs that are worth saying."""
        return tuple(
            name for n, (name, share) in enumerate(self.signs) if n == 0 or share >= _MAIN_SHARE
        )

    @property
    def words(self) -> str:
        """Such as ``darker than expected (212, expected 305), unlikely structure``, or nothing."""
        said: list[str] = []
        for name in self.main:
            words = {sign.name: sign.words for sign in SIGNS}.get(name, name)
            known = self.intensity is not None and self.expected is not None
            if known and name in ("darker", "brighter"):
                words += f" ({_short(self.intensity)}, expected {_short(self.expected)})"
            said.append(words)
        return ", ".join(said)


@dataclass(frozen=True)
class Seen:
    """Images that tell what regions are flagged for, (I, J, K).

    Attributes:
        signs: numbers of ``SIGNS``; None if they are not known.
        scan, restoration: intensities.
    """

    signs: np.ndarray | None
    scan: np.ndarray
    restoration: np.ndarray


@dataclass(frozen=True)
class Region:
    """Flagged voxels that touch, by a face, an edge or a corner.

    Attributes:
        index: (i, j, k) of the voxel where the map is highest.
        position_mm: that voxel's (R, A, S).
        words: where it lies in the brain, as in :class:`MostAnomalousPlace`.
        volume_ml: of the region.
        peak, mean: of the map in it.
        evidence: what it is flagged for.
    """

    index: tuple[int, int, int]
    position_mm: tuple[float, float, float]
    words: str
    volume_ml: float
    peak: float
    mean: float
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class MostAnomalousPlace:
    """Where the anomaly is greatest.

    Attributes:
        index: (i, j, k) voxel.
        position_mm: the voxel's RAS position.
        words: side, front to back and height within the brain, such as ``left, back, upper``.
        volume_ml: what is flagged around it; 0 where nothing is.
    """

    index: tuple[int, int, int]
    position_mm: tuple[float, float, float]
    words: str
    volume_ml: float

    def position(self) -> str:
        """Such as ``(-28, +4, +31) mm``."""
        return "(" + ", ".join(f"{round(x):+d}" for x in self.position_mm) + ") mm"


def find_regions(
    anomaly_map: np.ndarray,
    anomaly_mask: np.ndarray,
    brain: Extent,
    affine: np.ndarray,
    smallest_ml: float = 0.0,
    seen: Seen | None = None,
) -> list[Region]:
    """The regions that are flagged, the one with the highest peak first.

    Args:
        anomaly_map: (I, J, K), higher is more anomalous.
        anomaly_mask: (I, J, K), non-zero where flagged.
        brain: in the same RAS; it gives the words their sides.
        affine: (4, 4) IJK -> RAS in mm.
        smallest_ml: smaller regions are left out.
        seen: tells what they are flagged for; None leaves that out.
    """
    box = box_of(anomaly_mask)
    labels, count = ndimage.label(anomaly_mask[box], structure=np.ones((3, 3, 3)))
    if not count:
        return []
    anomaly_map, first = anomaly_map[box], np.array([part.start for part in box])
    flagged = np.flatnonzero(labels)
    label, value = labels.ravel()[flagged], anomaly_map.ravel()[flagged]
    size = np.bincount(label, minlength=count + 1)
    total = np.bincount(label, weights=value, minlength=count + 1)
    # Sorted by region and within it by value, so that each region ends with its peak.
    peak_voxel = flagged[np.lexsort((value, label))[np.cumsum(size)[1:] - 1]]
    evidence = _evidence(seen, box, flagged, label, size)
    regions = []
    for number, voxel in enumerate(peak_voxel, start=1):
        volume_ml = int(size[number]) * voxel_ml(affine)
        if volume_ml < smallest_ml:
            continue
        place = np.array(np.unravel_index(voxel, labels.shape))
        i, j, k = (place + first).tolist()
        position = affine[:3, :3] @ (i, j, k) + affine[:3, 3]
        x, y, z = position.tolist()
        regions.append(
            Region(
                index=(i, j, k),
                position_mm=(x, y, z),
                words=brain.words(position),
                volume_ml=volume_ml,
                peak=float(anomaly_map[tuple(place)]),
                mean=float(total[number] / size[number]),
                evidence=evidence[number],
            )
        )
    return sorted(regions, key=lambda region: -region.peak)


def _evidence(
    seen: Seen | None, box: Box, flagged: np.ndarray, label: np.ndarray, size: np.ndarray
) -> list[Evidence]:
    """Of each region, by its label; the first is of none."""
    if seen is None:
        return [Evidence()] * len(size)

    at = np.unravel_index(flagged, [part.stop - part.start for part in box])

    def there(image: np.ndarray) -> np.ndarray:
        return np.asarray(image[box][at])

    def means(image: np.ndarray) -> list[float]:
        total = np.bincount(label, weights=there(image), minlength=len(size))
        return (total / np.maximum(size, 1)).tolist()

    counts = np.zeros((len(size), len(SIGNS) + 1))
    if seen.signs is not None:
        both = label * counts.shape[1] + there(seen.signs)
        counts += np.bincount(both, minlength=counts.size).reshape(counts.shape)
    shares = counts[:, 1:] / np.maximum(counts[:, 1:].sum(axis=1, keepdims=True), 1.0)
    found = []
    for row, intensity, expected in zip(
        shares.tolist(), means(seen.scan), means(seen.restoration), strict=True
    ):
        named = zip((sign.name for sign in SIGNS), row, strict=True)
        main = sorted((s for s in named if s[1] >= _TOLD_SHARE), key=lambda s: -s[1])
        found.append(Evidence(tuple(main), intensity, expected))
    return found


def most_anomalous_place(
    anomaly_map: np.ndarray, anomaly_mask: np.ndarray, brain_mask: np.ndarray, affine: np.ndarray
) -> MostAnomalousPlace:
    """Where the map is highest over some millimetres, and how much is flagged around it.

    Not the middle of the largest region: in a scan that differs everywhere a little, regions grow
    into one another, and their middle says nothing.

    Args:
        anomaly_map: (I, J, K), 0 outside the brain, higher is more anomalous.
        anomaly_mask: (I, J, K), non-zero where flagged. The place is flagged if anything is.
        brain_mask: (I, J, K), non-zero in the brain; it gives the words their sides.
        affine: (4, 4) IJK -> RAS in mm.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    flagged = anomaly_mask if anomaly_mask.any() else anomaly_map  # which is 0 further away
    box = box_of(flagged, np.ceil(3.0 * _PEAK_MM / spacing) + 1)
    # Of a fine scan, every second or third voxel tells as much.
    step = np.maximum(_FINE_MM / spacing + 1e-3, 1.0).astype(int)
    if not flagged[box][_every(step)].any():
        step = np.ones(3, int)
    smooth = gaussian_filter(
        anomaly_map[box][_every(step)], _PEAK_MM / (step * spacing), truncate=3
    )
    smooth[flagged[box][_every(step)] == 0] = -np.inf
    voxel = step * np.unravel_index(np.argmax(smooth), smooth.shape)
    volume_ml = 0.0
    if flagged is anomaly_mask:
        labels, _ = ndimage.label(flagged[box], structure=np.ones((3, 3, 3)))
        around = int(np.count_nonzero(labels == labels[tuple(voxel)]))
        volume_ml = around * voxel_ml(affine)
    voxel += [part.start for part in box]
    position = affine[:3, :3] @ voxel + affine[:3, 3]
    i, j, k = voxel.tolist()
    x, y, z = position.tolist()
    words = Extent.of(brain_mask, affine).words(position)
    return MostAnomalousPlace((i, j, k), (x, y, z), words, volume_ml)


def _every(step: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(None, None, n) for n in step.tolist())


def _short(value: float | None) -> str:
    """An intensity, with three digits at least."""
    return "" if value is None else f"{value:.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share in percent, 0 to 100, with two digits."""
    return f"{share:.2g}%" if share < 99.5 else f"{share:.0f}%"


def score_in_words(p_value: float | None, healthy_scans: int, healthy_sites: int = 0) -> str:
    """Such as ``more unusual than 19 of 20 healthy scans (p = 0.095)``.

    Args:
        p_value: (1 + healthy scans that score as high) / (1 + healthy scans); None where the map
            is not to be trusted.
        healthy_scans: how many there are.
        healthy_sites: of how many sites; 0 and 1 are not told of.
    """
    if healthy_scans < 1:
        return "no healthy scans to compare it with"
    if p_value is None:
        return NO_PERCENTILE
    lower = healthy_scans + 1 - round(p_value * (healthy_scans + 1))
    whom = f"{healthy_scans} healthy scans"
    if healthy_sites > 1:
        whom += f" of {healthy_sites} sites"
    if lower >= healthy_scans:
        # No smaller p can come of this many scans.
        return f"more unusual than all {whom} (p at most {p_value:.2g})"
    if lower <= 0:
        return f"no more unusual than any of {whom} (p = {p_value:.2g})"
    return f"more unusual than {lower} of {whom} (p = {p_value:.2g})"
