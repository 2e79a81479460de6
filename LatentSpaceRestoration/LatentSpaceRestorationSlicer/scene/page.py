"""A result of the scene as a page: one file, in which it is scrolled through without Slicer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from .regions import imageOf
from .stored import StoredResult

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import SliceScore


def writePage(result: StoredResult, path: str | Path) -> Path:
    """Write the page of a result, cut where its segmentation is cut now.

    Args:
        result: whose scan and images are in the scene.
        path: of the page; what is there is replaced.

    Returns:
        the page.

    Raises:
        ValueError: the scan or an image of the result was removed, or is on another grid now.
        LatentSpaceRestorationLib.errors.OutputError: the page cannot be written.
    """
    from LatentSpaceRestorationLib.calibration.quantiles import Quantiles
    from LatentSpaceRestorationLib.results.report.scan import write_page
    from LatentSpaceRestorationLib.volume import Volume

    record, values, node = result.record, result.values(), result.inputVolume
    scan = _voxels(node, values.shape)
    restoration = _voxels(result.restoration, values.shape)
    figures = dataclasses.replace(
        record.figures,
        threshold=result.threshold,
        threshold_percentile=result.percentile,
        slice_scores=_sliceScores(result),
    )
    # The map is 0 outside the brain.
    detection = figures.detection(
        values,
        result.flagged().astype(np.uint8),
        restoration.astype(np.float32),
        (values > 0).astype(np.uint8),
        imageOf(result.signs, values.shape),
    )
    affine = np.array(record.affine)
    assert node is not None
    name = node.GetName()
    volume = Volume(scan, affine, name)
    return write_page(
        Path(path),
        name,
        volume,
        detection,
        figures.with_regions(detection, volume),
        Quantiles(np.array(record.healthyPercentiles), np.array(record.healthyValues)),
    )


def _voxels(node: vtkMRMLScalarVolumeNode | None, shape: tuple[int, ...]) -> np.ndarray:
    """(I, J, K), of a volume on the map's grid."""
    if node is None or node.GetImageData() is None:
        raise ValueError(
            _("The scan or the restoration of this result was removed; run the detection again.")
        )
    array = imageOf(node, shape)
    if array is None:
        raise ValueError(
            _("{name} is on another grid than the map; run the detection again.").format(
                name=node.GetName()
            )
        )
    return array


def _sliceScores(result: StoredResult) -> tuple[SliceScore, ...]:
    """From the table that the plot shows; none if it was removed."""
    from LatentSpaceRestorationLib.detection import SliceScore

    series = result.scoreSeries
    table = None if series is None else series.GetTableNode()
    if series is None or table is None:
        return ()
    names = (series.GetXColumnName(), series.GetYColumnName())
    positions, scores = (slicer.util.arrayFromTableColumn(table, name) for name in names)
    return tuple(SliceScore(float(p), float(s)) for p, s in zip(positions, scores, strict=True))
