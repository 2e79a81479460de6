"""Takes the pictures of the panel and the slice views that the documentation shows.

    python LatentSpaceRestoration/Testing/Host/slicer_host.py --no-splash --testing \\
        --additional-module-paths LatentSpaceRestoration \\
        --python-script LatentSpaceRestoration/Testing/Host/take_screenshots.py FOLDER

The scan is the demo's: a lesion painted into the MNI152 template, whose scalp was removed. The
pictures are of the stand-in host: the panel is the module's own, drawn by Qt, and the slices are
drawn by Slicer's slice logic, which shows a label map of the segmentation in its stead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from LatentSpaceRestorationLib.demo import (
    LESION_MM,
    LESION_RADIUS_MM,
    load_template,
    paint_lesion,
)
from vtk.util.numpy_support import vtk_to_numpy

_SIZE = 380
_GAP = 6
_PLANES = (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))


def main() -> None:
    """Detect in the panel, and save what is seen."""
    parser = argparse.ArgumentParser(prog="take_screenshots.py")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--restorations", type=int, default=15)
    options = parser.parse_args(sys.argv[1:])
    options.folder.mkdir(parents=True, exist_ok=True)
    painted, _lesion = paint_lesion(load_template(), LESION_MM, LESION_RADIUS_MM)
    kji = np.ascontiguousarray(painted.array.transpose(2, 1, 0))
    volume = slicer.util.addVolumeFromArray(kji, painted.affine, "Painted")
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevelMinMax(0.0, float(np.percentile(kji, 99.7)))

    panel, area = openPanel()
    widget = panel.self()
    parameters = widget._parameterNode
    parameters.inputVolume = volume
    parameters.restorations = options.restorations
    widget.ui.detectButton.click()
    table = widget.ui.regionsTable
    if table.rowCount:
        table.setCurrentCell(0, 0)
    grabPanel(area, panel).save(str(options.folder / "panel.png"))
    outline(widget.resultSection.shown)
    slices().save(str(options.folder / "slices.png"))
    parameters.layer = "restoration"
    slices().save(str(options.folder / "restoration.png"))
    parameters.layer = "spread"
    slices().save(str(options.folder / "spread.png"))


def openPanel() -> tuple[Any, Any]:
    """The panel, in an area as wide as Slicer's module panel."""
    panel = slicer.modules.latentspacerestoration.createNewWidgetRepresentation()
    area = qt.QScrollArea()
    area.widgetResizable = True
    area.setWidget(panel)
    area.resize(440, 900)
    area.show()
    panel.enter()
    slicer.app.processEvents()
    return panel, area


def grabPanel(area: Any, panel: Any) -> Any:
    """A picture of the whole panel."""
    for _ in range(3):  # wrapped lines get their height one event later
        slicer.app.processEvents()
    area.resize(440, panel.sizeHint.height() + 4)
    for _ in range(3):
        slicer.app.processEvents()
    return area.grab()


def outline(result: Any) -> None:
    """Show the segmentation as an outline, which the slice logic draws of label maps only."""
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Outline")
    slicer.modules.segmentations.logic().ExportAllSegmentsToLabelmapNode(
        result.segmentation, labels, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.SetUseLabelOutline(True)
    slicer.util.setSliceViewerLayers(label=labels, labelOpacity=1.0)


def slices() -> Any:
    """The three slice views beside each other."""
    width = len(_PLANES) * _SIZE + (len(_PLANES) - 1) * _GAP
    picture = qt.QImage(width, _SIZE, qt.QImage.Format_RGB32)
    picture.fill(qt.QColor(20, 20, 24))
    painter = qt.QPainter(picture)
    painter.setPen(qt.QColor(235, 235, 235))
    for column, (name, orientation) in enumerate(_PLANES):
        left = column * (_SIZE + _GAP)
        painter.drawImage(left, 0, sliceImage(name))
        painter.drawText(left + 8, 18, orientation)
        sides = ("A", "P") if orientation == "Sagittal" else ("R", "L")
        middle = _SIZE // 2
        painter.drawText(left + 6, middle, sides[0])
        painter.drawText(left + _SIZE - 14, middle, sides[1])
    painter.end()
    return picture


def sliceImage(name: str) -> Any:
    """What a slice view shows, as an image."""
    node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
    place = node.GetSliceOffset()
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetSliceNode(node)
    logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    node.SetDimensions(_SIZE, _SIZE, 1)
    logic.FitSliceToBackground(_SIZE, _SIZE)
    node.SetSliceOffset(place)
    producer = logic.GetImageDataConnection().GetProducer()
    producer.Update()
    data = producer.GetOutputDataObject(0)
    columns, rows, _ = data.GetDimensions()
    values = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(rows, columns, -1)
    pixels = np.ascontiguousarray(values[::-1, :, :3])  # rows come from below
    image = qt.QImage(pixels.tobytes(), columns, rows, 3 * columns, qt.QImage.Format_RGB888)
    return image.copy()


main()
