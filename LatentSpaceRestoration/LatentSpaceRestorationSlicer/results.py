"""From a detection to nodes: made together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer import (
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLPlotSeriesNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _

from . import display, scores

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Detection, SliceScore
    from LatentSpaceRestorationLib.detector import Detector

#: ID and, untranslated, name of the segment that the anomalies go to.
SEGMENT_ID = "Anomaly"

_TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure"
    "~SCT^49755003^Morphologically Abnormal Structure~^^"
    "~Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"
)


@dataclass(frozen=True)
class DetectionResult:
    """What ``LatentSpaceRestorationLogic.detect`` gives.

    Attributes:
        sampleScore: how unusual the scan is; its unit is the model's.
        percentile: 0 to 100, among the model's healthy scans.
        sliceScores: with ``position_mm`` (RAS, superior) and ``score``, one a slice.
        anomalyMap: volume, higher is more anomalous, 0 outside the brain.
        segmentation: where the map reaches the threshold.
        restoration: volume, the scan as the model would have it if it were healthy.
        scoreTable, scoreChart, scoreSeries: the slice scores as a table and a plot.
        warnings: what the user should know.
        detection: the library's own result, with all arrays.
        detector: what made it; knows the thresholds.
    """

    sampleScore: float
    percentile: float
    sliceScores: tuple[SliceScore, ...]
    anomalyMap: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    restoration: vtkMRMLScalarVolumeNode
    scoreTable: vtkMRMLTableNode
    scoreChart: vtkMRMLPlotChartNode
    scoreSeries: vtkMRMLPlotSeriesNode
    warnings: tuple[str, ...]
    detection: Detection
    detector: Detector

    def nodes(self) -> tuple[vtkMRMLNode, ...]:
        """The nodes, main ones first."""
        return (
            self.anomalyMap,
            self.segmentation,
            self.restoration,
            self.scoreTable,
            self.scoreChart,
            self.scoreSeries,
        )

    def isInScene(self) -> bool:
        """Whether the map and the segmentation are still there to be changed."""
        scene = slicer.mrmlScene
        return bool(scene.IsNodePresent(self.anomalyMap) and scene.IsNodePresent(self.segmentation))


@contextmanager
def sceneUnchangedOnFailure() -> Iterator[None]:
    """Remove every node that was added inside, display and storage nodes too, if that raises."""
    scene = slicer.mrmlScene
    before = {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}
    try:
        yield
    except BaseException:
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        for node in reversed([node for node in nodes if node.GetID() not in before]):
            if scene.IsNodePresent(node):
                scene.RemoveNode(node)
        raise


def writeResult(
    detection: Detection,
    detector: Detector,
    inputVolume: vtkMRMLScalarVolumeNode,
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
        anomalyMap, segmentation, restoration: nodes to write to; None makes one.
        warnings: beside those of the detection.
    """
    name = inputVolume.GetName()
    with sceneUnchangedOnFailure():
        anomalyMap = anomalyMap or _add("vtkMRMLScalarVolumeNode", _("{name} anomaly map"), name)
        restoration = restoration or _add("vtkMRMLScalarVolumeNode", _("{name} restoration"), name)
        segmentation = segmentation or _add("vtkMRMLSegmentationNode", _("{name} anomalies"), name)
        writeVolume(anomalyMap, detection.anomaly_map, inputVolume)
        writeVolume(restoration, detection.restoration, inputVolume)
        _writeSegment(segmentation, detection.anomaly_mask, inputVolume)
        display.showMap(anomalyMap, detection.threshold)
        display.copyGreyWindow(inputVolume, restoration)
        display.showSegment(segmentation, SEGMENT_ID)
        table, chart, series = scores.addNodes(name, detection.slice_scores)
        result = DetectionResult(
            sampleScore=detection.sample_score,
            percentile=detection.percentile,
            sliceScores=detection.slice_scores,
            anomalyMap=anomalyMap,
            segmentation=segmentation,
            restoration=restoration,
            scoreTable=table,
            scoreChart=chart,
            scoreSeries=series,
            warnings=(*warnings, *detection.warnings),
            detection=detection,
            detector=detector,
        )
        _putBeside(inputVolume, result.nodes())
        display.overlay(inputVolume, anomalyMap)
    return result


def writeVolume(
    node: vtkMRMLScalarVolumeNode, array: np.ndarray, inputVolume: vtkMRMLScalarVolumeNode
) -> None:
    """Write an array into a volume that lies on another, under its transform.

    Args:
        node: gets a display node if it has none.
        array: (I, J, K) on the input's grid.
        inputVolume: gives geometry and transform.
    """
    slicer.util.updateVolumeFromArray(node, array.transpose(2, 1, 0).astype(np.float32))
    # Writing an array sets no geometry.
    node.CopyOrientation(inputVolume)
    node.SetAndObserveTransformNodeID(inputVolume.GetTransformNodeID())
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()


def cutAt(result: DetectionResult, threshold: float) -> None:
    """Make the segment, and the part of the map that is shown, those at or above a map value."""
    detection = result.detection
    mask = (detection.anomaly_map >= threshold) & (detection.brain_mask > 0)
    _writeSegment(result.segmentation, mask.astype(np.uint8), result.anomalyMap)
    display.showSegment(result.segmentation, SEGMENT_ID)
    display.showMap(result.anomalyMap, threshold)


def peakPosition(result: DetectionResult) -> tuple[float, float, float] | None:
    """Where the anomaly map is highest, RAS of the world in mm; None if it is 0 or was removed."""
    values = result.detection.anomaly_map
    node = result.anomalyMap
    if not slicer.mrmlScene.IsNodePresent(node) or values.max() <= 0:
        return None
    ijk = np.unravel_index(int(values.argmax()), values.shape)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    place = matrix.MultiplyPoint((*(float(index) for index in ijk), 1.0))[:3]
    if node.GetParentTransformNode() is not None:
        toWorld = vtk.vtkGeneralTransform()
        node.GetParentTransformNode().GetTransformToWorld(toWorld)
        place = toWorld.TransformPoint(place)
    r, a, s = place
    return r, a, s


def _add(className: str, title: str, name: str) -> vtkMRMLNode:
    unique = slicer.mrmlScene.GenerateUniqueName(title.format(name=name))
    return slicer.mrmlScene.AddNewNodeByClass(className, unique)


def _writeSegment(
    node: vtkMRMLSegmentationNode, mask: np.ndarray, reference: vtkMRMLScalarVolumeNode
) -> None:
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    segmentation = node.GetSegmentation()
    if segmentation.GetSegment(SEGMENT_ID) is None:
        segmentation.AddEmptySegment(SEGMENT_ID, _("Anomaly"), display.SEGMENT_COLOUR)
        segment = segmentation.GetSegment(SEGMENT_ID)
        segment.SetTag(segment.GetTerminologyEntryTagName(), _TERMINOLOGY)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.transpose(2, 1, 0).astype(np.uint8), node, SEGMENT_ID, reference
    )
    node.CreateClosedSurfaceRepresentation()


def _putBeside(inputVolume: vtkMRMLScalarVolumeNode, nodes: tuple[vtkMRMLNode, ...]) -> None:
    """Give nodes the input's parent in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    own = hierarchy.GetItemByDataNode(inputVolume)
    if not own:
        return
    parent = hierarchy.GetItemParent(own)
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, parent)
