"""Results as they lie in the scene: found again by their scan, in a scene that was saved too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
from slicer import (
    vtkMRMLNode,
    vtkMRMLPlotChartNode,
    vtkMRMLPlotSeriesNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
from slicer.i18n import tr as _

from . import display
from .nodes import SEGMENT_ID, writeSegment
from .record import SceneRecord

#: Attributes of an anomaly map: its record, and the healthy percentile at which it is cut now.
_RECORD = "LatentSpaceRestoration.Result"
_PERCENTILE = "LatentSpaceRestoration.ThresholdPercentile"
#: How an anomaly map refers to the nodes around it.
_ROLE = "LatentSpaceRestoration{part}"


@dataclass(frozen=True)
class StoredResult:
    """An anomaly map of the scene with its record and with the nodes that belong to it.

    A node that was removed is None.
    """

    anomalyMap: vtkMRMLScalarVolumeNode
    record: SceneRecord

    @classmethod
    def of(cls, node: vtkMRMLScalarVolumeNode) -> StoredResult | None:
        """The result that a volume is the anomaly map of; None if it is none."""
        record = SceneRecord.fromText(node.GetAttribute(_RECORD) or "")
        return None if record is None else cls(node, record)

    @property
    def inputVolume(self) -> vtkMRMLScalarVolumeNode | None:
        """The scan."""
        return self.node("Input")

    @property
    def segmentation(self) -> vtkMRMLSegmentationNode | None:
        """Where the map reaches the threshold."""
        return self.node("Segmentation")

    @property
    def restoration(self) -> vtkMRMLScalarVolumeNode | None:
        """The scan as it would be if it were healthy, by the model."""
        return self.node("Restoration")

    @property
    def spread(self) -> vtkMRMLScalarVolumeNode | None:
        """How far the restorations differ from each other."""
        return self.node("Spread")

    @property
    def signs(self) -> vtkMRMLScalarVolumeNode | None:
        """What gives voxels away, by the numbers of ``SIGNS``."""
        return self.node("Signs")

    @property
    def scoreChart(self) -> vtkMRMLPlotChartNode | None:
        """The plot of the slice scores."""
        return self.node("ScoreChart")

    @property
    def scoreSeries(self) -> vtkMRMLPlotSeriesNode | None:
        """The series of that plot."""
        return None if self.scoreChart is None else self.scoreChart.GetNthPlotSeriesNode(0)

    @property
    def percentile(self) -> float:
        """Healthy percentile at which the segmentation is cut now."""
        text = self.anomalyMap.GetAttribute(_PERCENTILE)
        return self.record.threshold if text is None else float(text)

    @property
    def threshold(self) -> float:
        """Value of the map at which the segmentation is cut now."""
        return _cut(self.record, self.percentile)

    def node(self, part: str) -> vtkMRMLNode | None:
        """A node that the map refers to."""
        return self.anomalyMap.GetNodeReference(_ROLE.format(part=part))

    def refer(self, **parts: vtkMRMLNode | None) -> None:
        """Let the map refer to nodes."""
        for part, node in parts.items():
            name = None if node is None else node.GetID()
            self.anomalyMap.SetNodeReferenceID(_ROLE.format(part=part), name)

    def isInScene(self) -> bool:
        """Whether the map and the segmentation are still there to be changed."""
        present = bool(slicer.mrmlScene.IsNodePresent(self.anomalyMap))
        return present and self.segmentation is not None

    def values(self) -> np.ndarray:
        """The map's voxels, (I, J, K)."""
        array: np.ndarray = slicer.util.arrayFromVolume(self.anomalyMap).transpose(2, 1, 0)
        return array

    def flagged(self) -> np.ndarray:
        """(I, J, K) bool: the voxels at or above the threshold; none of a map not to be trusted."""
        values = self.values()
        if self.record.figures.p_value is None:
            return np.zeros(values.shape, bool)
        return values >= self.threshold


def store(
    anomalyMap: vtkMRMLScalarVolumeNode, record: SceneRecord, **parts: vtkMRMLNode | None
) -> StoredResult:
    """Keep a record with a map, and what belongs to it.

    Args:
        anomalyMap: gets them; what it had before is replaced.
        record: of the detection.
        parts: Input, Segmentation, Restoration, Spread, Signs and ScoreChart.
    """
    anomalyMap.SetAttribute(_RECORD, record.toText())
    anomalyMap.SetAttribute(_PERCENTILE, repr(record.threshold))
    result = StoredResult(anomalyMap, record)
    result.refer(**parts)
    return result


def partOf(anomalyMap: vtkMRMLScalarVolumeNode, part: str) -> vtkMRMLNode | None:
    """What belonged to a map before, such as its spread, to be written to again."""
    return anomalyMap.GetNodeReference(_ROLE.format(part=part))


def latest(inputVolume: vtkMRMLScalarVolumeNode | None) -> StoredResult | None:
    """The last result of a scan that is in the scene; None if there is none."""
    if inputVolume is None:
        return None
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        result = StoredResult.of(node)
        if result is not None and result.inputVolume is inputVolume and result.isInScene():
            found.append(result)
    return max(found, key=lambda result: result.record.made, default=None)


def cutAt(result: StoredResult, percentile: float, surface: bool = True) -> None:
    """Cut a result's segmentation, and what is shown of its map, at another healthy percentile.

    Args:
        result: whose nodes are in the scene.
        percentile: of healthy brain voxels, above 0 and below 100.
        surface: make the segmentation's surface again, if it had one. That may take seconds;
            without, it has none afterwards.

    Raises:
        ValueError: not between 0 and 100, or the segmentation was removed.
    """
    if not 0.0 < percentile < 100.0:
        raise ValueError(
            _("The threshold is a healthy percentile between 0 and 100, not {given}.").format(
                given=f"{percentile:g}"
            )
        )
    segmentation = result.segmentation
    if segmentation is None:
        raise ValueError(_("The segmentation of this result was removed; run the detection again."))
    slicer.mrmlScene.SaveStateForUndo()
    result.anomalyMap.SetAttribute(_PERCENTILE, repr(float(percentile)))
    hadSurface = hasSurface(segmentation)
    writeSegment(segmentation, result.flagged(), result.anomalyMap)
    if surface and hadSurface:
        segmentation.CreateClosedSurfaceRepresentation()
    display.showSegment(segmentation, SEGMENT_ID)
    display.showFrom(result.anomalyMap, result.threshold)


def hasSurface(segmentation: vtkMRMLSegmentationNode) -> bool:
    """Whether a segmentation has closed surfaces."""
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    return bool(segmentation.GetSegmentation().ContainsRepresentation(name))


def _cut(record: SceneRecord, percentile: float) -> float:
    # The map is 0 outside the brain, which is never flagged.
    return max(record.value(percentile), float(np.finfo(np.float32).tiny))
