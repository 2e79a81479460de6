"""What the module's logic takes, what it refuses, and what is left when it fails."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import in_slicer
import nibabel
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LatentSpaceRestorationLib.errors import SIDE_UNKNOWN, Cancelled, InputError  # noqa: E402
from LatentSpaceRestorationSlicer.scene import display, results  # noqa: E402
from logic_case import LogicTestCase  # noqa: E402
from scene_tools import (  # noqa: E402
    GEOMETRIES,
    RIGID,
    SHAPE,
    add_segment,
    add_transform,
    add_volume,
    ijk,
    node_ids,
    scan,
    segment_ijk,
)


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


class TestTiltedSeries(LogicTestCase):
    """A series of a tilted gantry as Slicer reads it: straight, under a grid transform."""

    def under(self, displacement: Any) -> Any:
        """A volume under a grid transform of two corners each way; its RAS in mm is displaced."""
        volume = add_volume(scan(), np.eye(4), "Tilted")
        grid = vtk.vtkImageData()
        extent = np.array(volume.GetImageData().GetDimensions(), float)
        grid.SetDimensions(2, 2, 2)
        grid.SetSpacing(*(extent + 2.0))
        grid.SetOrigin(-1.0, -1.0, -1.0)
        grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
        for k in range(2):
            for j in range(2):
                for i in range(2):
                    place = np.array([i, j, k]) * (extent + 2.0) - 1.0
                    for axis, by in enumerate(displacement(place)):
                        grid.SetScalarComponentFromDouble(i, j, k, axis, float(by))
        moves = slicer.vtkOrientedGridTransform()
        moves.SetDisplacementGridData(grid)
        moves.SetInterpolationModeToLinear()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "acquisition")
        node.SetAndObserveTransformToParent(moves)
        volume.SetAndObserveTransformNodeID(node.GetID())
        return volume

    def test_slices_that_are_shifted_evenly_are_taken_as_they_lie(self) -> None:
        volume = self.under(lambda place: (0.0, 0.25 * place[2], 0.0))
        result = self.logic.detect(volume)
        sheared = np.eye(4)
        sheared[1, 2] = 0.25
        np.testing.assert_allclose(self.stub.asked[-1].volume.affine, sheared, atol=1e-3)
        self.assertEqual(result.warnings, ())
        self.assertEqual(result.anomalyMap.GetTransformNodeID(), volume.GetTransformNodeID())

    def test_a_grid_that_bends_is_left_out_with_a_note(self) -> None:
        volume = self.under(lambda place: (0.5 * place[0] * place[2] / 10.0, 0.0, 0.0))
        result = self.logic.detect(volume)
        np.testing.assert_allclose(self.stub.asked[-1].volume.affine, np.eye(4))
        self.assertIn("bends, scales or mirrors", result.warnings[0])


class TestFileNotes(LogicTestCase):
    """What a volume's file does not say is a note, though the node has been filled in."""

    def given(self, image: Any, name: str, change: Any = None) -> tuple[str, ...]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            image.to_filename(file)
            if change is not None:
                content = bytearray(file.read_bytes())
                change(content)
                file.write_bytes(content)
            volume = add_volume(scan(), np.eye(4), "Head")
            storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
            storage.SetFileName(str(file))
            volume.SetAndObserveStorageNodeID(storage.GetID())
            return self.logic.detect(volume).warnings

    def test_a_file_that_says_all_has_no_note(self) -> None:
        for kind, name in (
            (nibabel.Nifti1Image, "head.nii"),
            (nibabel.Nifti1Image, "head.nii.gz"),
            (nibabel.Nifti2Image, "head.nii"),
            (nibabel.Nifti1Pair, "head.img"),
            (nibabel.MGHImage, "head.mgz"),
        ):
            with self.subTest(name):
                self.assertEqual(self.given(kind(scan(), np.eye(4)), name), ())

    def test_a_file_without_orientation(self) -> None:
        for kind, name in (
            (nibabel.Nifti1Image, "head.nii.gz"),
            (nibabel.Nifti2Image, "head.nii"),
            (nibabel.Nifti1Pair, "head.img"),
        ):
            image = kind(scan(), np.eye(4))
            image.set_sform(None, code=0)
            image.set_qform(None, code=0)
            with self.subTest(name):
                self.assertEqual(self.given(image, name), (SIDE_UNKNOWN,))
        self.assertEqual(
            self.given(nibabel.AnalyzeImage(scan(), np.eye(4)), "head.img"), (SIDE_UNKNOWN,)
        )

        def not_good(content: bytearray) -> None:
            content[28:30] = b"\0\0"

        self.assertEqual(
            self.given(nibabel.MGHImage(scan(), np.eye(4)), "head.mgh", not_good), (SIDE_UNKNOWN,)
        )

    def test_a_spacing_that_slicer_made_up(self) -> None:
        image = nibabel.Nifti1Image(scan(), np.diag([2.0, 2.0, 2.0, 1.0]))
        image.set_sform(None, code=0)
        image.set_qform(image.affine, code=1)

        def flat(content: bytearray) -> None:
            content[76 + 8 : 76 + 12] = b"\0\0\0\0"

        swapped = nibabel.Nifti1Image(
            scan(), None, nibabel.Nifti1Header.from_header(image.header).as_byteswapped(">")
        )
        for one in (image, swapped):
            (line,) = self.given(one, "head.nii", flat)
            self.assertIn("2 x 0 x 2 mm", line)


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
        self.assertTrue(result.stored.isInScene())

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


if __name__ == "__main__":
    unittest.main()
