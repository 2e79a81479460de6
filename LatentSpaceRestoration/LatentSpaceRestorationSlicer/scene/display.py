"""How results look: colours, windows, overlay, and which slice is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import slicer
from slicer import (
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSliceCompositeNode,
    vtkMRMLVolumeNode,
)

#: Cyan stands out against Inferno, which runs from black through red to yellow.
SEGMENT_COLOUR = (0.2, 0.85, 0.95)
#: Colour maps of Slicer that a map can be drawn in; each grows evenly brighter.
COLOURS = ("Inferno", "Plasma", "Viridis", "Cividis")
_SPREAD_COLOURS = "Viridis"
_SIGNED_COLOURS = "DivergingBlueRed"
#: Percentile of the restored voxels that gets the brightest colour, and the share of it from which
#: on a spread is drawn.
_SPREAD_TOP = 99.5
_SPREAD_SHOWN = 0.35
#: Of a map over its scan.
OPACITY = 0.5


def showMap(anomalyMap: vtkMRMLScalarVolumeNode, threshold: float) -> None:
    """Colour a map from its threshold upwards; what is colder is not drawn.

    Args:
        anomalyMap: values from 0.
        threshold: the lowest value that is drawn.
    """
    setColours(anomalyMap, COLOURS[0])
    showFrom(anomalyMap, threshold)


def setColours(volume: vtkMRMLScalarVolumeNode, colours: str) -> None:
    """Draw a volume in the colours of one of ``COLOURS``."""
    volume.GetDisplayNode().SetAndObserveColorNodeID(f"vtkMRMLColorTableNodeFile{colours}.txt")


def showFrom(anomalyMap: vtkMRMLScalarVolumeNode, threshold: float) -> None:
    """Draw a map from another threshold upwards, in the colours that it has.

    The window starts at 0, so that the threshold itself is not black.
    """
    low, high = anomalyMap.GetImageData().GetScalarRange()
    top = max(high, 2.0 * threshold, 1e-6)
    node = anomalyMap.GetDisplayNode()
    node.AutoWindowLevelOff()
    node.SetWindowLevelMinMax(min(low, 0.0), top)
    node.SetThreshold(threshold, top)
    node.ApplyThresholdOn()


def showSpread(spread: vtkMRMLScalarVolumeNode) -> None:
    """Colour a spread where it is notable; it is a little above 0 nearly everywhere in the brain.

    Args:
        spread: values from 0, which is where nothing was restored.
    """
    values = slicer.util.arrayFromVolume(spread)
    top = _top(values)
    setColours(spread, _SPREAD_COLOURS)
    node = spread.GetDisplayNode()
    node.AutoWindowLevelOff()
    node.SetWindowLevelMinMax(0.0, top)
    node.SetThreshold(_SPREAD_SHOWN * top, max(top, float(values.max())))
    node.ApplyThresholdOn()


def showSigned(difference: vtkMRMLScalarVolumeNode) -> None:
    """Colour a signed difference: blue below 0, red above.

    Args:
        difference: 0 where nothing was replaced.
    """
    top = _top(slicer.util.arrayFromVolume(difference))
    setColours(difference, _SIGNED_COLOURS)
    node = difference.GetDisplayNode()
    node.AutoWindowLevelOff()
    node.SetWindowLevelMinMax(-top, top)


def _top(values: np.ndarray) -> float:
    """The size that gets the brightest colour: of what was restored, nearly all is smaller."""
    restored = np.abs(values[values != 0])
    return float(np.percentile(restored, _SPREAD_TOP)) if restored.size else 1.0


def copyGreyWindow(source: vtkMRMLScalarVolumeNode, target: vtkMRMLScalarVolumeNode) -> None:
    """Show a volume with another's window and level."""
    shown = source.GetDisplayNode()
    if shown is not None:
        target.GetDisplayNode().AutoWindowLevelOff()
        target.GetDisplayNode().SetWindowLevelMinMax(
            shown.GetWindowLevelMin(), shown.GetWindowLevelMax()
        )


def showSegment(segmentation: vtkMRMLSegmentationNode, segment: str) -> None:
    """Show a segment as an outline, so that the map stays visible in it, and in 3D as a surface."""
    node = segmentation.GetDisplayNode()
    node.SetVisibility(True)
    node.SetSegmentVisibility(segment, True)
    node.SetSegmentVisibility2DFill(segment, False)
    node.SetSegmentVisibility2DOutline(segment, True)
    node.SetSegmentVisibility3D(segment, True)
    node.SetPreferredDisplayRepresentationName3D("Closed surface")


@contextmanager
def withoutUndoStates() -> Iterator[None]:
    """What the views show is no step to undo, though their controllers save a state for each."""
    scene = slicer.mrmlScene
    was = scene.GetUndoFlag()
    scene.SetUndoFlag(False)
    try:
        yield
    finally:
        scene.SetUndoFlag(was)


@withoutUndoStates()
def overlay(background: vtkMRMLScalarVolumeNode, foreground: vtkMRMLScalarVolumeNode) -> None:
    """Lay a map over a scan in all slice views."""
    slicer.util.setSliceViewerLayers(
        background=background,
        foreground=foreground,
        foregroundOpacity=OPACITY,
        fit=False,
    )


@dataclass(frozen=True)
class Layers:
    """What a slice view shows.

    Attributes:
        view: the view's node.
        background, foreground: volumes, or None.
        opacity: of the foreground, 0 to 1.
    """

    view: vtkMRMLSliceCompositeNode
    background: vtkMRMLVolumeNode | None
    foreground: vtkMRMLVolumeNode | None
    opacity: float


def currentLayers() -> tuple[Layers, ...]:
    """What each slice view shows now."""

    def node(name: str | None) -> vtkMRMLVolumeNode | None:
        return None if name is None else slicer.mrmlScene.GetNodeByID(name)

    return tuple(
        Layers(
            view,
            node(view.GetBackgroundVolumeID()),
            node(view.GetForegroundVolumeID()),
            view.GetForegroundOpacity(),
        )
        for view in allViews()
    )


@withoutUndoStates()
def takeOff(
    background: vtkMRMLScalarVolumeNode,
    foreground: vtkMRMLScalarVolumeNode,
    before: Sequence[Layers],
) -> None:
    """Undo :func:`overlay`. What the user has chosen for a view in the meantime stays.

    Args:
        background, foreground: that were laid over each other.
        before: what the views showed before; volumes that have been removed are left out.
    """

    def name(node: vtkMRMLVolumeNode | None) -> str | None:
        if node is None or not slicer.mrmlScene.IsNodePresent(node):
            return None
        return str(node.GetID())

    for layers in before:
        view = layers.view
        if not slicer.mrmlScene.IsNodePresent(view):
            continue
        if view.GetForegroundVolumeID() == foreground.GetID():
            view.SetForegroundVolumeID(name(layers.foreground))
            view.SetForegroundOpacity(layers.opacity)
        # A background that has been removed is none.
        if view.GetBackgroundVolumeID() in (None, background.GetID()):
            view.SetBackgroundVolumeID(name(layers.background))


def allViews() -> tuple[vtkMRMLSliceCompositeNode, ...]:
    """What the slice views are composed of."""
    return tuple(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def viewsOf(*volumes: vtkMRMLVolumeNode | None) -> tuple[vtkMRMLSliceCompositeNode, ...]:
    """The slice views that show one of some volumes."""
    names = {volume.GetID() for volume in volumes if volume is not None}
    return tuple(
        view
        for view in allViews()
        if view.GetBackgroundVolumeID() in names or view.GetForegroundVolumeID() in names
    )


@withoutUndoStates()
def layOver(
    views: Sequence[vtkMRMLSliceCompositeNode],
    background: vtkMRMLVolumeNode | None,
    foreground: vtkMRMLVolumeNode | None,
    opacity: float,
) -> None:
    """Show a volume, and another over it with an opacity from 0 to 1, in some slice views."""
    for view in views:
        view.SetBackgroundVolumeID(None if background is None else background.GetID())
        view.SetForegroundVolumeID(None if foreground is None else foreground.GetID())
        view.SetForegroundOpacity(opacity)


def jumpTo(position: tuple[float, float, float]) -> None:
    """Move all slice views to a place, (R, A, S) in mm."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByOffsetting(*position)


def showAxialSlice(superior: float) -> None:
    """Move the axial slice views to a height, in mm."""
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if view.GetOrientation() == "Axial":
            view.SetSliceOffset(superior)
