"""A whole session with the panel, by mouse and keys alone: what happens is seen in the nodes."""

from __future__ import annotations

import unittest
from typing import Any

import in_slicer
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
from LatentSpaceRestorationSlicer.scene import nodes, stored  # noqa: E402
from panel_case import PanelTestCase, click, click_cell, press, type_in, wait_for  # noqa: E402
from scene_tools import GEOMETRIES, add_volume, ijk, scan, segment_ijk, to_world  # noqa: E402


class TestSession(PanelTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.skipTest("there are no slice views without a main window")
        self.area.resize(440, 1200)
        slicer.app.processEvents()

    def views(self) -> set[tuple[Any, ...]]:
        return {
            (
                self.name(view.GetBackgroundVolumeID()),
                self.name(view.GetForegroundVolumeID()),
                round(view.GetForegroundOpacity(), 3),
            )
            for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        }

    @staticmethod
    def name(node: str | None) -> str | None:
        return None if node is None else slicer.mrmlScene.GetNodeByID(node).GetName()

    def test_from_the_scan_to_the_report(self) -> None:
        ui = self.ui
        # A smaller number of restorations, typed; then the button, by key.
        click_title(ui.advancedSection)
        self.assertFalse(ui.advancedSection.collapsed)
        type_in(ui.restorationsSpinBox, "7")
        self.assertEqual(self.parameters.restorations, 7)
        ui.detectButton.setFocus()
        press(ui.detectButton, "Key_Space")
        result = self.widget.resultSection.shown
        self.assertEqual(result.record.figures.restorations, 7)
        self.assertIn("19 of 20 healthy scans", ui.wordsLabel.text)
        self.assertEqual(self.views(), {("Head", "Head anomaly map", 0.5)})

        # The threshold, down by keys: more is flagged, and the model does not run again.
        before = segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume).sum()
        start = ui.thresholdSlider.value
        press(ui.thresholdSlider, "Key_PageDown")
        wait_for(lambda: result.percentile == ui.thresholdSlider.value < start)
        press(ui.thresholdSlider, "Key_Home")
        wait_for(lambda: result.percentile == 50.0)
        cut = segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume)
        np.testing.assert_array_equal(cut, ijk(result.anomalyMap) >= result.percentile)
        self.assertGreater(cut.sum(), before)
        self.assertEqual(len(self.stub.asked), 1)
        self.assertRegex(ui.rarityLabel.text, r"^1 voxel in [\d.,]+ of a healthy brain")

        # The regions: small ones too, one clicked.
        type_in(ui.smallestSpinBox, "0")
        wait_for(lambda: ui.regionsTable.rowCount == 1)
        click_cell(ui.regionsTable, 0)
        place = to_world(self.volume, (14, 7, 11))
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            plane = np.array(slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()))
            self.assertAlmostEqual(float(plane[:3, 2] @ (plane[:3, 3] - place)), 0.0, places=4)

        # The layers: opacity, restoration and fade by keys, flicker by the mouse.
        press(ui.mapOpacitySlider, "Key_Right")
        self.assertEqual(self.views(), {("Head", "Head anomaly map", 0.55)})
        press(ui.layerSelector, "Key_Down")
        press(ui.fadeSlider, "Key_Left")
        self.assertEqual(self.views(), {("Head", "Head restoration", 0.95)})
        click(ui.flickerButton)
        wait_for(lambda: self.views() == {("Head restoration", None, 0.95)})
        click(ui.flickerButton)
        press(ui.layerSelector, "Key_Down")
        self.assertEqual(self.views(), {("Head", "Head less its restoration", 0.5)})
        press(ui.layerSelector, "Key_Down")
        self.assertEqual(self.views(), {("Head", "Head restoration spread", 0.5)})
        press(ui.layerSelector, "Key_Home")

        # The surface in 3D, off and on.
        press(ui.show3DCheckBox, "Key_Space")
        self.assertFalse(stored.hasSurface(result.segmentation))
        press(ui.show3DCheckBox, "Key_Space")
        self.assertTrue(stored.hasSurface(result.segmentation))
        self.assertTrue(result.segmentation.GetDisplayNode().GetVisibility3D())

        # The plot, and the report.
        click(ui.scoresButton)
        plot = slicer.app.layoutManager().plotWidget(0).plotView()
        if hasattr(plot, "select"):
            plot.select(result.scoreSeries.GetID(), [3])
            axial = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
            table = result.scoreSeries.GetTableNode().GetTable()
            self.assertEqual(axial.GetSliceOffset(), table.GetValue(3, 0).ToDouble())
        click(ui.exportButton)
        self.assertEqual(result.node("RegionTable").GetNumberOfRows(), 1)
        self.assertEqual(result.node("RegionPoints").GetNumberOfControlPoints(), 1)

        # A second scan has no result yet; the first keeps its own.
        add_volume(scan((6, 6, 6)), GEOMETRIES["oblique"], "Other")
        press(ui.inputVolumeSelector, "Key_End")
        self.assertEqual(self.parameters.inputVolume.GetName(), "Other")
        self.assertEqual(ui.wordsLabel.text, "No result yet.")
        press(ui.inputVolumeSelector, "Key_Home")
        self.assertEqual(self.widget.resultSection.shown, result)
        self.assertEqual(ui.thresholdSlider.value, result.percentile)
        self.area.grab().save(str(in_slicer.output_folder() / "panel-session.png"))


def click_title(section: Any) -> None:
    """Unfold or fold a section by its title."""
    try:
        from PySide6.QtCore import QPoint, Qt
        from PySide6.QtTest import QTest
    except ImportError:
        section.collapsed = not section.collapsed
        return
    QTest.mouseClick(section, Qt.MouseButton.LeftButton, pos=QPoint(30, 8))
    for _ in range(3):  # the section gets its height one event later
        slicer.app.processEvents()


if __name__ == "__main__":
    unittest.main()
