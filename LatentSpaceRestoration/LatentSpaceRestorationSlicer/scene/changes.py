"""What a restoration changed of its scan, as a signed difference and as an outline.

Both are made when they are first asked for: they follow from the scan and its restoration.
"""

from __future__ import annotations

import numpy as np
import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from . import display
from .nodes import addNode, fillSegment, putBeside, writeVolume
from .stored import StoredResult

#: ID and, untranslated, name of the segment of what was replaced.
REPLACED_ID = "Replaced"
_COLOUR = (0.95, 0.85, 0.3)


@display.withoutUndoStates()
def difference(result: StoredResult) -> vtkMRMLScalarVolumeNode | None:
    """The scan less its restoration: above 0 where the scan is brighter; None if one is gone."""
    node, scan = result.node("Difference"), result.inputVolume
    if node is not None:
        return node
    values = _signed(result)
    if values is None or scan is None:
        return None
    node = addNode(
        "vtkMRMLScalarVolumeNode", _("{name} less its restoration"), scan.GetName() or ""
    )
    writeVolume(node, values, result.anomalyMap)
    display.showSigned(node)
    result.refer(Difference=node)
    putBeside(scan, [node])
    return node


@display.withoutUndoStates()
def outline(result: StoredResult, shown: bool) -> None:
    """Draw, or not, the outline of what was replaced, as a segment beside the anomalies."""
    segmentation = result.segmentation
    if segmentation is None:
        return
    segments = segmentation.GetSegmentation()
    if not shown:
        if segments.GetSegment(REPLACED_ID) is not None:
            segments.RemoveSegment(REPLACED_ID)
        return
    values = _signed(result)
    if values is None or segments.GetSegment(REPLACED_ID) is not None:
        return
    title = _("Replaced")
    fillSegment(segmentation, REPLACED_ID, title, _COLOUR, values != 0, result.anomalyMap)
    shownAs = segmentation.GetDisplayNode()
    shownAs.SetSegmentVisibility2DFill(REPLACED_ID, False)
    shownAs.SetSegmentVisibility3D(REPLACED_ID, False)


def forget(anomalyMap: vtkMRMLScalarVolumeNode) -> None:
    """Take away what was made of an earlier restoration, before a map is written to again."""
    earlier = StoredResult.of(anomalyMap)
    if earlier is None:
        return
    outline(earlier, False)
    node = earlier.node("Difference")
    if node is not None:
        slicer.mrmlScene.RemoveNode(node)


def _signed(result: StoredResult) -> np.ndarray | None:
    """(I, J, K) float32, the scan less its restoration."""
    scan, restoration = result.inputVolume, result.restoration
    if scan is None or restoration is None:
        return None
    pair = [slicer.util.arrayFromVolume(node).astype(np.float32) for node in (scan, restoration)]
    if pair[0].shape != pair[1].shape:
        return None
    return np.asarray((pair[0] - pair[1]).transpose(2, 1, 0))
