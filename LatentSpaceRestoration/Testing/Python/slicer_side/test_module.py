"""Results of the module's logic on real MRML nodes: where they lie, and what they hold."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import in_slicer
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LatentSpaceRestorationSlicer.scene import (  # noqa: E402
    display,
    nodes,
    regions,
    results,
    score_plot,
)
from logic_case import LogicTestCase  # noqa: E402
from scene_tools import (  # noqa: E402
    GEOMETRIES,
    RIGID,
    SHAPE,
    add_segment,
    add_transform,
    add_volume,
    affine,
    ijk,
    same_geometry,
    scan,
    segment_ijk,
    slice_image,
    to_world,
)


class TestGeometry(LogicTestCase):
    """Where things are, for every orientation and transform."""

    def test_outputs_lie_on_the_input(self) -> None:
        for name, ijk_to_ras in GEOMETRIES.items():
            for transform in (None, add_transform(RIGID)):
                with self.subTest(name, transform=transform is not None):
                    volume = add_volume(scan(), ijk_to_ras, name)
                    volume.SetAndObserveTransformNodeID(transform and transform.GetID())
                    result = self.logic.detect(volume)
                    for node in (result.anomalyMap, result.restoration):
                        self.assertEqual(same_geometry(volume, node), "")
                        self.assertIs(node.GetParentTransformNode(), transform)
                    np.testing.assert_array_equal(
                        ijk(result.anomalyMap), result.detection.anomaly_map
                    )
                    self.assertIs(result.segmentation.GetParentTransformNode(), transform)
                    np.testing.assert_array_equal(
                        segment_ijk(result.segmentation, nodes.SEGMENT_ID, volume),
                        result.detection.anomaly_mask,
                    )

    def test_the_library_gets_world_positions_through_rigid_transforms(self) -> None:
        for name, ijk_to_ras in GEOMETRIES.items():
            with self.subTest(name):
                volume = add_volume(scan(), ijk_to_ras)
                outer = add_transform(affine(np.eye(3), (1, 1, 1), (0, 0, 50)))
                inner = add_transform(RIGID)
                inner.SetAndObserveTransformNodeID(outer.GetID())
                volume.SetAndObserveTransformNodeID(inner.GetID())
                result = self.logic.detect(volume)
                given = self.stub.asked[-1].volume
                np.testing.assert_array_equal(given.array, scan())
                for index in ((0, 0, 0), (19, 3, 7)):
                    np.testing.assert_allclose(
                        (given.affine @ (*index, 1))[:3], to_world(volume, index), atol=1e-5
                    )
                self.assertEqual(result.warnings, ())
                np.testing.assert_allclose(
                    results.peakPosition(result),
                    to_world(volume, (14, 7, 11)),
                    atol=1e-5,
                )

    def test_other_transforms_are_left_out_and_said(self) -> None:
        scaling = add_transform(affine(np.eye(3), (1, 1, 1.2), (0, 0, 0)))
        mirror = add_transform(np.diag([-1.0, 1.0, 1.0, 1.0]))
        bending = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Bend")
        spline = vtk.vtkThinPlateSplineTransform()
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for corner in np.ndindex(2, 2, 2):
            source.InsertNextPoint(*(100.0 * c for c in corner))
            target.InsertNextPoint(*(100.0 * c + 10.0 * (sum(corner) == 2) for c in corner))
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        spline.SetBasisToR()
        bending.SetAndObserveTransformToParent(spline)
        volume = add_volume(scan(), GEOMETRIES["oblique"])
        for transform in (scaling, mirror, bending):
            with self.subTest(transform.GetName()):
                volume.SetAndObserveTransformNodeID(transform.GetID())
                result = self.logic.detect(volume)
                np.testing.assert_allclose(
                    self.stub.asked[-1].volume.affine, GEOMETRIES["oblique"], atol=1e-6
                )
                self.assertEqual(len(result.warnings), 1)
                self.assertIn("transform", result.warnings[0])
                self.assertIs(result.anomalyMap.GetParentTransformNode(), transform)
                np.testing.assert_allclose(
                    results.peakPosition(result),
                    to_world(volume, (14, 7, 11)),
                    atol=1e-4,
                )

    def test_a_file_of_any_handedness_keeps_its_lesion_in_place(self) -> None:
        for name, ijk_to_ras in GEOMETRIES.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "scan.nii.gz")
                written = add_volume(scan(), ijk_to_ras)
                place = to_world(written, (14, 7, 11))
                self.assertTrue(slicer.util.saveNode(written, path, {}))
                slicer.mrmlScene.Clear()
                loaded = slicer.util.loadVolume(path, {})
                result = self.logic.detect(loaded)
                np.testing.assert_allclose(results.peakPosition(result), place, atol=1e-3)
                self.assertEqual(same_geometry(loaded, result.anomalyMap), "")


class TestResultNodes(LogicTestCase):
    """Names, places, looks and contents of what is made."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = add_volume(scan(), GEOMETRIES["LPS"], "Head")
        self.volume.GetDisplayNode().AutoWindowLevelOff()
        self.volume.GetDisplayNode().SetWindowLevelMinMax(7.0, 177.0)

    def test_names_and_values(self) -> None:
        result = self.logic.detect(self.volume, threshold=60.0)
        names = ["Head anomaly map", "Head anomalies", "Head restoration"]
        self.assertEqual([node.GetName() for node in result.nodes()][:3], names)
        self.assertEqual(result.sampleScore, 100.0)
        self.assertAlmostEqual(result.percentile, 100 * 19 / 21)
        self.assertEqual(len(result.sliceScores), SHAPE[2])
        self.assertEqual(ijk(result.anomalyMap).dtype, np.float32)
        self.assertEqual(ijk(result.restoration)[14, 7, 11], 100.0)

    def test_subject_hierarchy(self) -> None:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(self.volume), study)
        for node in self.logic.detect(self.volume).nodes():
            item = hierarchy.GetItemByDataNode(node)
            self.assertTrue(item, node.GetName())
            self.assertEqual(hierarchy.GetItemParent(item), study, node.GetName())

    def test_colours_hide_what_is_cold(self) -> None:
        result = self.logic.detect(self.volume, threshold=60.0)
        shown = result.anomalyMap.GetDisplayNode()
        self.assertEqual(shown.GetColorNodeID(), "vtkMRMLColorTableNodeFileInferno.txt")
        self.assertFalse(shown.GetAutoWindowLevel())
        self.assertEqual(shown.GetWindowLevelMin(), 0.0)
        self.assertTrue(shown.GetApplyThreshold())
        self.assertEqual(shown.GetLowerThreshold(), 60.0)
        self.assertGreaterEqual(shown.GetUpperThreshold(), 100.0)
        grey = result.restoration.GetDisplayNode()
        self.assertEqual((grey.GetWindowLevelMin(), grey.GetWindowLevelMax()), (7.0, 177.0))

    def test_a_little_spread_is_not_drawn(self) -> None:
        spread = np.full(SHAPE, 0.1, np.float32)
        spread[:10] = 0.0
        spread[12:16, 8:16, 6:12] = 5.0  # more than the share that is brighter than the window
        node = add_volume(spread, GEOMETRIES["LPS"], "Spread")
        display.showSpread(node)
        shown = node.GetDisplayNode()
        self.assertTrue(shown.GetApplyThreshold())
        self.assertGreater(shown.GetLowerThreshold(), 0.1)
        self.assertLess(shown.GetLowerThreshold(), 5.0)
        self.assertEqual(shown.GetUpperThreshold(), 5.0)
        node = add_volume(np.zeros(SHAPE, np.float32), GEOMETRIES["LPS"], "None")
        display.showSpread(node)
        self.assertGreater(node.GetDisplayNode().GetLowerThreshold(), 0.0)

    def test_overlay_in_the_slice_views(self) -> None:
        views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        if not views:
            self.skipTest("there are no slice views without a main window")
        result = self.logic.detect(self.volume)
        for view in views:
            self.assertEqual(view.GetBackgroundVolumeID(), self.volume.GetID())
            self.assertEqual(view.GetForegroundVolumeID(), result.anomalyMap.GetID())
            self.assertEqual(view.GetForegroundOpacity(), 0.5)
        display.jumpTo((1.0, 2.0, 3.0))
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            plane = np.array(slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()))
            self.assertAlmostEqual(float(plane[:3, 2] @ (plane[:3, 3] - (1, 2, 3))), 0.0)

    def test_picture_of_the_overlay(self) -> None:
        if slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode") is None:
            self.skipTest("there are no slice views without a main window")
        result = self.logic.detect(self.volume, threshold=60.0)
        colours = slice_image(results.peakPosition(result), "slice.png")
        height, width, _ = colours.shape
        # The volume is grey and the map is not. Columns run with I; rows, counted from below, run
        # against J, since the volume is stored LPS.
        coloured = np.ptp(colours[:, :, :3].astype(int), axis=2) > 30
        rows, columns = np.nonzero(coloured)
        self.assertGreater(len(rows), 20)
        self.assertLess(len(rows), 0.2 * width * height)
        self.assertAlmostEqual(columns.mean() / width, 14.5 / 20, delta=0.06)
        self.assertAlmostEqual(rows.mean() / height, 1 - 7.5 / 24, delta=0.06)

    def test_segment_says_what_it_is_and_has_a_surface(self) -> None:
        segmentation = self.logic.detect(self.volume).segmentation
        segment = segmentation.GetSegmentation().GetSegment(nodes.SEGMENT_ID)
        entry = slicer.vtkSlicerTerminologyEntry()
        terminologies = slicer.modules.terminologies.logic()
        code = vtk.reference("")
        self.assertTrue(segment.GetTag(segment.GetTerminologyEntryTagName(), code))
        self.assertTrue(terminologies.DeserializeTerminologyEntry(str(code), entry))
        self.assertEqual(entry.GetCategoryObject().GetCodeValue(), "49755003")
        # One that Slicer's list has.
        name, category = entry.GetTerminologyContextName(), entry.GetCategoryObject()
        listed = {}
        for number in range(terminologies.GetNumberOfTypesInTerminologyCategory(name, category)):
            kind = slicer.vtkSlicerTerminologyType()
            terminologies.GetNthTypeInTerminologyCategory(name, category, number, kind)
            listed[kind.GetCodeValue()] = kind.GetCodeMeaning()
        own = entry.GetTypeObject()
        self.assertEqual(listed[own.GetCodeValue()], own.GetCodeMeaning())
        surface = vtk.vtkPolyData()
        segmentation.GetClosedSurfaceRepresentation(nodes.SEGMENT_ID, surface)
        self.assertGreater(surface.GetNumberOfPoints(), 0)

    def test_nothing_anomalous_gives_an_empty_segment(self) -> None:
        volume = add_volume(np.minimum(scan(), 120.0), np.eye(4), "Plain")
        result = self.logic.detect(volume, threshold=99.0)
        inside = segment_ijk(result.segmentation, nodes.SEGMENT_ID, volume)
        self.assertEqual(inside.shape, SHAPE)
        self.assertFalse(inside.any())

    def test_scores_in_a_table_with_a_plot(self) -> None:
        result = self.logic.detect(self.volume)
        table = result.scoreTable.GetTable()
        rows = [[table.GetValue(r, c).ToDouble() for c in (0, 1)] for r in range(SHAPE[2])]
        wanted = sorted([s.position_mm, s.score] for s in result.sliceScores)
        np.testing.assert_allclose(rows, wanted)
        self.assertIs(result.scoreChart.GetNthPlotSeriesNode(0), result.scoreSeries)
        self.assertIs(result.scoreSeries.GetTableNode(), result.scoreTable)
        self.assertEqual(result.scoreSeries.GetXColumnName(), "Position (mm)")

    def test_given_nodes_are_written_to(self) -> None:
        old = np.ones((3, 4, 5), np.float32)
        anomaly_map = add_volume(old, np.eye(4), "Mine")
        restoration = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Bare")
        segmentation = add_segment(old, anomaly_map, "Several")
        for _ in range(2):
            result = self.logic.detect(self.volume, anomaly_map, segmentation, restoration)
            self.assertIs(result.anomalyMap, anomaly_map)
            self.assertIs(result.segmentation, segmentation)
            self.assertIs(result.restoration, restoration)
            self.assertEqual(same_geometry(self.volume, anomaly_map), "")
            self.assertEqual(anomaly_map.GetName(), "Mine")
            inside = segment_ijk(segmentation, nodes.SEGMENT_ID, self.volume)
            np.testing.assert_array_equal(inside, result.detection.anomaly_mask)
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 2)

    def test_another_threshold_without_detecting_again(self) -> None:
        result = self.logic.detect(self.volume, threshold=95.0)
        few = segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume).sum()
        self.logic.setThreshold(result, 80.0)
        inside = segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume)
        np.testing.assert_array_equal(inside, result.detection.anomaly_map >= 80.0)
        self.assertGreater(inside.sum(), few)
        self.assertEqual(result.anomalyMap.GetDisplayNode().GetLowerThreshold(), 80.0)
        self.assertEqual(len(self.stub.asked), 1)

    def test_a_result_is_written_as_a_page(self) -> None:
        result = self.logic.detect(self.volume)
        with tempfile.TemporaryDirectory() as folder:
            of_scan, of_map = (Path(folder) / f"{name}.html" for name in ("scan", "map"))
            self.assertEqual(self.logic.exportPage(self.volume, of_scan), of_scan)
            self.logic.exportPage(result.anomalyMap, str(of_map))
            self.assertEqual(of_scan.read_bytes(), of_map.read_bytes())
            self.assertIn(f"<b>Score {result.sampleScore:.0f}", of_scan.read_text("utf-8"))
            slicer.mrmlScene.RemoveNode(result.restoration)
            with self.assertRaisesRegex(ValueError, "was removed"):
                self.logic.exportPage(self.volume, of_scan)
            self.assertEqual(of_scan.read_bytes(), of_map.read_bytes())
        with self.assertRaisesRegex(ValueError, "has no result; detect anomalies in it first"):
            self.logic.exportPage(result.spread, of_scan)

    def test_a_map_that_is_not_to_be_trusted_flags_nothing(self) -> None:
        self.stub.warnings = ("another contrast; the map is not to be trusted",)
        result = self.logic.detect(self.volume, threshold=20.0)
        self.assertIsNone(result.percentile)
        record = result.stored.record
        self.assertEqual(type(record).fromText(record.toText()), record)
        self.assertEqual(
            score_plot.inWords(record.figures.p_value, record.figures.healthy_scans),
            "No percentile, since the map is not to be trusted.",
        )
        for percentile in (20.0, 10.0):
            self.logic.setThreshold(result, percentile)
            inside = segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume)
            self.assertFalse(inside.any())
        self.assertIn("Nothing is flagged", regions.summary(result.stored, ()))

    def test_scene_bundle_round_trip(self) -> None:
        self.volume.SetAndObserveTransformNodeID(add_transform(RIGID, "Pose").GetID())
        result = self.logic.detect(self.volume)
        values, mask = ijk(result.anomalyMap), result.detection.anomaly_mask
        names = [node.GetName() for node in result.nodes()]
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "result.mrb")
            self.assertTrue(slicer.util.saveScene(path, {}))
            slicer.mrmlScene.Clear()
            slicer.util.loadScene(path, {})
        loaded = [slicer.mrmlScene.GetFirstNode(name, None, None, True) for name in names]
        self.assertNotIn(None, loaded)
        volume = slicer.util.getNode("Head")
        anomaly_map, segmentation = loaded[:2]
        np.testing.assert_array_equal(ijk(anomaly_map), values)
        np.testing.assert_array_equal(segment_ijk(segmentation, nodes.SEGMENT_ID, volume), mask)
        self.assertEqual(anomaly_map.GetParentTransformNode().GetName(), "Pose")
        shown = anomaly_map.GetDisplayNode()
        self.assertEqual(shown.GetColorNodeID(), "vtkMRMLColorTableNodeFileInferno.txt")
        self.assertTrue(shown.GetApplyThreshold())

    def test_the_score_in_words(self) -> None:
        for p, count, words in (
            (
                2 / 21,
                20,
                "More unusual than 19 of 20 healthy scans."
                " With 20 scans, at most 95% can be claimed.",
            ),
            (
                1 / 101,
                100,
                "More unusual than all 100 healthy scans."
                " With 100 scans, at most 99% can be claimed.",
            ),
            (1.0, 20, "Not more unusual than any of 20 healthy scans."),
            (1.0, 0, "This model has no healthy scans to compare with."),
        ):
            self.assertEqual(score_plot.inWords(p, count), words)
        words = "Not more unusual than any of 30 healthy scans of 2 sites."
        self.assertEqual(score_plot.inWords(1.0, 30, 2), words)

    def test_a_percentile_as_a_count_of_voxels(self) -> None:
        for percentile, count in (
            (50.0, "2"),
            (60.0, "2.5"),
            (97.0, "33"),
            (99.0, "100"),
            (99.3, "140"),
            (99.9, "1,000"),
            (99.99, "10,000"),
        ):
            self.assertEqual(
                score_plot.rarityInWords(percentile),
                f"1 voxel in {count} of a healthy brain is as high.",
            )


if __name__ == "__main__":
    unittest.main()
