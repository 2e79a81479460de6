"""Pictures of what Slicer's views show, for the stand-in host, which has none.

Slices are drawn by Slicer's slice logic, which shows a label map of the segmentation in its stead;
surfaces and plots are drawn by VTK from the nodes, as Slicer's own views do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

GAP = 6
PLANES = (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))
_BACK, _INK = (20, 20, 24), (235, 235, 235)


def outline(result: Any) -> None:
    """Show the segmentation as an outline, which the slice logic draws of label maps only."""
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Outline")
    slicer.modules.segmentations.logic().ExportAllSegmentsToLabelmapNode(
        result.segmentation, labels, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    )
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.SetUseLabelOutline(True)
    slicer.util.setSliceViewerLayers(label=labels, labelOpacity=1.0)


def slices(size: int, more: tuple[Any, ...] = (), columns: int = 3) -> Any:
    """The three slice views, and further images of that size, in so many columns."""
    images = [_slice_view(name, orientation, size) for name, orientation in PLANES]
    return beside([*images, *more], size, columns)


def beside(images: list[Any], size: int, columns: int) -> Any:
    """Square images in rows."""
    rows = -(-len(images) // columns)
    width, height = (n * size + (n - 1) * GAP for n in (columns, rows))
    picture = qt.QImage(width, height, qt.QImage.Format_RGB32)
    picture.fill(qt.QColor(*_BACK))
    painter = qt.QPainter(picture)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        painter.drawImage(column * (size + GAP), row * (size + GAP), image)
    painter.end()
    return picture


def _slice_view(name: str, orientation: str, size: int) -> Any:
    image = slice_image(name, size)
    painter = qt.QPainter(image)
    painter.setPen(qt.QColor(*_INK))
    painter.drawText(8, 18, orientation)
    sides = ("A", "P") if orientation == "Sagittal" else ("R", "L")
    painter.drawText(6, size // 2, sides[0])
    painter.drawText(size - 14, size // 2, sides[1])
    painter.end()
    return image


def slice_image(name: str, size: int) -> Any:
    """What a slice view shows, as a square image."""
    node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
    place = node.GetSliceOffset()
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetSliceNode(node)
    logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    node.SetDimensions(size, size, 1)
    logic.FitSliceToBackground(size, size)
    node.SetSliceOffset(place)
    producer = logic.GetImageDataConnection().GetProducer()
    producer.Update()
    return _image(producer.GetOutputDataObject(0))


def surface(result: Any, segment: str, size: int) -> Any:
    """The segmentation's surface in a translucent one of the brain, seen from behind and above."""
    found = vtk.vtkPolyData()
    result.segmentation.GetClosedSurfaceRepresentation(segment, found)
    scan = vtk.vtkImageData()
    scan.ShallowCopy(result.inputVolume.GetImageData())
    brain = vtk.vtkContourFilter()
    brain.SetInputData(scan)
    brain.SetValue(0, 0.4 * float(np.median(_positive(result.inputVolume))))
    to_ras, matrix = vtk.vtkTransformPolyDataFilter(), vtk.vtkMatrix4x4()
    result.inputVolume.GetIJKToRASMatrix(matrix)
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix)
    to_ras.SetTransform(transform)
    to_ras.SetInputConnection(brain.GetOutputPort())
    to_ras.Update()
    renderer = vtk.vtkRenderer()
    renderer.SetBackground(*(value / 255 for value in _BACK))
    for data, colour, opacity in (
        (to_ras.GetOutput(), (0.8, 0.78, 0.75), 0.18),
        (found, (0.2, 0.85, 0.95), 1.0),
    ):
        mapper = vtk.vtkPolyDataMapper()
        mapper.SetInputData(data)
        mapper.ScalarVisibilityOff()
        actor = vtk.vtkActor()
        actor.SetMapper(mapper)
        actor.GetProperty().SetColor(*colour)
        actor.GetProperty().SetOpacity(opacity)
        renderer.AddActor(actor)
    camera = renderer.GetActiveCamera()
    camera.SetPosition(220.0, -380.0, 200.0)
    camera.SetViewUp(0.0, 0.0, 1.0)
    renderer.ResetCamera()
    camera.Zoom(1.4)
    return _rendered(renderer, size, size)


def plot(result: Any, width: int, height: int) -> Any:
    """The slice scores as Slicer's plot view draws them, with the slice shown as a line."""
    table = result.scoreSeries.GetTableNode().GetTable()
    chart = vtk.vtkChartXY()
    line = chart.AddPlot(vtk.vtkChart.LINE)
    line.SetInputData(table, 0, 1)
    line.SetColorF(0.1, 0.35, 0.7)
    line.SetWidth(2.0)
    line.SetMarkerStyle(vtk.vtkPlotPoints.CIRCLE)
    node = result.scoreChart
    for axis, title in (
        (vtk.vtkAxis.BOTTOM, node.GetXAxisTitle()),
        (vtk.vtkAxis.LEFT, node.GetYAxisTitle()),
    ):
        chart.GetAxis(axis).SetTitle(title)
    view = vtk.vtkContextView()
    view.GetRenderer().SetBackground(1.0, 1.0, 1.0)
    view.GetScene().AddItem(chart)
    window = view.GetRenderWindow()
    return _grabbed(window, width, height)


def _positive(volume: Any) -> np.ndarray:
    values = slicer.util.arrayFromVolume(volume)
    return values[values > 0]


def _rendered(renderer: Any, width: int, height: int) -> Any:
    window = vtk.vtkRenderWindow()
    window.SetMultiSamples(8)
    window.AddRenderer(renderer)
    return _grabbed(window, width, height)


def _grabbed(window: Any, width: int, height: int) -> Any:
    window.SetOffScreenRendering(1)
    window.SetSize(width, height)
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    return _image(grab.GetOutput())


def _image(data: Any) -> Any:
    columns, rows, _ = data.GetDimensions()
    values = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(rows, columns, -1)
    pixels = np.ascontiguousarray(values[::-1, :, :3])  # rows come from below
    image = qt.QImage(pixels.tobytes(), columns, rows, 3 * columns, qt.QImage.Format_RGB888)
    return image.copy()
