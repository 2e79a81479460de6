"""From nodes to arrays: the scan and the brain mask, copied out of the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTransformNode,
)
from slicer.i18n import tr as _

from .file_notes import notesOfFile

#: How far a parent transform's axes may be from orthonormal and still count as rigid.
_RIGID_TOLERANCE = 1e-3
#: Positions of a grid transform that differ by less from even ones, in mm, are even.
_EVEN_MM = 0.1


@dataclass(frozen=True)
class SceneScan:
    """A scan as it was when the detection was asked for.

    Attributes:
        array: (I, J, K) voxel values, a copy.
        affine: (4, 4) voxel index -> RAS in mm, through the parent transform if that is rigid.
        ijkToRAS: (4, 4) of the node alone.
        brainMask: (I, J, K) uint8 on the same grid, or None.
        name: the volume's.
        warnings: what the user should know.
    """

    array: np.ndarray
    affine: np.ndarray
    ijkToRAS: np.ndarray
    brainMask: np.ndarray | None
    name: str
    warnings: tuple[str, ...] = ()

    def stillIs(self, volume: vtkMRMLScalarVolumeNode) -> bool:
        """Whether the volume is in the scene and has the geometry that it had."""
        if not slicer.mrmlScene.IsNodePresent(volume) or volume.GetImageData() is None:
            return False
        same = tuple(volume.GetImageData().GetDimensions()) == self.array.shape
        return same and bool(np.allclose(_ijkToRAS(volume), self.ijkToRAS))


def readScan(
    volume: vtkMRMLScalarVolumeNode,
    brainMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None = None,
) -> SceneScan:
    """Copy a volume, and a brain mask for it, out of the scene.

    Args:
        volume: a scalar volume with one value a voxel.
        brainMask: what is brain: all segments of a segmentation together, or all labels of a
            label map, of any geometry.

    Raises:
        ValueError: the volume or the mask cannot be used.
    """
    if volume is None or not volume.IsA("vtkMRMLScalarVolumeNode"):
        raise ValueError(_("The input is not a scalar volume; choose one."))
    image = volume.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise ValueError(
            _("Volume {name} has no voxels; choose another.").format(name=volume.GetName())
        )
    if image.GetNumberOfScalarComponents() != 1:
        raise ValueError(
            _("Volume {name} has {count} values a voxel; choose a scalar volume.").format(
                name=volume.GetName(), count=image.GetNumberOfScalarComponents()
            )
        )
    ijkToRAS = _ijkToRAS(volume)
    toWorld = _toWorld(volume, ijkToRAS)
    warnings = notesOfFile(volume)
    if toWorld is None:
        toWorld = np.eye(4)
        warnings = (
            *warnings,
            _(
                "The parent transform of {name} bends, scales or mirrors space, so the scan was"
                " analysed as it lies without it."
            ).format(name=volume.GetName()),
        )
    return SceneScan(
        array=slicer.util.arrayFromVolume(volume).transpose(2, 1, 0).copy(),
        affine=toWorld @ ijkToRAS,
        ijkToRAS=ijkToRAS,
        brainMask=None if brainMask is None else _readMask(brainMask, volume),
        name=volume.GetName(),
        warnings=warnings,
    )


def _ijkToRAS(volume: vtkMRMLScalarVolumeNode) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array(slicer.util.arrayFromVTKMatrix(matrix), dtype=np.float64)


def _toWorld(volume: vtkMRMLScalarVolumeNode, ijkToRAS: np.ndarray) -> np.ndarray | None:
    """(4, 4) RAS of the volume -> RAS of the world: of a rigid transform, or of a tilted gantry.

    None if it is neither: a map that bends is that of a registration, and one that scales too.
    """
    transform = volume.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        return _shearToWorld(volume, transform, ijkToRAS)
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    toWorld = np.array(slicer.util.arrayFromVTKMatrix(matrix), dtype=np.float64)
    axes = toWorld[:3, :3]
    isRigid = np.allclose(axes.T @ axes, np.eye(3), atol=_RIGID_TOLERANCE)
    return toWorld if isRigid and np.linalg.det(axes) > 0 else None


def _shearToWorld(
    volume: vtkMRMLScalarVolumeNode, transform: vtkMRMLTransformNode, ijkToRAS: np.ndarray
) -> np.ndarray | None:
    """What a grid transform does to the volume, if it is to shift its slices evenly.

    Slicer reads a series of a tilted gantry on a grid without tilt, and puts the tilt into a grid
    transform over it ("acquisition transform").
    """
    general = vtk.vtkGeneralTransform()
    transform.GetTransformToWorld(general)
    ends = [np.linspace(0, n - 1, 3) for n in volume.GetImageData().GetDimensions()]
    points = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points @ ijkToRAS[:3, :3].T + ijkToRAS[:3, 3]
    moved = np.array([general.TransformPoint(*point) for point in points])
    given = np.column_stack([points, np.ones(len(points))])
    fitted, *_rest = np.linalg.lstsq(given, moved, rcond=None)
    if np.abs(given @ fitted - moved).max() > _EVEN_MM:
        return None
    toWorld = np.eye(4)
    toWorld[:3] = fitted.T
    # Slices stay in their planes: no axis in them is turned or stretched.
    inPlane = ijkToRAS[:3, :2]
    stays = np.allclose(toWorld[:3, :3] @ inPlane, inPlane, atol=1e-3)
    return toWorld if stays and np.linalg.det(toWorld[:3, :3]) > 0.5 else None


def _readMask(
    mask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode, volume: vtkMRMLScalarVolumeNode
) -> np.ndarray:
    if mask.IsA("vtkMRMLSegmentationNode"):
        array = _segments(mask, volume)
    elif mask.IsA("vtkMRMLLabelMapVolumeNode"):
        if mask.GetImageData() is None:
            array = np.zeros(1, dtype=bool)
        elif _sameGrid(mask, volume):
            array = slicer.util.arrayFromVolume(mask) > 0
        else:
            array = _labelsOnGrid(mask, volume)
    else:
        raise ValueError(
            _("Brain mask {name} is neither a segmentation nor a label map.").format(
                name=mask.GetName()
            )
        )
    if not array.any():
        raise ValueError(
            _(
                "Brain mask {name} is empty, or lies outside {volume}; choose another, or none."
            ).format(name=mask.GetName(), volume=volume.GetName())
        )
    return array.transpose(2, 1, 0).astype(np.uint8)


def _sameGrid(mask: vtkMRMLLabelMapVolumeNode, volume: vtkMRMLScalarVolumeNode) -> bool:
    # Not by CompareVolumeGeometry, which calls two volumes under one transform a mismatch.
    same = mask.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
    same = same and mask.GetTransformNodeID() == volume.GetTransformNodeID()
    return same and bool(np.allclose(_ijkToRAS(mask), _ijkToRAS(volume)))


def _segments(mask: vtkMRMLSegmentationNode, volume: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """All segments together on the volume's grid, (K, J, I) bool."""
    segmentation = mask.GetSegmentation()
    array = np.zeros(slicer.util.arrayFromVolume(volume).shape, dtype=bool)
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegmentID(index)
        array |= slicer.util.arrayFromSegmentBinaryLabelmap(mask, segment, volume) > 0
    return array


def _labelsOnGrid(mask: vtkMRMLLabelMapVolumeNode, volume: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """A label map of another geometry on the volume's grid, through both parent transforms."""
    between = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "__temp__")
    try:
        between.SetAndObserveTransformNodeID(mask.GetTransformNodeID())
        segmentations = slicer.modules.segmentations.logic()
        if not segmentations.ImportLabelmapToSegmentationNode(mask, between):
            raise RuntimeError(
                _("Brain mask {name} cannot be resampled.").format(name=mask.GetName())
            )
        return _segments(between, volume)
    finally:
        slicer.mrmlScene.RemoveNode(between)
