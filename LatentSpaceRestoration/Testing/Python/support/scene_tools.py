"""Nodes to test with, and a look at the scene. Import it after ``in_slicer.begin()``."""

from __future__ import annotations

from typing import Any

import in_slicer
import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """(3, 3) rotation about an axis."""
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, *axis)
    return np.array(slicer.util.arrayFromVTKMatrix(transform.GetMatrix()))[:3, :3]


def affine(axes: np.ndarray, spacing: tuple[float, float, float], origin: Any) -> np.ndarray:
    """(4, 4) voxel index -> RAS."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(axes, float) * np.asarray(spacing, float)
    matrix[:3, 3] = origin
    return matrix


#: Geometries a scanner or a file may give: (4, 4) voxel index -> RAS.
GEOMETRIES = {
    "along RAS": affine(np.eye(3), (2, 2, 2), (-20, -30, 10)),
    "anisotropic": affine(np.eye(3), (1, 1.5, 4), (0, 0, 0)),
    "LPS": affine(np.diag([-1, -1, 1]), (2, 2, 3), (30, 40, -10)),
    "left-handed": affine(np.diag([-1, 1, 1]), (2, 2, 2), (20, -30, 10)),
    "sagittal": affine([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (1, 1, 3), (-60, 90, 80)),
    "oblique": affine(rotation((1, 2, 3), 25), (1, 2, 3), (5, -6, 7)),
    "oblique left-handed": affine(
        rotation((0, 1, 1), -40) @ np.diag([1, 1, -1]), (2, 1, 1.5), (9, 9, 9)
    ),
}


#: (I, J, K) of the scans that tests make.
SHAPE = (20, 24, 16)
#: A pose that a parent transform may give a scan: 30 degrees about an oblique axis, and a shift.
RIGID = affine(rotation((3, 1, 2), 30), (1, 1, 1), (10, -20, 30))


def scan(hot: tuple[int, int, int] = (14, 7, 11)) -> np.ndarray:
    """(I, J, K): 0 at the border, 100 inside, 200 in a small cube around ``hot``."""
    array = np.zeros(SHAPE, dtype=np.float32)
    array[2:-2, 2:-2, 2:-2] = 100.0
    array[tuple(slice(i - 1, i + 2) for i in hot)] = 190.0
    array[hot] = 200.0
    return array


def add_volume(array: np.ndarray, ijk_to_ras: np.ndarray, name: str = "Head") -> Any:
    """A scalar volume node.

    Args:
        array: (I, J, K).
        ijk_to_ras: (4, 4).
        name: of the node.
    """
    kji = np.ascontiguousarray(array.transpose(2, 1, 0))
    return slicer.util.addVolumeFromArray(kji, ijk_to_ras, name)


def add_transform(matrix: np.ndarray, name: str = "Transform") -> Any:
    """A linear transform node, (4, 4) to its parent."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def add_segment(mask: np.ndarray, volume: Any, name: str = "Mask") -> Any:
    """A segmentation node with one segment.

    Args:
        mask: (I, J, K) on the volume's grid.
        volume: gives grid and transform.
        name: of the node.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    segment = node.GetSegmentation().AddEmptySegment("brain", "brain")
    kji = np.ascontiguousarray(mask.transpose(2, 1, 0).astype(np.uint8))
    slicer.util.updateSegmentBinaryLabelmapFromArray(kji, node, segment, volume)
    return node


def ijk(node: Any) -> np.ndarray:
    """A volume's voxels, (I, J, K)."""
    return np.array(slicer.util.arrayFromVolume(node)).transpose(2, 1, 0)


def segment_ijk(segmentation: Any, segment: str, volume: Any) -> np.ndarray:
    """A segment on a volume's grid, (I, J, K)."""
    kji = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume)
    return np.array(kji).transpose(2, 1, 0)


def to_world(node: Any, index: tuple[int, int, int]) -> np.ndarray:
    """RAS position of a voxel in the world, through the parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    place = matrix.MultiplyPoint((*map(float, index), 1.0))[:3]
    if node.GetParentTransformNode() is not None:
        general = vtk.vtkGeneralTransform()
        node.GetParentTransformNode().GetTransformToWorld(general)
        place = general.TransformPoint(place)
    return np.array(place)


def node_ids() -> set[str]:
    """IDs of all nodes of the scene."""
    scene = slicer.mrmlScene
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


def same_geometry(first: Any, second: Any) -> str:
    """What differs between two volumes' grids and transforms; empty if nothing does."""
    if first.GetTransformNodeID() != second.GetTransformNodeID():
        return "they have different parent transforms"
    words = str(slicer.modules.volumes.logic().CompareVolumeGeometry(first, second))
    # Slicer 5.13 says this of any two volumes under one transform (it takes strcmp's 0 for false).
    return words.replace("Transform mismatch\n", "")


def slice_image(place: Any, name: str) -> np.ndarray:
    """What the axial slice view shows, fitted to its background; kept as a picture, too.

    Args:
        place: RAS position in the world that all slice views are moved to.
        name: of the picture's file.

    Returns:
        (rows, columns, channels) uint8, rows from below.
    """
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    view = slicer.vtkMRMLSliceLogic()
    view.SetMRMLScene(slicer.mrmlScene)
    view.SetSliceNode(red)
    view.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    red.SetDimensions(200, 240, 1)
    view.FitSliceToBackground(200, 240)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(*place)
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(in_slicer.output_folder() / name))
    writer.SetInputConnection(view.GetImageDataConnection())
    writer.Write()
    producer = view.GetImageDataConnection().GetProducer()
    producer.Update()
    image = producer.GetOutputDataObject(0)
    width, height, _ = image.GetDimensions()
    values = vtk_to_numpy(image.GetPointData().GetScalars())
    return np.array(values).reshape(height, width, -1)
