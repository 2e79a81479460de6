"""The module's logic on real MRML nodes."""

from __future__ import annotations

import importlib.util
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import in_slicer
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LatentSpaceRestorationLib.errors import BundleError, Cancelled, InputError  # noqa: E402
from LatentSpaceRestorationSlicer import display, installation, results, scores  # noqa: E402
from LatentSpaceRestorationSlicer.installation import (  # noqa: E402
    MissingPackagesError,
    Packages,
    missingPackages,
)
from scene_tools import (  # noqa: E402
    GEOMETRIES,
    add_segment,
    add_transform,
    add_volume,
    affine,
    ijk,
    node_ids,
    rotation,
    same_geometry,
    segment_ijk,
    to_world,
)
from stub_detector import NothingMissing, StubDetector  # noqa: E402
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

from LatentSpaceRestoration import LatentSpaceRestorationLogic  # noqa: E402

SHAPE = (20, 24, 16)
RIGID = affine(rotation((3, 1, 2), 30), (1, 1, 1), (10, -20, 30))


def scan(hot: tuple[int, int, int] = (14, 7, 11)) -> np.ndarray:
    """(I, J, K): 0 at the border, 100 inside, 200 in a small cube around ``hot``."""
    array = np.zeros(SHAPE, dtype=np.float32)
    array[2:-2, 2:-2, 2:-2] = 100.0
    array[tuple(slice(i - 1, i + 2) for i in hot)] = 190.0
    array[hot] = 200.0
    return array


class LogicTestCase(unittest.TestCase):
    """A clean scene, and a logic with a detector that is no model."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.stub = StubDetector()
        self.logic = LatentSpaceRestorationLogic(self.stub.load, NothingMissing())


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
                        segment_ijk(result.segmentation, results.SEGMENT_ID, volume),
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
                    results.peakPosition(result), to_world(volume, (14, 7, 11)), atol=1e-5
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
                    results.peakPosition(result), to_world(volume, (14, 7, 11)), atol=1e-4
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


class TestBrainMask(LogicTestCase):
    """What is brain may be said by a segmentation or a label map of any geometry."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = add_volume(scan(), GEOMETRIES["oblique"])
        self.volume.SetAndObserveTransformNodeID(add_transform(RIGID).GetID())
        self.mask = np.zeros(SHAPE, dtype=np.uint8)
        self.mask[4:12, 5:15, 3:10] = 1

    def given(self, node: slicer.vtkMRMLNode) -> np.ndarray:
        before = node_ids()
        with (
            mock.patch.object(results, "writeResult"),
            mock.patch("LatentSpaceRestorationSlicer.task.writeResult"),
        ):
            self.logic.detect(self.volume, brainMask=node)
        self.assertEqual(node_ids(), before, "reading a mask left nodes behind")
        return self.stub.asked[-1].brain_mask

    def add_label_map(self, array: np.ndarray, ijk_to_ras: np.ndarray) -> slicer.vtkMRMLNode:
        return slicer.util.addVolumeFromArray(
            np.ascontiguousarray(array.transpose(2, 1, 0)),
            ijk_to_ras,
            "Labels",
            "vtkMRMLLabelMapVolumeNode",
        )

    def test_segmentation(self) -> None:
        np.testing.assert_array_equal(self.given(add_segment(self.mask, self.volume)), self.mask)

    def test_all_segments_count(self) -> None:
        node = add_segment(self.mask, self.volume)
        more = np.zeros_like(self.mask)
        more[15:18, 5:15, 12:14] = 1
        second = node.GetSegmentation().AddEmptySegment("more", "more")
        kji = np.ascontiguousarray(more.transpose(2, 1, 0))
        slicer.util.updateSegmentBinaryLabelmapFromArray(kji, node, second, self.volume)
        np.testing.assert_array_equal(self.given(node), self.mask | more)

    def test_segmentation_without_the_transform_lies_elsewhere(self) -> None:
        node = add_segment(self.mask, self.volume)
        node.SetAndObserveTransformNodeID(None)
        inside = self.given(node) if self.overlaps(node) else np.zeros(SHAPE)
        self.assertFalse(np.array_equal(inside, self.mask))

    def overlaps(self, node: slicer.vtkMRMLNode) -> bool:
        return bool(segment_ijk(node, "brain", self.volume).any())

    def test_label_map_on_the_same_grid(self) -> None:
        node = self.add_label_map(self.mask * 7, GEOMETRIES["oblique"])
        node.SetAndObserveTransformNodeID(self.volume.GetTransformNodeID())
        np.testing.assert_array_equal(self.given(node), self.mask)

    def test_label_map_of_another_geometry(self) -> None:
        # The same box, from a label map with half the voxel size and no parent transform.
        world = RIGID @ GEOMETRIES["oblique"]
        fine = world @ np.diag([0.5, 0.5, 0.5, 1.0])
        fine[:3, 3] = (world @ (-0.25, -0.25, -0.25, 1.0))[:3]
        node = self.add_label_map(np.kron(self.mask, np.ones((2, 2, 2), np.uint8)), fine)
        given = self.given(node).astype(int)
        overlap = 2.0 * (given & self.mask).sum() / (given.sum() + self.mask.sum())
        self.assertGreater(overlap, 0.95)

    def test_empty_or_wrong_masks_are_refused(self) -> None:
        before = node_ids()
        empty = add_segment(np.zeros(SHAPE, np.uint8), self.volume, "Nothing")
        with self.assertRaisesRegex(ValueError, "Nothing is empty"):
            self.logic.detect(self.volume, brainMask=empty)
        with self.assertRaisesRegex(ValueError, "neither a segmentation nor a label map"):
            self.logic.detect(self.volume, brainMask=self.volume)
        slicer.mrmlScene.RemoveNode(empty)
        self.assertEqual(node_ids(), before)


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
        red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
        if red is None:
            self.skipTest("there are no slice views without a main window")
        result = self.logic.detect(self.volume, threshold=60.0)
        view = slicer.vtkMRMLSliceLogic()
        view.SetMRMLScene(slicer.mrmlScene)
        view.SetSliceNode(red)
        view.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        red.SetDimensions(200, 240, 1)
        view.FitSliceToBackground(200, 240)
        display.jumpTo(results.peakPosition(result))
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(in_slicer.output_folder() / "slice.png"))
        writer.SetInputConnection(view.GetImageDataConnection())
        writer.Write()
        view.GetImageDataConnection().GetProducer().Update()
        image = view.GetImageDataConnection().GetProducer().GetOutputDataObject(0)
        width, height, _ = image.GetDimensions()
        colours = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
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
        segment = segmentation.GetSegmentation().GetSegment(results.SEGMENT_ID)
        entry = slicer.vtkSlicerTerminologyEntry()
        terminologies = slicer.modules.terminologies.logic()
        code = vtk.reference("")
        self.assertTrue(segment.GetTag(segment.GetTerminologyEntryTagName(), code))
        self.assertTrue(terminologies.DeserializeTerminologyEntry(str(code), entry))
        self.assertEqual(entry.GetCategoryObject().GetCodeValue(), "49755003")
        self.assertEqual(
            entry.GetTypeObject().GetCodeMeaning(), "Morphologically Abnormal Structure"
        )
        surface = vtk.vtkPolyData()
        segmentation.GetClosedSurfaceRepresentation(results.SEGMENT_ID, surface)
        self.assertGreater(surface.GetNumberOfPoints(), 0)

    def test_nothing_anomalous_gives_an_empty_segment(self) -> None:
        result = self.logic.detect(self.volume, threshold=99999.0)
        inside = segment_ijk(result.segmentation, results.SEGMENT_ID, self.volume)
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
            inside = segment_ijk(segmentation, results.SEGMENT_ID, self.volume)
            np.testing.assert_array_equal(inside, result.detection.anomaly_mask)
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 2)

    def test_another_threshold_without_detecting_again(self) -> None:
        result = self.logic.detect(self.volume, threshold=95.0)
        few = segment_ijk(result.segmentation, results.SEGMENT_ID, self.volume).sum()
        self.logic.setThreshold(result, 80.0)
        inside = segment_ijk(result.segmentation, results.SEGMENT_ID, self.volume)
        np.testing.assert_array_equal(inside, result.detection.anomaly_map >= 80.0)
        self.assertGreater(inside.sum(), few)
        self.assertEqual(result.anomalyMap.GetDisplayNode().GetLowerThreshold(), 80.0)
        self.assertEqual(len(self.stub.asked), 1)

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
        np.testing.assert_array_equal(segment_ijk(segmentation, results.SEGMENT_ID, volume), mask)
        self.assertEqual(anomaly_map.GetParentTransformNode().GetName(), "Pose")
        shown = anomaly_map.GetDisplayNode()
        self.assertEqual(shown.GetColorNodeID(), "vtkMRMLColorTableNodeFileInferno.txt")
        self.assertTrue(shown.GetApplyThreshold())

    def test_the_score_in_words(self) -> None:
        detection = self.logic.detect(self.volume).detection
        self.assertEqual(
            scores.inWords(detection),
            "More unusual than 19 of 20 healthy scans (percentile 90).",
        )
        for p, count, words in (
            (1 / 21, 20, "More unusual than 20 of 20 healthy scans (percentile 95)."),
            (1.0, 20, "Not more unusual than any of 20 healthy scans."),
            (1.0, 0, "This model has no healthy scans to compare with."),
        ):
            other = mock.Mock(p_value=p, healthy_scans=count, percentile=100 * (1 - p))
            self.assertEqual(scores.inWords(other), words)


class TestFailing(LogicTestCase):
    """When it fails or is cancelled, the scene is as it was."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = add_volume(scan(), GEOMETRIES["oblique"])
        self.output = add_volume(np.ones((3, 4, 5), np.float32), np.eye(4), "Mine")
        self.before = node_ids()
        self.changed = self.output.GetMTime()

    def assert_untouched(self) -> None:
        self.assertEqual(node_ids(), self.before)
        self.assertEqual(self.output.GetMTime(), self.changed)
        np.testing.assert_array_equal(ijk(self.output), 1.0)

    def test_cancel_at_every_step(self) -> None:
        for step in range(self.stub.steps):
            with self.subTest(step):
                answers = iter([False] * step + [True])
                with self.assertRaises(Cancelled):
                    self.logic.detect(self.volume, self.output, isCancelled=answers.__next__)
                self.assert_untouched()

    def test_detector_fails(self) -> None:
        for fault in (InputError("no brain was found"), MemoryError(), KeyboardInterrupt()):
            with self.subTest(type(fault).__name__):
                self.stub.fault = fault
                with self.assertRaises(type(fault)):
                    self.logic.detect(self.volume, self.output)
                self.assert_untouched()

    def test_writing_fails_late(self) -> None:
        for function in ("overlay", "showSegment", "copyGreyWindow"):
            with (
                self.subTest(function),
                mock.patch.object(display, function, side_effect=RuntimeError("no")),
            ):
                with self.assertRaises(RuntimeError):
                    self.logic.detect(self.volume)
                self.assertEqual(node_ids(), self.before)

    def test_scan_removed_or_moved_meanwhile(self) -> None:
        def move() -> None:
            self.volume.SetOrigin(1, 2, 3)

        def remove() -> None:
            slicer.mrmlScene.RemoveNode(self.volume)
            self.before = node_ids()

        for change in (move, remove):
            with self.subTest(change.__name__):
                self.stub.before_step = lambda number, change=change: number == 2 and change()
                with self.assertRaisesRegex(RuntimeError, "removed or changed"):
                    self.logic.detect(self.volume, self.output)
                self.assert_untouched()

    def test_output_removed_meanwhile_is_replaced(self) -> None:
        self.stub.before_step = lambda number: (
            number == 2 and slicer.mrmlScene.RemoveNode(self.output)
        )
        result = self.logic.detect(self.volume, self.output)
        self.assertIsNot(result.anomalyMap, self.output)
        self.assertTrue(result.isInScene())

    def test_nodes_that_cannot_be_used(self) -> None:
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Bare")
        colour = slicer.util.addVolumeFromArray(
            np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode", name="RGB"
        )
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
        self.before = node_ids()
        for arguments, words in (
            ((None,), "not a scalar volume"),
            ((self.output.GetDisplayNode(),), "not a scalar volume"),
            ((empty,), "Bare has no voxels"),
            ((colour,), "RGB has 3 values"),
            ((self.volume, self.volume), "is an input"),
            ((self.volume, labels), "Labels cannot hold"),
            ((self.volume, self.output, None, self.output), "two outputs"),
            ((self.volume, None, self.output), "cannot hold"),
        ):
            with self.subTest(words), self.assertRaisesRegex(ValueError, words):
                self.logic.detect(*arguments)
            self.assert_untouched()


class TestInstalling(unittest.TestCase):
    """Packages are installed by the button, after a question, and never in testing mode."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "requirements.txt"
        self.path.write_text("# comment\nno-such-package>=1\nnumpy>=999\n\nnumpy>=1  # fine\n")
        self.packages = Packages(self.path)

    def patch(self, target: object, name: str, value: object) -> None:
        patcher = mock.patch.object(target, name, value)
        patcher.start()
        self.addCleanup(patcher.stop)

    def leave_testing_mode(self) -> None:
        self.patch(slicer, "app", mock.Mock(wraps=slicer.app))
        slicer.app.testingEnabled = lambda: False

    def test_the_console_is_told_what_is_missing(self) -> None:
        self.assertEqual(missingPackages(self.path), ["no-such-package>=1", "numpy>=999"])
        volume = add_volume(scan(), np.eye(4))
        before = node_ids()
        with self.assertRaisesRegex(MissingPackagesError, "no-such-package"):
            LatentSpaceRestorationLogic(packages=self.packages).detect(volume)
        self.assertEqual(node_ids(), before)

    def test_nothing_is_installed_in_testing_mode(self) -> None:
        self.patch(installation, "torchIsInstalled", lambda: True)
        install = mock.Mock()
        self.patch(slicer.util, "pip_install", install)
        with self.assertRaisesRegex(MissingPackagesError, "testing mode"):
            self.packages.ensure()
        install.assert_not_called()

    def test_torch_comes_through_its_extension(self) -> None:
        self.patch(installation, "torchIsInstalled", lambda: False)
        with self.assertRaisesRegex(MissingPackagesError, "Install the extension PyTorch"):
            self.packages.ensure()
        extension = mock.Mock()
        extension.PyTorchUtilsLogic().installTorch.return_value = None
        with mock.patch.dict("sys.modules", PyTorchUtils=extension):
            with self.assertRaisesRegex(MissingPackagesError, "testing mode"):
                self.packages.ensure()
            self.leave_testing_mode()
            with self.assertRaisesRegex(MissingPackagesError, "nothing was run"):
                self.packages.ensure()
        asked = extension.PyTorchUtilsLogic().installTorch.call_args.kwargs
        self.assertTrue(asked["askConfirmation"])

    def test_torch_that_is_there_is_taken_as_it_is(self) -> None:
        self.path.write_text("")
        extension = mock.Mock()
        self.patch(installation, "torchIsInstalled", lambda: True)
        with mock.patch.dict("sys.modules", PyTorchUtils=extension):
            self.packages.ensure()
        extension.PyTorchUtilsLogic.assert_not_called()

    def test_with_slicers_own_installer(self) -> None:
        self.leave_testing_mode()
        self.patch(installation, "torchIsInstalled", lambda: True)
        self.patch(installation, "hasOwnInstaller", lambda: True)
        packaging = mock.Mock()
        # It only pretends to install, so that they are still missing afterwards.
        installed = mock.patch.dict("sys.modules", {"slicer.packaging": packaging})
        with installed, self.assertRaises(MissingPackagesError):
            self.packages.ensure()
        self.assertEqual(packaging.pip_ensure.call_args.args[0], missingPackages(self.path))

    def test_without_it_the_user_is_asked(self) -> None:
        self.leave_testing_mode()
        self.patch(installation, "torchIsInstalled", lambda: True)
        self.patch(installation, "hasOwnInstaller", lambda: False)
        install = mock.Mock()
        self.patch(slicer.util, "pip_install", install)
        self.patch(slicer.util, "confirmOkCancelDisplay", lambda text: False)
        with self.assertRaisesRegex(MissingPackagesError, "nothing was run"):
            self.packages.ensure()
        install.assert_not_called()
        self.patch(slicer.util, "confirmOkCancelDisplay", lambda text: True)
        with self.assertRaises(MissingPackagesError):
            self.packages.ensure()
        install.assert_called_once_with(missingPackages(self.path))


@unittest.skipIf(importlib.util.find_spec("torch") is None, "torch is not installed")
class TestWithNetworks(unittest.TestCase):
    """The whole way with a real detector, whose small networks are untrained."""

    @classmethod
    def setUpClass(cls) -> None:
        from tiny_model import write_tiny_model

        cls.folder = tempfile.TemporaryDirectory()
        cls.model = str(write_tiny_model(Path(cls.folder.name)))
        cls.logic = LatentSpaceRestorationLogic(packages=NothingMissing())

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_nodes_hold_what_the_library_gives(self) -> None:
        from LatentSpaceRestorationLib.detector import Detector
        from tiny_model import generated_brain

        oblique = affine(rotation((1, 2, 3), 20) @ np.diag([1, -1, 1]), (4, 4, 4), (0, 0, 0))
        head = generated_brain((48, 52, 44), oblique)
        volume = add_volume(head.array, head.affine)
        reports: list[tuple[float, str]] = []
        result = self.logic.detect(
            volume,
            model=self.model,
            restorations=2,
            seed=3,
            progress=lambda fraction, message: reports.append((fraction, message)),
        )
        wanted = Detector.load(self.model).detect(head, restorations=2, seed=3)
        np.testing.assert_allclose(ijk(result.anomalyMap), wanted.anomaly_map, atol=1e-4)
        np.testing.assert_allclose(ijk(result.restoration), wanted.restoration, atol=1e-2)
        self.assertGreater(ijk(result.anomalyMap).max(), 0.0)
        self.assertEqual(same_geometry(volume, result.anomalyMap), "")
        fractions = [fraction for fraction, _ in reports]
        self.assertEqual(fractions, sorted(fractions))
        self.assertEqual(fractions[-1], 1.0)
        # The threshold that the model was calibrated with, and another.
        self.assertEqual(result.detection.threshold_percentile, 99.0)
        self.logic.setThreshold(result, 70.0)
        value = result.detector.threshold_value(70.0, mode="default")
        inside = segment_ijk(result.segmentation, results.SEGMENT_ID, volume)
        np.testing.assert_array_equal(inside, ijk(result.anomalyMap) >= value)

    def test_cancel_leaves_the_scene_as_it_was(self) -> None:
        from tiny_model import generated_brain

        head = generated_brain()
        volume = add_volume(head.array, head.affine)
        before = node_ids()
        reached: list[float] = []
        with self.assertRaises(Cancelled):
            self.logic.detect(
                volume,
                model=self.model,
                restorations=2,
                progress=lambda fraction, _: reached.append(fraction),
                isCancelled=lambda: bool(reached) and reached[-1] > 0.3,
            )
        self.assertEqual(node_ids(), before)

    def test_unknown_model(self) -> None:
        volume = add_volume(scan(), np.eye(4))
        before = node_ids()
        with self.assertRaisesRegex(BundleError, "there is no model no-such-model"):
            self.logic.detect(volume, model="no-such-model")
        self.assertEqual(node_ids(), before)

    def test_a_scan_without_a_brain_is_refused(self) -> None:
        before = node_ids()
        volume = add_volume(np.full((20, 20, 20), 3.0, np.float32), np.diag([4, 4, 4, 1.0]))
        with self.assertRaises(InputError):
            self.logic.detect(volume, model=self.model)
        slicer.mrmlScene.RemoveNode(volume)
        self.assertEqual(node_ids(), before)


if __name__ == "__main__":
    unittest.main()
