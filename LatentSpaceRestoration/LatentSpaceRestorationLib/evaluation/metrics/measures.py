"""What is kept of one detection: a few numbers, and counts of voxels and of regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ...detection import Detection
from ...results.regions import Extent, find_regions
from ...volume import dice, voxel_ml
from .histograms import Histogram, Table

if TYPE_CHECKING:
    from ..synthetic.design import Case

#: Thresholds of the regions: so many to a factor of two.
STEPS_PER_OCTAVE = 12
#: Thresholds go down to this share of the calibrated one.
LOWEST_SHARE = 0.25
#: Smaller regions do not count, in ml.
SMALLEST_ML = 0.1
#: A region is of the lesion if at least this share of it lies there; the whole brain flagged finds
#: nothing.
SHARE_IN_LESION = 0.2


@dataclass(frozen=True)
class Regions:
    """Connected regions of the map above each of a ladder of thresholds.

    Threshold number n is 2^(n / STEPS_PER_OCTAVE); arrays start with number ``first``. Above the
    last, nothing is flagged.

    Attributes:
        first: number of the lowest threshold.
        false: (n,) regions that are not of a lesion.
        found: (n,) bool, whether a region is of the lesion.
    """

    first: int
    false: np.ndarray
    found: np.ndarray


@dataclass(frozen=True)
class Measured:
    """What is kept of one case and one method.

    Attributes:
        numbers: ``sample_score``, ``percentile``, ``p_value``, ``healthy_scans``, ``threshold``,
            ``flagged_ml``, ``brain_ml`` and ``flagged_at`` (ml by place in words), and of a scan
            with a label ``label_ml``, ``ap``, ``auroc``, ``dice`` (at the calibrated threshold),
            ``dice_oracle``, ``hit`` (the map's peak lies in it) and ``top_3`` (so does the
            peak of one of the three highest regions).
        voxels: of the whole scan, on its own grid.
        regions: at many thresholds.
    """

    numbers: dict[str, Any]
    voxels: Histogram
    regions: Regions


def measure(found: Detection, label: np.ndarray, affine: np.ndarray) -> Measured:
    """Compare a detection with the truth.

    Args:
        found: the detection.
        label: (I, J, K) bool, what is anomalous.
        affine: (4, 4) IJK -> RAS in mm, of both.
    """
    voxels = Histogram.of(found.anomaly_map, label)
    one_ml = voxel_ml(affine)
    regions = find_regions(
        found.anomaly_map,
        found.anomaly_mask,
        Extent.of(found.brain_mask, affine),
        affine,
        SMALLEST_ML,
    )
    places: dict[str, float] = {}
    for region in regions:
        places[region.words] = places.get(region.words, 0.0) + region.volume_ml
    numbers: dict[str, Any] = {
        "sample_score": found.sample_score,
        "percentile": found.percentile,
        "p_value": found.p_value,
        "healthy_scans": found.healthy_scans,
        "threshold": found.threshold,
        "flagged_ml": float((found.anomaly_mask > 0).sum()) * one_ml,
        "brain_ml": float((found.brain_mask > 0).sum()) * one_ml,
        "flagged_at": places,
    }
    if label.any():
        table = Table.of([voxels])
        ap, auroc = table.ap_and_auroc(np.ones((1, 1)))
        numbers |= {
            "label_ml": float(label.sum()) * one_ml,
            "ap": float(ap[0]),
            "auroc": float(auroc[0]),
            "dice": dice(found.anomaly_mask, label),
            "dice_oracle": table.best_dice(),
            "hit": bool(label.ravel()[np.argmax(found.anomaly_map)]),
            "top_3": any(bool(label[region.index]) for region in regions[:3]),
        }
    return Measured(numbers, voxels, _regions(found, label, one_ml))


def _regions(found: Detection, label: np.ndarray, one_ml: float) -> Regions:
    brain = found.brain_mask > 0
    box = ndimage.find_objects(brain.astype(np.uint8))
    cut = box[0] if box else tuple(slice(n) for n in brain.shape)
    values, truth = found.anomaly_map[cut], label[cut]
    highest = float(values.max())
    lowest = max(LOWEST_SHARE * found.threshold, 1e-6)
    first = int(np.ceil(STEPS_PER_OCTAVE * np.log2(lowest)))
    if not highest > 0.0:
        return Regions(first, np.zeros(0, np.int64), np.zeros(0, bool))
    last = int(np.floor(STEPS_PER_OCTAVE * np.log2(highest)))
    false, hits = [], []
    for number in range(first, last + 1):
        labels, count = ndimage.label(
            values >= 2.0 ** (number / STEPS_PER_OCTAVE), structure=np.ones((3, 3, 3))
        )
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        inside = np.bincount(labels[truth], minlength=count + 1)[1:]
        counted = sizes * one_ml >= SMALLEST_ML
        of_lesion = inside >= SHARE_IN_LESION * sizes
        false.append(int((counted & ~of_lesion).sum()))
        hits.append(bool((counted & of_lesion & (inside > 0)).any()))
    return Regions(first, np.array(false, np.int64), np.array(hits, bool))


@dataclass(frozen=True)
class CaseResult:
    """One case and one candidate.

    Attributes:
        case, candidate: names and sizes.
        measured: figures.
        picture: file of the panes.
        site: where the scan was made; empty if that is not known.
    """

    case: Case
    candidate: str
    measured: Measured
    picture: Path
    site: str = ""
