"""What the panel does can be undone with the scene's own undo, and done again."""

from __future__ import annotations

import unittest

import in_slicer
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
from LatentSpaceRestorationSlicer.scene import nodes  # noqa: E402
from panel_case import PanelTestCase, click, wait_for  # noqa: E402
from scene_tools import ijk, node_ids, segment_ijk  # noqa: E402

#: Classes of the nodes that a result consists of, for which an application may enable undo.
CLASSES = (
    "vtkMRMLScalarVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLTableNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLMarkupsFiducialNode",
)


class TestUndo(PanelTestCase):
    def setUp(self) -> None:
        super().setUp()
        scene = slicer.mrmlScene
        for name in CLASSES:
            default = getattr(slicer, name)()
            default.SetUndoEnabled(True)
            scene.AddDefaultNode(default)
        scene.SetUndoOn()
        self.parameters.threshold = 70.0

    def tearDown(self) -> None:
        super().tearDown()
        scene = slicer.mrmlScene
        scene.ClearUndoStack()
        scene.SetUndoOff()
        for name in CLASSES:
            scene.RemoveAllDefaultNodes() if hasattr(
                scene, "RemoveAllDefaultNodes"
            ) else scene.GetDefaultNodeByClass(name).SetUndoEnabled(False)

    def undoable(self) -> set[str]:
        return {name for name in node_ids() if slicer.mrmlScene.GetNodeByID(name).GetUndoEnabled()}

    def test_a_detection(self) -> None:
        before, scan = self.undoable(), ijk(self.volume).copy()
        click(self.ui.detectButton)
        added = self.undoable() - before
        self.assertGreaterEqual(len(added), 7)
        slicer.mrmlScene.Undo()
        self.assertEqual(self.undoable(), before)
        self.assertEqual(self.ui.wordsLabel.text, "No result yet.")
        np.testing.assert_array_equal(ijk(self.volume), scan)
        slicer.mrmlScene.Redo()
        self.assertEqual(self.undoable() - before, added)
        # And the panel can be used as before.
        click(self.ui.detectButton)
        self.assertIsNotNone(self.widget.resultSection.shown)

    def test_a_threshold(self) -> None:
        click(self.ui.detectButton)
        result = self.widget.resultSection.shown

        def cut() -> int:
            return int(segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume).sum())

        before = cut()
        self.ui.thresholdSlider.value = 95.0
        wait_for(lambda: result.percentile == 95.0)
        self.assertLess(cut(), before)
        slicer.mrmlScene.Undo()
        self.assertEqual(cut(), before)
        self.assertEqual(result.percentile, 70.0)
        self.assertEqual(self.ui.thresholdSlider.value, 70.0)

    def test_an_export(self) -> None:
        click(self.ui.detectButton)
        self.parameters.smallest = 0.0
        wait_for(lambda: self.ui.exportButton.enabled)
        before = self.undoable()
        click(self.ui.exportButton)
        self.assertEqual(len(self.undoable() - before), 2)
        slicer.mrmlScene.Undo()
        self.assertEqual(self.undoable(), before)


if __name__ == "__main__":
    unittest.main()
