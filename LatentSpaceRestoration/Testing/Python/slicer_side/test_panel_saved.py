"""Results that stay with their scans: in a scene that is saved, and with two scans in one scene."""

from __future__ import annotations

import json
import re
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import in_slicer
import numpy as np
from LatentSpaceRestorationLib.volume import voxel_ml

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from LatentSpaceRestorationSlicer.scene import nodes, stored  # noqa: E402
from LatentSpaceRestorationSlicer.scene.record import SceneRecord  # noqa: E402
from LatentSpaceRestorationSlicer.scene.results import peakPosition  # noqa: E402
from panel_case import PanelTestCase, click, wait_for  # noqa: E402
from scene_tools import (  # noqa: E402
    GEOMETRIES,
    RIGID,
    add_transform,
    add_volume,
    ijk,
    node_ids,
    scan,
    segment_ijk,
)


def refuse(*_: Any) -> Any:
    raise AssertionError("a model was loaded")


class TestSavedScene(PanelTestCase):
    def check_page(self, result: stored.StoredResult) -> None:
        """Export the result as a page; it says what the panel says."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=""):
                click(self.ui.exportPageButton)
            self.assertFalse(path.exists())
            with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=str(path)):
                click(self.ui.exportPageButton)
            self.assertEqual(self.ui.statusLabel.text, f"Written: {path}")
            text = path.read_text(encoding="utf-8")
        self.assertIn("<h1><bdi>Head</bdi></h1>", text)
        flagged = np.count_nonzero(result.flagged()) * voxel_ml(np.array(result.record.affine))
        self.assertIn(f"{flagged:.1f} ml are flagged", text)
        self.assertIn("above healthy percentile 92", text)
        self.assertIn("50% of it; &quot;really&quot;", text)
        self.assertIn('class="profile"', text)
        content = re.search(r'id="volumes">(.*?)</script>', text)
        assert content
        volumes = json.loads(content[1])
        chosen = volumes["thresholds"][volumes["chosen"]]
        self.assertEqual(chosen["percentile"], 92.0)
        self.assertAlmostEqual(chosen["ml"], flagged, places=6)
        self.assertLess(
            np.abs(np.array(volumes["peak"]) - peakPosition(result)).max(),
            np.linalg.norm(np.array(result.record.affine)[:3, :3], axis=0).max() + 0.01,
        )

    def test_it_reopens_with_its_result_and_choices(self) -> None:
        self.volume.SetAndObserveTransformNodeID(add_transform(RIGID, "Pose").GetID())
        self.stub.warnings = ('50% of it; "really"',)
        self.parameters.threshold = 85.0
        click(self.ui.detectButton)
        before = self.widget.resultSection.shown
        self.ui.thresholdSlider.value = 92.0
        wait_for(lambda: before.percentile == 92.0)
        self.parameters.layer = "spread"
        self.parameters.spreadOpacity = 0.3
        self.parameters.colours = "Viridis"
        self.parameters.smallest = 0.01
        wait_for(lambda: len(self.widget.resultSection.regions.regions) == 1)
        click(self.ui.exportButton)
        listed = self.widget.resultSection.regions.regions
        words = self.ui.wordsLabel.text
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "result.mrb")
            self.assertTrue(slicer.util.saveScene(path, {}))
            slicer.mrmlScene.Clear()
            self.assertEqual(self.ui.wordsLabel.text, "No result yet.")
            self.assertFalse(self.ui.exportButton.enabled)
            slicer.util.loadScene(path, {})
        self.widget.logic.loadDetector = refuse
        after = self.widget.resultSection.shown
        self.assertEqual(after.record, before.record)
        self.assertEqual(after.inputVolume.GetName(), "Head")
        for part in ("Segmentation", "Restoration", "Spread", "ScoreChart", "RegionTable"):
            self.assertIsNotNone(after.node(part), part)
        self.assertEqual(self.ui.wordsLabel.text, words)
        self.assertEqual(self.ui.warningsLabel.text, '50% of it; "really"')
        self.assertEqual(self.ui.thresholdSlider.value, 92.0)
        self.assertEqual(self.ui.layerSelector.currentText, "spread")
        self.assertEqual(self.ui.spreadOpacitySlider.value, 0.3)
        self.check_page(after)
        self.assertEqual(self.ui.coloursSelector.currentText, "Viridis")
        found = self.widget.resultSection.regions.regions
        self.assertEqual([region.words for region in found], [region.words for region in listed])
        np.testing.assert_allclose(found[0].position_mm, listed[0].position_mm, atol=1e-3)
        # It can be cut elsewhere without a model.
        self.ui.thresholdSlider.value = 60.0
        wait_for(lambda: after.percentile == 60.0)
        inside = segment_ijk(after.segmentation, nodes.SEGMENT_ID, after.inputVolume)
        np.testing.assert_array_equal(inside, ijk(after.anomalyMap) >= 60.0)
        self.assertGreater(inside.sum(), 1)
        # And its plot still moves the slice views.
        self.assertIsNotNone(after.scoreSeries.GetTableNode())

    def test_a_record_of_another_kind_is_no_result(self) -> None:
        click(self.ui.detectButton)
        node = self.widget.resultSection.shown.anomalyMap
        text = node.GetAttribute("LatentSpaceRestoration.Result")
        self.assertNotIn(";", text)
        self.assertNotIn("%", text)
        for other in ("", "{", "[]", "{}", text.replace('"format": 1', '"format": 2')):
            self.assertIsNone(SceneRecord.fromText(other), other[:20])
        node.SetAttribute("LatentSpaceRestoration.Result", "{}")
        self.assertIsNone(stored.latest(self.volume))


class TestRecordsOfBefore(unittest.TestCase):
    """What earlier versions wrote into scenes."""

    def test_a_record_without_sites_is_read_as_it_was(self) -> None:
        text = (
            '{"format": 1, "sampleScore": 3.5, "pValue": 0.25, "healthyScans": 3, "healthyScores": '
            '[1.0, 2.0, 4.0], "healthyPercentiles": [0.0, 100.0], "healthyValues": [0.0, 8.0], '
            '"threshold": 99.0, "affine": [[-1.0, 0.0, 0.0, 5.0], [0.0, -1.0, 0.0, 6.0], '
            '[0.0, 0.0, 1.0, -7.0], [0.0, 0.0, 0.0, 1.0]], "brainLow": [-4.0, -5.0, -6.0], '
            '"brainHigh": [4.0, 5.0, 6.0], "brainML": 1200.0, "model": "brain-t1", "mode": '
            '"default", "method": "lsr", "restorations": 15, "seed": 7, "device": "cpu", '
            '"version": "0.1.0", "warnings": ["a line"], "seconds": 12.5, "made": 1.5}'
        )
        record = SceneRecord.fromText(text)
        assert record is not None
        figures = record.figures
        self.assertEqual(
            (figures.sample_score, figures.p_value, figures.percentile), (3.5, 0.25, 75)
        )
        self.assertEqual((figures.healthy_scans, figures.healthy_sites), (3, 0))
        self.assertEqual((record.threshold, record.value(50.0)), (99.0, 4.0))
        self.assertEqual(
            (figures.seed, figures.warnings, figures.total_seconds), (7, ("a line",), 12.5)
        )
        written = json.loads(record.toText())
        self.assertEqual((written.pop("healthySites"), written.pop("precision")), (0, None))
        self.assertEqual(written, json.loads(text))


class TestTwoScans(PanelTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.parameters.threshold = 95.0
        click(self.ui.detectButton)
        self.first = self.widget.resultSection.shown
        self.other = add_volume(scan((6, 6, 6)), GEOMETRIES["oblique"], "Other")
        self.ui.inputVolumeSelector.setCurrentNode(self.other)

    def cut(self, result: Any) -> np.ndarray:
        return segment_ijk(result.segmentation, nodes.SEGMENT_ID, result.inputVolume)

    def test_each_keeps_its_result_and_threshold(self) -> None:
        self.assertIsNone(self.widget.resultSection.shown)
        self.assertEqual(self.ui.wordsLabel.text, "No result yet.")
        self.parameters.threshold = 60.0
        click(self.ui.detectButton)
        second = self.widget.resultSection.shown
        self.assertIs(second.inputVolume, self.other)
        few, many = self.cut(self.first), self.cut(second)
        self.ui.inputVolumeSelector.setCurrentNode(self.volume)
        self.assertEqual(self.widget.resultSection.shown, self.first)
        self.assertEqual(self.ui.thresholdSlider.value, 95.0)
        self.ui.thresholdSlider.value = 97.0
        wait_for(lambda: self.first.percentile == 97.0)
        self.ui.inputVolumeSelector.setCurrentNode(self.other)
        self.assertEqual(self.ui.thresholdSlider.value, 60.0)
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertEqual(view.GetBackgroundVolumeID(), self.other.GetID())
            self.assertEqual(view.GetForegroundVolumeID(), second.anomalyMap.GetID())
        np.testing.assert_array_equal(self.cut(second), many)
        np.testing.assert_array_equal(self.cut(self.first), few)

    def test_the_last_result_of_a_scan_is_shown(self) -> None:
        self.ui.inputVolumeSelector.setCurrentNode(self.volume)
        click(self.ui.detectButton)
        again = self.widget.resultSection.shown
        self.assertIsNot(again.anomalyMap, self.first.anomalyMap)
        self.assertEqual(self.widget.logic.resultOf(self.volume), again)
        slicer.mrmlScene.RemoveNode(again.segmentation)
        self.assertEqual(self.widget.resultSection.shown, self.first)

    def test_results_into_one_map_leave_no_spreads_behind(self) -> None:
        self.ui.inputVolumeSelector.setCurrentNode(self.volume)
        self.parameters.anomalyMap = self.first.anomalyMap
        spread, before = self.first.spread, node_ids()
        click(self.ui.detectButton)
        self.assertIs(self.widget.resultSection.shown.spread, spread)
        added = [slicer.mrmlScene.GetNodeByID(name) for name in node_ids() - before]
        self.assertFalse([node for node in added if "spread" in (node.GetName() or "")])


if __name__ == "__main__":
    unittest.main()
