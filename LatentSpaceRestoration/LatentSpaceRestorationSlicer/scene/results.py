"""From a detection to nodes: made together, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer import (
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLPlotSeriesNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _

from . import changes, display, score_plot
from .nodes import (
    SEGMENT_ID,
    addNode,
    putBeside,
    sceneUnchangedOnFailure,
    worldPosition,
    writeSegment,
    writeVolume,
)
from .record import SceneRecord
from .stored import StoredResult, partOf, store

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Detection, SliceScore
    from LatentSpaceRestorationLib.detector import Detector


@dataclass(frozen=True)
class DetectionResult:
    """What ``LatentSpaceRestorationLogic.detect`` gives.

    Attributes:
        sampleScore: how unusual the scan is; its unit is the model's.
        percentile: 0 to 100, among the model's healthy scans; None where the map is not to be
            trusted, as a warning says. Then nothing is flagged.
        sliceScores: with ``position_mm`` (RAS, superior) and ``score``, one a slice.
        anomalyMap: volume, higher is more anomalous, 0 outside the brain.
        segmentation: where the map reaches the threshold.
        restoration: volume, the scan as the model would have it if it were healthy.
        spread: volume, how far the restorations differ from each other.
        signs: volume, what gives voxels away: numbers of ``scoring.signs.SIGNS``.
        scoreTable, scoreChart, scoreSeries: the slice scores as a table and a plot.
        warnings: what the user should know.
        detection: the library's own result, with all arrays.
        detector: what made it.
        stored: the result as it is kept in the scene.
    """

    sampleScore: float
    percentile: float | None
    sliceScores: tuple[SliceScore, ...]
    anomalyMap: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    restoration: vtkMRMLScalarVolumeNode
    spread: vtkMRMLScalarVolumeNode
    signs: vtkMRMLScalarVolumeNode
    scoreTable: vtkMRMLTableNode
    scoreChart: vtkMRMLPlotChartNode
    scoreSeries: vtkMRMLPlotSeriesNode
    warnings: tuple[str, ...]
    detection: Detection
    detector: Detector
    stored: StoredResult

    def nodes(self) -> tuple[vtkMRMLNode, ...]:
        """The nodes, main ones first."""
        return (
            self.anomalyMap,
            self.segmentation,
            self.restoration,
            self.spread,
            self.signs,
            self.scoreTable,
            self.scoreChart,
            self.scoreSeries,
        )


def writeResult(
    detection: Detection,
    detector: Detector,
    inputVolume: vtkMRMLScalarVolumeNode,
    affine: np.ndarray,
    *,
    anomalyMap: vtkMRMLScalarVolumeNode | None,
    segmentation: vtkMRMLSegmentationNode | None,
    restoration: vtkMRMLScalarVolumeNode | None,
    warnings: tuple[str, ...],
) -> DetectionResult:
    """Write a detection into nodes with the input's geometry, transform and place in the hierarchy.

    Args:
        detection: arrays on the input's grid.
        detector: what made it.
        inputVolume: the scan.
        affine: (4, 4) voxel index -> RAS that the scan was analysed in.
        anomalyMap, segmentation, restoration: nodes to write to; None makes one.
        warnings: beside those of the detection.
    """
    name = inputVolume.GetName()
    warnings = (*warnings, *detection.warnings)
    record = SceneRecord.of(detection, detector, affine, warnings)
    with sceneUnchangedOnFailure():
        volume = "vtkMRMLScalarVolumeNode"
        if anomalyMap is not None:
            changes.forget(anomalyMap)
        anomalyMap = anomalyMap or addNode(volume, _("{name} anomaly map"), name)
        restoration = restoration or addNode(volume, _("{name} restoration"), name)
        spread = partOf(anomalyMap, "Spread")
        spread = spread or addNode(volume, _("{name} restoration spread"), name)
        signs = partOf(anomalyMap, "Signs") or addNode(volume, _("{name} signs"), name)
        segmentation = segmentation or addNode(
            "vtkMRMLSegmentationNode", _("{name} anomalies"), name
        )
        writeVolume(anomalyMap, detection.anomaly_map, inputVolume)
        writeVolume(restoration, detection.restoration, inputVolume)
        writeVolume(spread, detection.restoration_sd, inputVolume)
        given = (
            np.zeros_like(detection.anomaly_mask) if detection.signs is None else detection.signs
        )
        writeVolume(signs, given, inputVolume, np.uint8)
        writeSegment(segmentation, detection.anomaly_mask, inputVolume)
        segmentation.CreateClosedSurfaceRepresentation()
        display.showMap(anomalyMap, detection.threshold)
        display.showSpread(spread)
        display.copyGreyWindow(inputVolume, restoration)
        display.showSegment(segmentation, SEGMENT_ID)
        table, chart, series = score_plot.addNodes(name, detection.slice_scores)
        result = DetectionResult(
            sampleScore=detection.sample_score,
            percentile=detection.percentile,
            sliceScores=detection.slice_scores,
            anomalyMap=anomalyMap,
            segmentation=segmentation,
            restoration=restoration,
            spread=spread,
            signs=signs,
            scoreTable=table,
            scoreChart=chart,
            scoreSeries=series,
            warnings=warnings,
            detection=detection,
            detector=detector,
            stored=store(
                anomalyMap,
                record,
                Input=inputVolume,
                Segmentation=segmentation,
                Restoration=restoration,
                Spread=spread,
                Signs=signs,
                ScoreChart=chart,
            ),
        )
        putBeside(inputVolume, result.nodes())
        display.overlay(inputVolume, anomalyMap)
    return result


def peakPosition(result: DetectionResult | StoredResult) -> tuple[float, float, float] | None:
    """Where the map is highest, RAS of the world in mm; None if it is 0 or was removed."""
    anomalyMap = result.anomalyMap
    if not slicer.mrmlScene.IsNodePresent(anomalyMap):
        return None
    values = slicer.util.arrayFromVolume(anomalyMap)
    if values.max() <= 0:
        return None
    k, j, i = (int(x) for x in np.unravel_index(int(values.argmax()), values.shape))
    return worldPosition(anomalyMap, (i, j, k))
