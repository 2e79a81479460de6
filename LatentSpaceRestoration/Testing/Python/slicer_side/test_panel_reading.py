"""Reading a result in the panel: its score, its regions, and what is laid over the scan."""

from __future__ import annotations

import time
import unittest
from typing import Any

import in_slicer
import numpy as np

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402
from LatentSpaceRestorationSlicer.panel import distribution  # noqa: E402
from LatentSpaceRestorationSlicer.scene import changes, nodes, stored  # noqa: E402
from panel_case import PanelTestCase, click, click_cell, press, wait_for  # noqa: E402
from scene_tools import (  # noqa: E402
    GEOMETRIES,
    RIGID,
    add_transform,
    add_volume,
    ijk,
    scan,
    segment_ijk,
    to_world,
)

#: A hot spot beside that of ``scan()``: a map value of 80, and one voxel of 95.
SECOND = (5, 18, 4)


def inks(picture: Any) -> set[int]:
    """The colours of a picture, 0xAARRGGBB each."""
    return {picture.pixel(x, y) for x in range(picture.width()) for y in range(picture.height())}


class ReadingTestCase(PanelTestCase):
    """A result with two regions, cut at 70, of a scan that lies in another pose."""

    def setUp(self) -> None:
        super().setUp()
        array = scan()
        i, j, k = SECOND
        array[i, j : j + 2, k : k + 2] = 180.0
        array[SECOND] = 195.0
        array[9, 9, 9] = 175.0
        slicer.util.updateVolumeFromArray(self.volume, array.transpose(2, 1, 0))
        self.volume.SetAndObserveTransformNodeID(add_transform(RIGID, "Pose").GetID())
        self.parameters.threshold = 70.0
        click(self.ui.detectButton)
        self.result = self.widget.resultSection.shown
        slicer.app.processEvents()  # the list of regions is there now

    def cut(self) -> np.ndarray:
        return segment_ijk(self.result.segmentation, nodes.SEGMENT_ID, self.volume)

    def points_of_surface(self) -> int:
        surface = vtk.vtkPolyData()
        self.result.segmentation.GetClosedSurfaceRepresentation(nodes.SEGMENT_ID, surface)
        return surface.GetNumberOfPoints()

    def layers(self) -> set[tuple[Any, ...]]:
        return {
            (
                view.GetBackgroundVolumeID(),
                view.GetForegroundVolumeID(),
                round(view.GetForegroundOpacity(), 3),
            )
            for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        }

    def laid(self, under: Any, over: Any, opacity: float) -> set[tuple[Any, ...]]:
        return {(under.GetID(), None if over is None else over.GetID(), opacity)}

    def cells(self) -> list[list[str]]:
        table = self.ui.regionsTable
        return [
            [table.item(row, column).text() for column in range(table.columnCount)]
            for row in range(table.rowCount)
        ]

    def assert_views_show(self, place: np.ndarray) -> None:
        views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
        if not views:
            self.skipTest("there are no slice views without a main window")
        for view in views:
            plane = np.array(slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()))
            self.assertAlmostEqual(float(plane[:3, 2] @ (plane[:3, 3] - place)), 0.0, places=4)


class TestScore(ReadingTestCase):
    def test_the_picture_of_the_scores_follows_the_panel(self) -> None:
        """Its width, and its colours: black dots on a dark panel are seen by nobody."""

        def picture() -> Any:
            return self.ui.distributionLabel.pixmap.toImage()

        self.assertEqual(picture().width(), self.ui.distributionLabel.width)
        self.area.resize(620, 700)
        slicer.app.processEvents()
        self.assertGreater(self.ui.distributionLabel.width, 500)
        self.assertEqual(picture().width(), self.ui.distributionLabel.width)
        self.assertIn(0xFF000000, inks(picture()))
        palette = self.ui.distributionLabel.palette
        palette.setColor(qt.QPalette.WindowText, qt.QColor(240, 240, 240))
        self.ui.distributionLabel.setPalette(palette)
        slicer.app.processEvents()
        self.assertIn(0xFFF0F0F0, inks(picture()))
        self.assertNotIn(0xFF000000, inks(picture()))

    def test_the_picture_of_the_scores_is_sharp_on_a_fine_screen(self) -> None:
        ink = qt.QColor(0, 0, 0)
        coarse, fine = (distribution.draw(300, ratio, ink, [1.0, 2.0], 1.5) for ratio in (1.0, 2.0))
        self.assertEqual((coarse.width(), fine.width()), (300, 600))
        self.assertEqual(fine.devicePixelRatio(), 2.0)

    def test_the_healthy_scans_are_drawn_with_this_scans_mark(self) -> None:
        dots, mark = distribution.places([10.0, 20.0, 40.0], 30.0, 300.0)
        self.assertEqual((dots, mark), ([0.0, 100.0, 300.0], 200.0))
        self.assertEqual(distribution.places([5.0], 5.0, 300.0), ([0.0], 0.0))
        self.assertTrue(self.ui.distributionLabel.visible)
        picture = self.ui.distributionLabel.pixmap.toImage()
        colours = np.array(
            [
                [picture.pixel(x, y) for x in range(picture.width())]
                for y in range(20, picture.height() - 22)
            ],
            np.uint32,
        )  # alpha, red, green and blue, a byte each
        colours = np.stack([colours >> shift & 255 for shift in (16, 8, 0, 24)], axis=-1)
        orange = (colours[..., 0] > 200) & (colours[..., 2] < 80) & (colours[..., 3] > 200)
        columns = np.flatnonzero(orange.all(axis=0))
        self.assertEqual(len(columns), 3)
        # 19 of the stub's 20 healthy scans score below this one.
        share = (columns.mean() - 10) / (picture.width() - 20)
        self.assertAlmostEqual(share, (100 - 15) / (105 - 15), delta=0.03)
        slicer.mrmlScene.RemoveNode(self.result.anomalyMap)
        self.assertFalse(self.ui.distributionLabel.visible)
        self.assertFalse(self.ui.regionsSection.visible)
        self.assertEqual(self.ui.wordsLabel.text, "No result yet.")

    def test_the_threshold_in_words(self) -> None:
        self.ui.thresholdSlider.value = 99.9
        self.assertEqual(
            self.ui.rarityLabel.text, "1 voxel in 1,000 of a healthy brain is as high."
        )

    def test_moving_the_slider_cuts_once_it_rests(self) -> None:
        asked: list[float] = []
        cut = self.widget.resultSection._cut
        self.widget.resultSection._cut = lambda result, percentile: (
            asked.append(percentile),
            cut(result, percentile),
        )
        for percentile in (72.0, 85.0, 97.0):
            self.ui.thresholdSlider.value = percentile
        wait_for(lambda: bool(asked))
        self.assertEqual(asked, [97.0])
        np.testing.assert_array_equal(self.cut(), ijk(self.result.anomalyMap) >= 97.0)
        self.assertEqual(len(self.stub.asked), 1, "it detected again")
        self.assertEqual(len(self.cells()), 0, "a single voxel is smaller than the smallest")

    def test_the_surface_follows(self) -> None:
        before = self.points_of_surface()
        self.ui.thresholdSlider.value = 85.0
        wait_for(lambda: self.result.percentile == 85.0)
        wait_for(lambda: stored.hasSurface(self.result.segmentation))
        after = self.points_of_surface()
        self.assertGreater(after, 0)
        self.assertLess(after, before)
        self.widget.logic.setThreshold(self.result, 70.0)
        self.assertEqual(self.points_of_surface(), before)


class TestRegions(ReadingTestCase):
    def test_the_list(self) -> None:
        self.parameters.smallest = 0.03
        wait_for(lambda: len(self.cells()) == 2)
        first, second = self.cells()
        self.assertEqual(first[1:4], ["0.324", "100", "brighter"])
        self.assertEqual(second[1:4], ["0.048", "95", "brighter"])
        means = [region.mean for region in self.widget.resultSection.regions.regions]
        np.testing.assert_allclose(means, [(26 * 90 + 100) / 27, (3 * 80 + 95) / 4])
        place = to_world(self.volume, (14, 7, 11))
        self.assertEqual(first[4], ", ".join(f"{x:+.0f}" for x in place))
        self.assertRegex(first[0], "^(left|midline|right), (back|middle|front), ")
        self.assertIn("Listed regions: 2.", self.ui.regionsLabel.text)
        self.assertIn("(30% of a healthy one)", self.ui.regionsLabel.text)
        self.parameters.smallest = 0.0
        wait_for(lambda: len(self.cells()) == 3)
        self.ui.thresholdSlider.value = 90.0
        wait_for(lambda: len(self.cells()) == 2)
        self.assertEqual([row[2] for row in self.cells()], ["100", "95"])

    def test_what_each_is_flagged_for(self) -> None:
        self.parameters.smallest = 0.0
        wait_for(lambda: len(self.cells()) == 3)
        self.assertEqual([row[3] for row in self.cells()], ["brighter"] * 3)
        words = self.ui.regionsTable.item(2, 3).toolTip()
        self.assertEqual(words, "brighter than expected (175, expected 100)")
        # Without the images that tell it, nothing is said.
        slicer.mrmlScene.RemoveNode(self.result.restoration)
        self.parameters.smallest = 0.01
        wait_for(lambda: [row[3] for row in self.cells()] == [""] * len(self.cells()))

    def test_choosing_one_moves_the_views(self) -> None:
        self.parameters.smallest = 0.0
        wait_for(lambda: len(self.cells()) == 3)
        click_cell(self.ui.regionsTable, 1)
        self.assert_views_show(to_world(self.volume, SECOND))
        press(self.ui.regionsTable, "Key_Down")
        self.assert_views_show(to_world(self.volume, (9, 9, 9)))
        press(self.ui.regionsTable, "Key_Home")
        click_cell(self.ui.regionsTable, 0)
        self.assert_views_show(to_world(self.volume, (14, 7, 11)))
        # Away, and back by the same row.
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            view.JumpSliceByOffsetting(0.0, 0.0, 0.0)
        click_cell(self.ui.regionsTable, 0)
        self.assert_views_show(to_world(self.volume, (14, 7, 11)))

    def test_export_as_table_and_points(self) -> None:
        self.parameters.smallest = 0.0
        wait_for(lambda: len(self.cells()) == 3)
        self.area.ensureWidgetVisible(self.ui.exportButton)
        click(self.ui.exportButton)
        table = self.result.node("RegionTable")
        points = self.result.node("RegionPoints")
        self.assertEqual(table.GetName(), "Head regions")
        self.assertEqual(table.GetNumberOfRows(), 3)
        self.assertEqual(
            [table.GetTable().GetColumnName(column) for column in range(8)],
            ["Place", "Volume (ml)", "Peak", "Mean", "R (mm)", "A (mm)", "S (mm)", "Flagged for"],
        )
        self.assertEqual(
            table.GetTable().GetValue(2, 7).ToString(),
            "brighter than expected (175, expected 100)",
        )
        self.assertEqual(table.GetTable().GetValue(0, 2).ToDouble(), 100.0)
        self.assertEqual(points.GetNumberOfControlPoints(), 3)
        self.assertIs(points.GetParentTransformNode(), self.volume.GetParentTransformNode())
        for number, index in enumerate(((14, 7, 11), SECOND, (9, 9, 9))):
            place = [0.0, 0.0, 0.0]
            points.GetNthControlPointPositionWorld(number, place)
            np.testing.assert_allclose(place, to_world(self.volume, index), atol=1e-4)
            self.assertEqual(points.GetNthControlPointLabel(number), str(number + 1))
        self.assertIn("ml, peak 100.00", points.GetNthControlPointDescription(0))
        # Exporting again writes to the same nodes.
        self.ui.thresholdSlider.value = 90.0
        wait_for(lambda: len(self.cells()) == 2)
        click(self.ui.exportButton)
        self.assertIs(self.result.node("RegionTable"), table)
        self.assertEqual((table.GetNumberOfRows(), points.GetNumberOfControlPoints()), (2, 2))


class TestLayers(ReadingTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not self.layers():
            self.skipTest("there are no slice views without a main window")

    def test_layers_and_their_opacities(self) -> None:
        result = self.result
        self.assertEqual(self.layers(), self.laid(self.volume, result.anomalyMap, 0.5))
        self.ui.mapOpacitySlider.value = 0.8
        self.assertEqual(self.layers(), self.laid(self.volume, result.anomalyMap, 0.8))
        press(self.ui.layerSelector, "Key_Down")
        self.assertEqual(self.ui.layerSelector.currentText, "restoration")
        self.assertEqual(self.layers(), self.laid(self.volume, result.restoration, 1.0))
        self.assertTrue(self.ui.fadeSlider.visible)
        self.assertFalse(self.ui.mapOpacitySlider.visible)
        self.ui.fadeSlider.value = 0.25
        self.assertEqual(self.layers(), self.laid(self.volume, result.restoration, 0.25))
        press(self.ui.layerSelector, "Key_Down")
        signed = result.node("Difference")
        self.assertEqual(self.layers(), self.laid(self.volume, signed, 0.5))
        press(self.ui.layerSelector, "Key_Down")
        self.assertEqual(self.layers(), self.laid(self.volume, result.spread, 0.5))
        press(self.ui.layerSelector, "Key_Down")
        self.assertEqual(self.layers(), self.laid(self.volume, None, 0.0))
        self.parameters.layer = "anomaly map"
        self.assertEqual(self.layers(), self.laid(self.volume, result.anomalyMap, 0.8))

    def test_what_a_restoration_changed(self) -> None:
        result = self.result
        self.assertIsNone(result.node("Difference"))
        self.parameters.layer = "difference"
        signed = ijk(result.node("Difference"))
        np.testing.assert_allclose(signed, ijk(self.volume) - ijk(result.restoration), atol=1e-3)
        self.assertTrue(signed.any())
        segments = result.segmentation.GetSegmentation()
        self.assertIsNone(segments.GetSegment(changes.REPLACED_ID))
        self.ui.outlineReplacedCheckBox.checked = True
        outlined = segment_ijk(result.segmentation, changes.REPLACED_ID, self.volume)
        np.testing.assert_array_equal(outlined, signed != 0)
        # The regions stay those of the anomalies, and another cut leaves the outline alone.
        self.ui.thresholdSlider.value = 85.0
        wait_for(lambda: result.percentile == 85.0)
        outlined = segment_ijk(result.segmentation, changes.REPLACED_ID, self.volume)
        np.testing.assert_array_equal(outlined, signed != 0)
        self.ui.outlineReplacedCheckBox.checked = False
        self.assertIsNone(segments.GetSegment(changes.REPLACED_ID))

    def test_a_new_restoration_has_a_new_difference(self) -> None:
        self.parameters.layer = "difference"
        self.parameters.anomalyMap = self.result.anomalyMap
        earlier = self.result.node("Difference").GetID()
        click(self.ui.detectButton)
        self.assertIsNone(slicer.mrmlScene.GetNodeByID(earlier))

    def test_colours(self) -> None:
        press(self.ui.coloursSelector, "Key_End")
        shown = self.result.anomalyMap.GetDisplayNode()
        self.assertEqual(shown.GetColorNodeID(), "vtkMRMLColorTableNodeFileCividis.txt")
        self.assertIsNotNone(shown.GetColorNode())
        # And they stay when it is cut elsewhere.
        self.ui.thresholdSlider.value = 85.0
        wait_for(lambda: shown.GetLowerThreshold() == 85.0)
        self.assertEqual(shown.GetColorNodeID(), "vtkMRMLColorTableNodeFileCividis.txt")

    def test_flicker(self) -> None:
        result = self.result
        scan_shown = self.laid(self.volume, result.anomalyMap, 0.5)
        other_shown = self.laid(result.restoration, result.anomalyMap, 0.5)
        self.area.ensureWidgetVisible(self.ui.flickerButton)
        click(self.ui.flickerButton)
        self.assertEqual(self.layers(), other_shown)
        wait_for(lambda: self.layers() == scan_shown)
        wait_for(lambda: self.layers() == other_shown)
        click(self.ui.flickerButton)
        self.assertEqual(self.layers(), scan_shown)
        # With the restoration laid over the scan, it gives way to the scan while it flickers.
        self.parameters.layer = "restoration"
        click(self.ui.flickerButton)
        wait_for(lambda: self.layers() == self.laid(self.volume, None, 1.0))
        self.panel.exit()
        self.assertFalse(self.ui.flickerButton.checked)
        self.assertEqual(self.layers(), self.laid(self.volume, result.restoration, 1.0))

    def test_views_that_show_something_else_are_left_alone(self) -> None:
        other = add_volume(scan(), GEOMETRIES["oblique"], "Other")
        view = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
        view.SetBackgroundVolumeID(other.GetID())
        view.SetForegroundVolumeID(None)
        self.ui.mapOpacitySlider.value = 0.9
        self.assertEqual(view.GetBackgroundVolumeID(), other.GetID())
        self.assertIsNone(view.GetForegroundVolumeID())
        view.SetBackgroundVolumeID(self.volume.GetID())
        self.parameters.seed = 5
        self.assertIsNone(view.GetForegroundVolumeID(), "a choice that has nothing to do with it")

    def test_surface_on_and_off(self) -> None:
        segmentation = self.result.segmentation
        self.assertTrue(segmentation.GetDisplayNode().GetVisibility3D())
        self.area.ensureWidgetVisible(self.ui.show3DCheckBox)
        self.ui.show3DCheckBox.checked = False
        self.assertFalse(segmentation.GetDisplayNode().GetVisibility3D())
        self.assertFalse(stored.hasSurface(segmentation))
        self.ui.show3DCheckBox.checked = True
        self.assertTrue(stored.hasSurface(segmentation))


class TestOpening(PanelTestCase):
    def test_setup_is_quick(self) -> None:
        started = time.process_time()
        panel = slicer.modules.latentspacerestoration.createNewWidgetRepresentation()
        self.assertLess(time.process_time() - started, 0.5)
        panel.self().cleanup()


if __name__ == "__main__":
    unittest.main()
