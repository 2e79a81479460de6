"""The panel while a detection runs: the map that grows in the slice views, and the time budget."""

from __future__ import annotations

import threading
import time
import unittest
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import in_slicer
import numpy as np

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from LatentSpaceRestorationSlicer.scene import display  # noqa: E402
from panel_case import PanelTestCase, click  # noqa: E402
from scene_tools import (  # noqa: E402
    GEOMETRIES,
    RIGID,
    add_transform,
    add_volume,
    ijk,
    node_ids,
    same_geometry,
    scan,
    slice_image,
    to_world,
)
from stub_detector import EXCESS  # noqa: E402

#: Where the map of ``scan()`` is highest.
HOT = (14, 7, 11)
#: The stub's estimates: after its steps 0, 1, 2 and 3 so many of 15 restorations are in.
MADE = (1, 3, 7, 15)


class GrowingTestCase(PanelTestCase):
    """Slice views that show something before the detection starts."""

    def setUp(self) -> None:
        if not self.shown():
            self.skipTest("there are no slice views without a main window")
        super().setUp()
        self.volume.SetAndObserveTransformNodeID(add_transform(RIGID, "Pose").GetID())
        self.old = add_volume(scan() / 2, GEOMETRIES["oblique"], "Old")
        self.older = add_volume(scan() / 3, GEOMETRIES["oblique"], "Older")
        self.parameters.inputVolume = self.volume
        self.parameters.threshold = 60.0
        slicer.util.setSliceViewerLayers(
            background=self.old, foreground=self.older, foregroundOpacity=0.3
        )
        self.layers = self.shown()
        self.nodes = node_ids()

    @staticmethod
    def shown() -> list[tuple[Any, ...]]:
        """Background, foreground and its opacity, and label layer of each slice view."""
        return [
            (
                view.GetBackgroundVolumeID(),
                view.GetForegroundVolumeID(),
                round(view.GetForegroundOpacity(), 6),
                view.GetLabelVolumeID(),
            )
            for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        ]

    @staticmethod
    def growing() -> Any:
        """The node of the growing map, if the slice views show it."""
        views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        nodes = {slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID() or "") for view in views}
        found = [node for node in nodes if node is not None and node.GetHideFromEditors()]
        return found[0] if found else None

    def hot(self) -> float:
        """The growing map's value where it is highest; 0 if there is none."""
        node = self.growing()
        return 0.0 if node is None else float(ijk(node)[HOT])

    def shows(self, made: int) -> bool:
        """Whether the growing map is that of so many restorations."""
        return bool(np.isclose(self.hot(), 100.0 + EXCESS * (1.0 - made / 15)))

    def assert_as_before(self) -> None:
        self.assertEqual(node_ids(), self.nodes)
        self.assertEqual(self.shown(), self.layers)


class TestGrowingMap(GrowingTestCase):
    def test_the_first_estimate_shows_before_the_end(self) -> None:
        seen: dict[str, Any] = {}

        def look() -> None:
            node = self.growing()
            seen["background"] = {layers[0] for layers in self.shown()}
            seen["opacity"] = {layers[2] for layers in self.shown()}
            seen["geometry"] = same_geometry(self.volume, node)
            seen["map"] = ijk(node)
            shown = node.GetDisplayNode()
            seen["colours"] = shown.GetColorNodeID()
            seen["threshold"] = (shown.GetApplyThreshold(), shown.GetLowerThreshold())
            seen["words"] = self.ui.wordsLabel.text
            seen["score"] = self.ui.scoreLabel.text
            seen["readable"] = self.ui.wordsLabel.enabled and self.ui.scoreLabel.visible
            seen["locked"] = not self.ui.thresholdSlider.enabled
            seen["offered"] = self.ui.inputVolumeSelector.nodeCount()
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
            seen["item"] = hierarchy.GetItemByDataNode(node)
            self.area.grab().save(str(in_slicer.output_folder() / "panel-running.png"))
            seen["image"] = slice_image(to_world(self.volume, HOT), "slice-running.png")

        offered = self.ui.inputVolumeSelector.nodeCount()
        self.on_step(1, look, when=lambda: self.shows(1))
        click(self.ui.detectButton)
        self.assertEqual(seen["background"], {self.volume.GetID()})
        self.assertEqual(seen["opacity"], {0.5})
        self.assertEqual(seen["geometry"], "")
        np.testing.assert_array_equal(seen["map"] > 0, np.abs(scan() - 100.0) * (scan() > 0) > 0)
        self.assertEqual(seen["colours"], "vtkMRMLColorTableNodeFileInferno.txt")
        self.assertEqual(seen["threshold"], (1, 60.0))
        self.assertEqual(
            seen["words"], "So far at percentile 90 of healthy scans, after 1 of 15 restorations."
        )
        self.assertEqual(seen["score"], "Sample score: 119")
        self.assertTrue(seen["readable"])
        self.assertTrue(seen["locked"])
        self.assertEqual(seen["offered"], offered)
        coloured = np.ptp(seen["image"][:, :, :3].astype(int), axis=2) > 30
        self.assertGreater(coloured.sum(), 20)
        self.assertEqual(seen["item"], 0)
        # At the end the result has taken its place.
        result = self.widget.resultSection.shown
        self.assertIsNone(self.growing())
        self.assertEqual(result.anomalyMap.GetName(), "Head anomaly map")
        final = (self.volume.GetID(), result.anomalyMap.GetID(), 0.5, None)
        self.assertEqual(set(self.shown()), {final})
        added = [slicer.mrmlScene.GetNodeByID(name) for name in node_ids() - self.nodes]
        volumes = {node for node in added if node.IsA("vtkMRMLVolumeNode")}
        self.assertEqual(
            volumes, {result.anomalyMap, result.restoration, result.spread, result.signs}
        )
        self.assertTrue(self.ui.thresholdSlider.enabled)
        self.assertIn("19 of 20", self.ui.wordsLabel.text)

    def test_it_sharpens(self) -> None:
        seen: list[tuple[float, str]] = []
        for step, made in enumerate(MADE[:-1]):
            self.on_step(
                step + 1,
                lambda: seen.append((self.hot(), self.ui.wordsLabel.text.split("after ")[1])),
                when=lambda made=made: self.shows(made),
            )
        click(self.ui.detectButton)
        wanted = [
            (100.0 + EXCESS * (1.0 - made / 15), f"{made} of 15 restorations.")
            for made in MADE[:-1]
        ]
        self.assertEqual([words for _, words in seen], [words for _, words in wanted])
        np.testing.assert_allclose([hot for hot, _ in seen], [hot for hot, _ in wanted])
        made = [number for number, _ in self.stub.images_made]
        self.assertEqual(made, [1, 3, 7], "the result makes the images of the last estimate")
        self.assertNotIn(threading.main_thread().name, dict(self.stub.images_made).values())

    def test_the_views_chosen_meanwhile_are_left_alone(self) -> None:
        view = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]

        def choose() -> None:
            view.SetBackgroundVolumeID(self.older.GetID())
            view.SetForegroundVolumeID(self.old.GetID())
            view.SetForegroundOpacity(0.9)

        self.on_step(1, choose, when=lambda: self.shows(1))
        self.on_step(2, lambda: click(self.ui.detectButton), when=lambda: self.shows(3))
        click(self.ui.detectButton)
        chosen = (self.older.GetID(), self.old.GetID(), 0.9, None)
        self.assertEqual(self.shown(), [chosen, *self.layers[1:]])
        self.assertEqual(node_ids(), self.nodes)

    def test_no_trace_of_it_is_saved(self) -> None:
        def saved() -> list[tuple[str, str]]:
            """Tag and name of each volume, and of its display node, in the scene's XML."""
            scene = slicer.mrmlScene
            scene.SetSaveToXMLString(1)
            try:
                scene.Commit()
            finally:
                scene.SetSaveToXMLString(0)
            nodes = ElementTree.fromstring(scene.GetSceneXMLString())
            return [(n.tag, n.get("name", "")) for n in nodes if n.tag.startswith("Volume")]

        before, meanwhile = saved(), []
        self.assertIn(("Volume", "Head"), before)
        self.on_step(1, lambda: meanwhile.append(saved()), when=lambda: self.shows(1))
        click(self.ui.detectButton)
        self.assertEqual(meanwhile, [before])
        names = sorted(name for tag, name in saved() if tag == "Volume")
        own = ["Head anomaly map", "Head restoration", "Head restoration spread", "Head signs"]
        self.assertEqual(names, ["Head", *own, "Old", "Older"])
        self.assertEqual(len(saved()), 2 * len(names))


class TestEndings(GrowingTestCase):
    """However it ends, the growing map is gone, and unless it ends well, all is as it was."""

    def at(self, step: int, action: Any) -> None:
        """Do something at a step, once the growing map shows what is known by then."""
        self.on_step(step, action, when=lambda: self.shows(MADE[step - 1]))

    def test_cancel(self) -> None:
        self.at(2, lambda: click(self.ui.detectButton))
        click(self.ui.detectButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assertEqual(self.ui.wordsLabel.text, "No result yet.")
        self.assertFalse(self.ui.scoreLabel.visible)
        self.assert_as_before()

    def test_cancel_does_not_wait_for_images(self) -> None:
        self.at(1, lambda: None)
        making, ended = threading.Event(), threading.Event()

        def before_images(made: int) -> None:
            if made == 3:
                making.set()
                ended.wait(10.0)

        def cancel() -> None:
            if making.is_set() and not self.widget._run.isCancelled:
                click(self.ui.detectButton)

        self.stub.before_images = before_images
        timer = qt.QTimer()
        timer.connect("timeout()", cancel)
        timer.start(5)
        started = time.monotonic()
        click(self.ui.detectButton)
        timer.stop()
        ended.set()
        self.assertLess(time.monotonic() - started, 5.0)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assert_as_before()

    def test_images_that_cannot_be_made(self) -> None:
        def before_images(made: int) -> None:
            raise MemoryError("no room")

        self.stub.before_images = before_images
        with self.assertRaisesRegex(MemoryError, "no room"):
            self.widget.onDetectButton()
        self.assert_as_before()

    def test_cancel_with_an_earlier_result_in_the_views(self) -> None:
        click(self.ui.detectButton)
        self.nodes, self.layers = node_ids(), self.shown()
        self.at(1, lambda: click(self.ui.detectButton))
        click(self.ui.detectButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assert_as_before()

    def test_failing(self) -> None:
        self.at(3, lambda: None)
        self.stub.fault = RuntimeError("the disk is on fire")
        with self.assertRaisesRegex(RuntimeError, "the disk is on fire"):
            self.widget.onDetectButton()
        self.assertTrue(self.plans[0].done.is_set())
        self.assertEqual(self.ui.wordsLabel.text, "No result yet.")
        self.assert_as_before()

    def test_failing_to_write(self) -> None:
        self.at(3, lambda: None)
        with (
            mock.patch.object(display, "showSegment", side_effect=RuntimeError("no")),
            self.assertRaisesRegex(RuntimeError, "no"),
        ):
            self.widget.onDetectButton()
        self.assert_as_before()

    def test_failing_to_show_it(self) -> None:
        real, failed = display.overlay, threading.Event()
        self.stub.before_step = lambda number: number == 1 and failed.wait(10.0)

        def overlay(*volumes: Any) -> None:
            real(*volumes)
            failed.set()
            raise RuntimeError("no view")

        with (
            mock.patch.object(display, "overlay", overlay),
            self.assertRaisesRegex(RuntimeError, "no view"),
        ):
            self.widget.onDetectButton()
        self.assert_as_before()
        self.assertEqual(self.ui.detectButton.text, "Detect anomalies")

    def test_closing_the_scene(self) -> None:
        self.at(2, slicer.mrmlScene.Clear)
        click(self.ui.detectButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLVolumeNode"), [])
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLVolumeDisplayNode"), [])
        self.assertEqual(set(self.shown()), {(None, None, 0.0, None)})

    def test_removing_the_scan(self) -> None:
        seen: list[Any] = []

        def remove() -> None:
            slicer.mrmlScene.RemoveNode(self.volume)
            seen.append((self.growing(), self.shown()))

        self.at(1, remove)
        self.on_step(
            3,
            lambda: seen.append((self.growing(), self.shown())),
            when=lambda: "after 7 of" in self.ui.wordsLabel.text,
        )
        with self.assertRaisesRegex(RuntimeError, "removed or changed"):
            self.widget.onDetectButton()
        # At once, and it does not come back.
        self.assertEqual(seen, [(None, self.layers)] * 2)
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        self.assertEqual([node.GetName() for node in volumes], ["Old", "Older"])
        self.assertEqual(self.shown(), self.layers)

    def test_removing_what_the_views_showed(self) -> None:
        self.at(1, lambda: slicer.mrmlScene.RemoveNode(self.older))
        self.on_step(2, lambda: click(self.ui.detectButton), when=lambda: self.shows(3))
        click(self.ui.detectButton)
        self.assertEqual(set(self.shown()), {(self.old.GetID(), None, 0.3, None)})

    def test_destroying_the_panel(self) -> None:
        self.at(1, self.widget.cleanup)
        click(self.ui.detectButton)
        self.assert_as_before()


class TestTimeBudget(PanelTestCase):
    def test_none_by_default(self) -> None:
        self.assertEqual(self.ui.timeBudgetSpinBox.text, "none")
        click(self.ui.detectButton)
        self.assertIsNone(self.stub.asked[-1].time_budget)
        self.assertRegex(self.ui.statusLabel.text, r"^Done in \d+\.\d s\.$")

    def test_it_ends_early_and_says_so(self) -> None:
        self.ui.timeBudgetSpinBox.value = 45
        self.assertEqual(self.ui.timeBudgetSpinBox.text, "45 s")
        self.assertEqual(self.parameters.timeBudget, 45.0)
        click(self.ui.detectButton)
        self.assertEqual(self.stub.asked[-1].time_budget, 45.0)
        self.assertRegex(
            self.ui.statusLabel.text,
            r"^Done in \d+\.\d s with 3 of 15 restorations \(time budget\)\.$",
        )
        # It is compared with as many restorations of the healthy scans.
        self.assertEqual(self.widget.resultSection.shown.record.figures.healthy_scores[0], 3.0)

    def test_enough_time(self) -> None:
        self.parameters.timeBudget = 45.0
        self.parameters.restorations = 2
        click(self.ui.detectButton)
        self.assertRegex(self.ui.statusLabel.text, r"^Done in \d+\.\d s\.$")


if __name__ == "__main__":
    unittest.main()
