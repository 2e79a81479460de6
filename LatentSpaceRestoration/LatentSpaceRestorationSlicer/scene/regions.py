"""The regions that a result flags, and their list as nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode, vtkMRMLTableNode
from slicer.i18n import tr as _

from .nodes import addNode, putBeside, worldPosition
from .stored import StoredResult

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.results.regions import Region


def regionsOf(result: StoredResult, smallestML: float) -> list[Region]:
    """The regions at or above the threshold, the one with the highest peak first.

    Args:
        result: whose map is in the scene.
        smallestML: smaller ones are left out.

    Returns:
        regions with positions in the world, through the parent transform.
    """
    from LatentSpaceRestorationLib.results.regions import Seen, find_regions

    record, values = result.record, result.values()
    images = [imageOf(node, values.shape) for node in (result.inputVolume, result.restoration)]
    seen = None
    if images[0] is not None and images[1] is not None:
        seen = Seen(imageOf(result.signs, values.shape), images[0], images[1])
    found = find_regions(
        values, result.flagged(), record.brain(), np.array(record.affine), smallestML, seen
    )
    return [
        dataclasses.replace(region, position_mm=worldPosition(result.anomalyMap, region.index))
        for region in found
    ]


def imageOf(node: vtkMRMLScalarVolumeNode | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """(I, J, K) voxels of a volume; None if it was removed, or has another shape by now."""
    if node is None or node.GetImageData() is None:
        return None
    array: np.ndarray = slicer.util.arrayFromVolume(node).transpose(2, 1, 0)
    return array if array.shape == shape else None


def signsOf(region: Region) -> str:
    """What a region is flagged for, in a word or two; empty if that is not known."""
    words = {
        "darker": _("darker"),
        "brighter": _("brighter"),
        "texture": _("texture"),
        "structure": _("structure"),
    }
    return ", ".join(words[name] for name in region.evidence.main if name in words)


def summary(result: StoredResult, regions: Sequence[Region]) -> str:
    """How much is flagged beside what would be in a healthy brain, in one sentence."""
    from LatentSpaceRestorationLib.results.regions import percent
    from LatentSpaceRestorationLib.volume import voxel_ml

    record = result.record
    if record.figures.p_value is None:
        return _("Nothing is flagged, since the map is not to be trusted.")
    flaggedML = int(np.count_nonzero(result.flagged())) * voxel_ml(np.array(record.affine))
    return _(
        "{flagged} ml of {brain} ml are flagged, {percent} of the brain ({healthy} of a healthy"
        " one). Listed regions: {count}."
    ).format(
        flagged=f"{flaggedML:.1f}",
        brain=f"{record.brainML:.0f}",
        percent=percent(100.0 * flaggedML / max(record.brainML, 1e-6)),
        healthy=percent(100.0 - result.percentile),
        count=len(regions),
    )


def export(
    result: StoredResult, regions: Sequence[Region]
) -> tuple[vtkMRMLTableNode, vtkMRMLMarkupsFiducialNode]:
    """Write a list of regions into a table and into points, those of the last export if there are.

    Args:
        result: that they are of; its scan gives the names.
        regions: in the order of their numbers.
    """
    slicer.mrmlScene.SaveStateForUndo()
    scan = result.inputVolume or result.anomalyMap
    table = result.node("RegionTable")
    points = result.node("RegionPoints")
    title = _("{name} regions")
    table = table or addNode("vtkMRMLTableNode", title, scan.GetName())
    points = points or addNode("vtkMRMLMarkupsFiducialNode", title, scan.GetName())
    result.refer(RegionTable=table, RegionPoints=points)
    _writeTable(table, regions)
    _writePoints(points, regions, result)
    putBeside(scan, (table, points))
    return table, points


def _writeTable(table: vtkMRMLTableNode, regions: Sequence[Region]) -> None:
    table.RemoveAllColumns()
    words = vtk.vtkStringArray()
    words.SetName(_("Place"))
    why = vtk.vtkStringArray()
    why.SetName(_("Flagged for"))
    for region in regions:
        words.InsertNextValue(region.words)
        why.InsertNextValue(region.evidence.words)
    columns = [
        (_("Volume (ml)"), [region.volume_ml for region in regions]),
        (_("Peak"), [region.peak for region in regions]),
        (_("Mean"), [region.mean for region in regions]),
        *(
            (_("{axis} (mm)").format(axis=axis), [region.position_mm[i] for region in regions])
            for i, axis in enumerate("RAS")
        ),
    ]
    table.AddColumn(words)
    for name, values in columns:
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(value)
        table.AddColumn(column)
    table.AddColumn(why)
    table.Modified()


def _writePoints(
    points: vtkMRMLMarkupsFiducialNode, regions: Sequence[Region], result: StoredResult
) -> None:
    points.CreateDefaultDisplayNodes()
    points.SetLocked(False)
    points.RemoveAllControlPoints()
    points.SetAndObserveTransformNodeID(result.anomalyMap.GetTransformNodeID())
    for number, region in enumerate(regions, start=1):
        index = points.AddControlPointWorld(vtk.vtkVector3d(*region.position_mm), str(number))
        points.SetNthControlPointDescription(
            index,
            _("{words}; {volume} ml, peak {peak}").format(
                words=region.words, volume=f"{region.volume_ml:.2f}", peak=f"{region.peak:.2f}"
            ),
        )
    # Points that are dragged would no longer be where the regions are.
    points.SetLocked(True)
