"""Writing arrays into nodes that lie on a scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _

from . import display

#: ID and, untranslated, name of the segment that the anomalies go to.
SEGMENT_ID = "Anomaly"

#: Of Slicer's list; what stands there for a finding that has no name yet is a mass.
_TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure"
    "~SCT^4147007^Mass~^^"
    "~Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"
)


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


def addNode(className: str, title: str, name: str) -> vtkMRMLNode:
    """Add a node.

    Args:
        className: of the node.
        title: of the node, with a place for ``{name}``.
        name: the scan's.
    """
    unique = slicer.mrmlScene.GenerateUniqueName(title.format(name=name))
    return slicer.mrmlScene.AddNewNodeByClass(className, unique)


def writeVolume(
    node: vtkMRMLScalarVolumeNode,
    array: np.ndarray,
    inputVolume: vtkMRMLScalarVolumeNode,
    voxelType: type = np.float32,
) -> None:
    """Write an array into a volume that lies on another, under its transform.

    Args:
        node: gets a display node if it has none.
        array: (I, J, K) on the input's grid.
        inputVolume: gives geometry and transform.
        voxelType: of the volume.
    """
    slicer.util.updateVolumeFromArray(node, array.transpose(2, 1, 0).astype(voxelType))
    # Writing an array sets no geometry.
    node.CopyOrientation(inputVolume)
    node.SetAndObserveTransformNodeID(inputVolume.GetTransformNodeID())
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()


def writeSegment(
    node: vtkMRMLSegmentationNode, mask: np.ndarray, reference: vtkMRMLScalarVolumeNode
) -> None:
    """Write a mask into the segment of anomalies, which is made if it is not there.

    A surface that the segmentation had is gone afterwards.

    Args:
        node: other segments of it stay as they are.
        mask: (I, J, K) on the reference's grid.
        reference: gives geometry and transform.
    """
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    isNew = node.GetSegmentation().GetSegment(SEGMENT_ID) is None
    fillSegment(node, SEGMENT_ID, _("Anomaly"), display.SEGMENT_COLOUR, mask, reference)
    if isNew:
        segment = node.GetSegmentation().GetSegment(SEGMENT_ID)
        segment.SetTag(segment.GetTerminologyEntryTagName(), _TERMINOLOGY)


def fillSegment(
    node: vtkMRMLSegmentationNode,
    segment: str,
    title: str,
    colour: tuple[float, float, float],
    mask: np.ndarray,
    reference: vtkMRMLScalarVolumeNode,
) -> None:
    """Write a mask into a segment, which is made if it is not there.

    Args:
        node: other segments of it stay as they are.
        segment: its ID.
        title, colour: of the segment, if it is made.
        mask: (I, J, K) on the reference's grid.
        reference: gives geometry.
    """
    segmentation = node.GetSegmentation()
    if segmentation.GetSegment(segment) is None:
        segmentation.AddEmptySegment(segment, title, colour)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.transpose(2, 1, 0).astype(np.uint8), node, segment, reference
    )


def putBeside(inputVolume: vtkMRMLScalarVolumeNode, nodes: Sequence[vtkMRMLNode]) -> None:
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


def worldPosition(
    node: vtkMRMLScalarVolumeNode, index: tuple[int, int, int]
) -> tuple[float, float, float]:
    """RAS of a voxel (i, j, k) in the world, in mm, through the parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    place = matrix.MultiplyPoint((*(float(i) for i in index), 1.0))[:3]
    if node.GetParentTransformNode() is not None:
        toWorld = vtk.vtkGeneralTransform()
        node.GetParentTransformNode().GetTransformToWorld(toWorld)
        place = toWorld.TransformPoint(place)
    r, a, s = place
    return r, a, s
