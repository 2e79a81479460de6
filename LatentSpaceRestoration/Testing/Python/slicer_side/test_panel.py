"""The panel: its real ``.ui`` file, clicked with the mouse."""

from __future__ import annotations

import ast
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import in_slicer
import numpy as np

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from LatentSpaceRestorationSlicer import installation, models, parameters  # noqa: E402
from LatentSpaceRestorationSlicer.installation import Packages  # noqa: E402
from LatentSpaceRestorationSlicer.panel import running  # noqa: E402
from LatentSpaceRestorationSlicer.panel.time_left import TimeLeft  # noqa: E402
from LatentSpaceRestorationSlicer.scene import nodes, results  # noqa: E402
from panel_case import PanelTestCase, click, wait_for  # noqa: E402
from scene_tools import add_volume, ijk, node_ids, scan, segment_ijk  # noqa: E402
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget  # noqa: E402
from stub_detector import NothingMissing  # noqa: E402

from LatentSpaceRestoration import LatentSpaceRestorationWidget  # noqa: E402


class TestDetecting(PanelTestCase):
    def test_click_detects(self) -> None:
        self.assertTrue(self.ui.detectButton.enabled)
        self.stub.warnings = ("The scan is already brain-extracted.",)
        self.parameters.threshold = 85.0
        self.parameters.seed = 7
        click(self.ui.detectButton)
        result = self.widget.resultSection.shown
        self.assertEqual(self.stub.asked[-1].seed, 7)
        self.assertEqual(self.stub.threads, ["LatentSpaceRestoration"], "not on a worker thread")
        np.testing.assert_array_equal(
            segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume),
            ijk(result.anomalyMap) >= 85.0,
        )
        self.assertEqual(
            self.ui.wordsLabel.text,
            "More unusual than 19 of 20 healthy scans. With 20 scans, at most 95% can be claimed.",
        )
        self.assertIn("100", self.ui.scoreLabel.text)
        self.assertTrue(self.ui.warningsLabel.visible)
        self.assertEqual(self.ui.warningsLabel.text, "The scan is already brain-extracted.")
        self.assertEqual(self.ui.detectButton.text, "Detect anomalies")
        self.assertFalse(self.ui.progressBar.visible)
        self.assertTrue(self.ui.inputsSection.enabled)
        self.area.resize(440, 980)
        for _ in range(3):  # wrapped lines get their height one event later
            slicer.app.processEvents()
        picture = in_slicer.output_folder() / "panel.png"
        self.assertTrue(self.area.grab().save(str(picture)))
        self.assertGreater(picture.stat().st_size, 10_000)
        # As high as a laptop's module panel shows, or nearly so, before it must be scrolled; and
        # nothing needs more width than it has.
        result_section = self.ui.resultSection
        self.assertLess(result_section.y + result_section.height, 640)
        self.assertLess(self.panel.minimumSizeHint.width(), 420)

    def test_who_declines_to_install_has_made_no_mistake(self) -> None:
        """And no hourglass stands over the question, or over Cancel afterwards."""
        asked = []

        def ask(_: str) -> bool:
            asked.append(qt.QApplication.overrideCursor())
            return False

        self.widget.logic.packages = Packages(self.requirements("no-such-package"))
        with (
            mock.patch.object(slicer.util, "confirmOkCancelDisplay", ask),
            mock.patch.object(installation, "_refuseInTesting"),
            mock.patch.object(slicer.util, "errorDisplay") as error,
        ):
            click(self.ui.detectButton)
        self.assertEqual(asked, [None])
        error.assert_not_called()
        self.assertIn("nothing was run", self.ui.statusLabel.text)
        self.widget.logic.packages = NothingMissing()
        cursors = []
        self.on_step(2, lambda: cursors.append(qt.QApplication.overrideCursor()))
        click(self.ui.detectButton)
        self.assertEqual(cursors, [None])

    def requirements(self, *lines: str) -> Path:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "requirements.txt"
        path.write_text("\n".join(lines))
        return path

    def test_locked_with_progress_while_it_runs(self) -> None:
        seen: dict[str, Any] = {}

        def look() -> None:
            seen["locked"] = not self.ui.inputsSection.enabled
            seen["button"] = self.ui.detectButton.text
            seen["bar"] = self.ui.progressBar.visible

        self.on_step(2, look)
        shown: list[tuple[float, str]] = []
        show = self.widget._showProgress
        self.widget._showProgress = lambda *news: (shown.append(news), show(*news))
        click(self.ui.detectButton)
        self.assertEqual(seen, {"locked": True, "button": "Cancel", "bar": True})
        self.assertIn((0.5, "Step 2"), shown)

    def test_time_left(self) -> None:
        now = iter((0.0, 1.0, 10.0, 10.0, 400.0, 500.0))
        left = TimeLeft(lambda: next(now))
        self.assertEqual(left.inWords(0.5), "", "too early")
        self.assertEqual(left.inWords(0.01), "", "too little")
        self.assertEqual(left.inWords(0.25), "about 30 s left")
        self.assertEqual(left.inWords(0.5), "about 7 min left")
        self.assertEqual(left.seconds(1.0), 0.0)
        later = iter((0.0, 20.0))
        self.widget._timeLeft = TimeLeft(lambda: next(later))
        self.widget._showProgress(0.5, "Restoring")
        self.assertEqual(self.ui.statusLabel.text, "Restoring, about 20 s left")

    def test_click_again_cancels(self) -> None:
        before = node_ids()
        self.on_step(1, lambda: click(self.ui.detectButton))
        click(self.ui.detectButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assertEqual(node_ids(), before)
        self.assertTrue(self.ui.detectButton.enabled)
        self.assertEqual(self.ui.detectButton.text, "Detect anomalies")
        # And it can run again.
        click(self.ui.detectButton)
        self.assertIsNotNone(self.widget.resultSection.shown)

    def test_cancel_does_not_wait_for_a_long_step(self) -> None:
        before, ends = node_ids(), threading.Event()
        self.stub.before_step = lambda number: number == 1 and ends.wait(20.0)
        timer = qt.QTimer()
        timer.connect("timeout()", lambda: self.widget._run and self.widget._cancel())
        timer.start(50)
        started = time.monotonic()
        click(self.ui.detectButton)
        waited = time.monotonic() - started
        timer.stop()
        # Nobody waits for it, and it gets time to come to its end in.
        self.assertEqual(len(running._ending), 1)
        naps = []
        with mock.patch.object(running.time, "sleep", naps.append):
            wait_for(lambda: naps.count(running._TURN_SECONDS) > 1)
        ends.set()
        wait_for(lambda: not running._ending)
        self.assertLess(waited, 5.0)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assertEqual(node_ids(), before)
        self.stub.before_step = lambda number: None
        click(self.ui.detectButton)
        self.assertIsNotNone(self.widget.resultSection.shown)

    def test_cancel_after_the_last_step_writes_nothing(self) -> None:
        before = node_ids()
        self.stub.steps = 1
        real = self.stub.detect

        def detect(*args: Any, **kwargs: Any) -> Any:
            detection = real(*args, **kwargs)
            self.widget._run.cancel()
            return detection

        self.stub.detect = detect
        click(self.ui.detectButton)
        self.assertEqual(node_ids(), before)

    def test_a_closed_scene_leaves_no_status(self) -> None:
        click(self.ui.detectButton)
        self.assertIn("Done in", self.ui.statusLabel.text)
        slicer.mrmlScene.Clear()
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_models_are_not_read_at_every_change(self) -> None:
        read = Path.read_text
        asked: list[str] = []

        def counted(path: Path, *args: Any, **options: Any) -> str:
            asked.append(path.name)
            return read(path, *args, **options)

        with mock.patch.object(Path, "read_text", counted):
            for number in range(5):
                self.parameters.restorations = 3 + number
        self.assertNotIn("model.json", asked)

    def test_closing_the_scene_cancels(self) -> None:
        self.on_step(1, lambda: slicer.mrmlScene.Clear())
        click(self.ui.detectButton)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [])
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assertFalse(self.ui.detectButton.enabled)
        add_volume(scan(), np.eye(4))

    def test_faults_are_shown_and_leave_nothing(self) -> None:
        before = node_ids()
        self.stub.fault = RuntimeError("the disk is on fire")
        with self.assertRaisesRegex(RuntimeError, "the disk is on fire"):
            self.widget.onDetectButton()
        self.assertEqual(node_ids(), before)
        self.assertEqual(self.ui.statusLabel.text, "It failed; nothing was changed.")
        self.assertEqual(self.ui.detectButton.text, "Detect anomalies")
        self.assertTrue(self.ui.inputsSection.enabled)

    def test_removing_the_volume_meanwhile(self) -> None:
        self.on_step(1, lambda: slicer.mrmlScene.RemoveNode(self.volume))
        with self.assertRaisesRegex(RuntimeError, "removed or changed"):
            self.widget.onDetectButton()
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [])
        self.assertFalse(self.ui.detectButton.enabled)

    def test_leaving_the_panel_while_it_runs(self) -> None:
        self.on_step(1, self.panel.exit)
        click(self.ui.detectButton)
        self.panel.enter()
        self.assertIsNotNone(self.widget.resultSection.shown)
        self.assertTrue(self.ui.detectButton.enabled)

    def test_closing_slicer_while_it_runs(self) -> None:
        """The process must not stay until the end of what nobody waits for."""
        if not hasattr(slicer.app, "send"):
            self.skipTest("the last window is closed by hand in Slicer")
        before = node_ids()
        self.on_step(2, lambda: slicer.app.send("lastWindowClosed()"))
        click(self.ui.detectButton)
        self.assertEqual(node_ids(), before)
        self.assertIn("Cancelled", self.ui.statusLabel.text)

    def test_destroying_the_panel_while_it_runs(self) -> None:
        before = node_ids()
        self.on_step(1, self.widget.cleanup)
        click(self.ui.detectButton)
        self.assertEqual(node_ids(), before)


class TestResultSection(PanelTestCase):
    def test_threshold_applies_at_once(self) -> None:
        self.parameters.threshold = 95.0
        click(self.ui.detectButton)
        result = self.widget.resultSection.shown
        self.ui.thresholdSlider.value = 60.0

        def inside() -> np.ndarray:
            return segment_ijk(result.segmentation, nodes.SEGMENT_ID, self.volume)

        wait_for(lambda: bool(inside().sum() > 1))
        np.testing.assert_array_equal(inside(), ijk(result.anomalyMap) >= 60.0)
        self.assertEqual(result.anomalyMap.GetDisplayNode().GetLowerThreshold(), 60.0)
        self.assertEqual(len(self.stub.asked), 1)
        self.assertEqual(self.parameters.threshold, 60.0)

    def test_threshold_of_a_result_that_was_removed(self) -> None:
        click(self.ui.detectButton)
        slicer.mrmlScene.RemoveNode(self.widget.resultSection.shown.segmentation)
        self.ui.thresholdSlider.value = 60.0
        self.widget.resultSection._settle()

    def test_plot_points_move_the_slice_views(self) -> None:
        if slicer.app.layoutManager() is None:
            self.skipTest("there is no layout without a main window")
        click(self.ui.detectButton)
        result = self.widget.resultSection.shown
        click(self.ui.scoresButton)
        view = slicer.app.layoutManager().plotWidget(0).plotView()
        if not hasattr(view, "select"):
            self.skipTest("points are selected by hand in Slicer")
        view.select("another series", [0])
        view.select(result.scoreSeries.GetID(), [5])
        wanted = result.scoreSeries.GetTableNode().GetTable().GetValue(5, 0).ToDouble()
        axial = [
            node.GetSliceOffset()
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
            if node.GetOrientation() == "Axial"
        ]
        self.assertEqual(axial, [wanted])

    def test_most_unusual_place(self) -> None:
        views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
        if not views:
            self.skipTest("there are no slice views without a main window")
        click(self.ui.detectButton)
        place = results.peakPosition(self.widget.resultSection.shown)
        for node in views:
            node.JumpSliceByOffsetting(0.0, 0.0, 0.0)
        click(self.ui.peakButton)
        for node in views:
            plane = np.array(slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()))
            self.assertAlmostEqual(float(plane[:3, 2] @ (plane[:3, 3] - place)), 0.0)


class TestParameters(PanelTestCase):
    def test_every_choice_is_bound(self) -> None:
        names = {
            widget.property("SlicerParameterName")
            for widget in vars(self.ui).values()
            if widget.property("SlicerParameterName")
        }
        self.assertEqual(names, set(type(self.parameters).allParameters) - {"thresholdFor"})

    def test_widgets_and_parameters_follow_each_other(self) -> None:
        self.ui.restorationsSpinBox.value = 3
        self.assertEqual(self.parameters.restorations, 3)
        self.parameters.mode = "paper"
        self.assertEqual(self.ui.modeSelector.currentText, "paper")
        self.ui.deviceSelector.currentIndex = 1
        self.assertEqual(self.parameters.device, "cpu")
        self.ui.anomalyMapSelector.setCurrentNode(self.volume)
        self.assertIs(self.parameters.anomalyMap, self.volume)

    def test_without_a_volume_there_is_nothing_to_click(self) -> None:
        slicer.mrmlScene.RemoveNode(self.volume)
        wait_for(lambda: not self.ui.detectButton.enabled)
        self.assertEqual(self.ui.detectButton.toolTip, "Choose a volume first.")

    def test_the_first_volume_is_chosen(self) -> None:
        self.assertIs(self.parameters.inputVolume, self.volume)
        self.assertIs(self.ui.inputVolumeSelector.currentNode(), self.volume)

    def test_what_the_list_does_not_show_is_not_chosen(self) -> None:
        """Of nodes that are volumes too, and came before the scan: a label map, a hidden one."""
        self.panel.exit()
        slicer.mrmlScene.Clear()
        add_volume(scan(), np.eye(4), "Hidden").SetHideFromEditors(True)
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
        self.panel.enter()
        self.assertIsNone(self.widget._parameterNode.inputVolume)
        self.assertFalse(self.ui.detectButton.enabled)
        self.panel.exit()
        self.widget.logic.getParameterNode().inputVolume = labels
        head = add_volume(scan(), np.eye(4), "Head")
        self.panel.enter()
        self.assertIs(self.widget._parameterNode.inputVolume, head)
        self.assertTrue(self.ui.detectButton.enabled)

    def test_the_models_own_percentile_is_taken_once(self) -> None:
        own = {"default": 98.5, "paper": 97.0}
        with mock.patch.object(parameters, "thresholdPercentile", lambda model, mode: own[mode]):
            self.parameters.thresholdFor = ""
            self.assertEqual(self.parameters.threshold, 98.5)
            self.parameters.threshold = 80.0
            self.panel.exit()
            self.panel.enter()
            self.assertEqual(self.widget._parameterNode.threshold, 80.0)
            self.widget._parameterNode.mode = "paper"
            self.assertEqual(self.widget._parameterNode.threshold, 97.0)

    def test_choices_come_back_with_a_saved_scene(self) -> None:
        self.parameters.restorations = 4
        self.parameters.mode = "paper"
        click(self.ui.detectButton)
        self.parameters.anomalyMap = self.widget.resultSection.shown.anomalyMap
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "choices.mrb")
            self.assertTrue(slicer.util.saveScene(path, {}))
            slicer.mrmlScene.Clear()
            self.assertEqual(self.widget._parameterNode.restorations, 15)
            slicer.util.loadScene(path, {})
        self.panel.enter()
        self.assertEqual(self.ui.restorationsSpinBox.value, 4)
        self.assertEqual(self.ui.modeSelector.currentText, "paper")
        self.assertEqual(self.ui.anomalyMapSelector.currentNode().GetName(), "Head anomaly map")
        self.assertEqual(ijk(self.ui.inputVolumeSelector.currentNode()).shape, scan().shape)

    def test_a_choice_that_there_is_no_more_is_replaced_and_that_is_said(self) -> None:
        for name, selector, default in (
            ("model", "modelSelector", models.DEFAULT_MODEL),
            ("modality", "modalitySelector", models.ANY_MODALITY),
            ("mode", "modeSelector", "default"),
            ("device", "deviceSelector", "auto"),
            ("layer", "layerSelector", parameters.LAYERS[0]),
            ("colours", "coloursSelector", "Inferno"),
        ):
            with self.subTest(name):
                self.panel.exit()
                self.parameters.parameterNode.SetParameter(name, "of another version")
                self.panel.enter()
                self.assertEqual(getattr(self.widget._parameterNode, name), default)
                self.assertEqual(getattr(self.ui, selector).currentText, default)
                self.assertEqual(
                    self.ui.statusLabel.text,
                    "This scene asks for of another version, which is not known here: "
                    f"{default} is taken.",
                )

    def test_cleanup_lets_go(self) -> None:
        self.widget.cleanup()
        self.assertEqual(self.widget.Observations, [])
        self.assertIsNone(self.widget._parameterNode)
        slicer.mrmlScene.Clear()


class TestModule(unittest.TestCase):
    def test_a_slicer_that_is_too_old_is_told_so_in_a_line(self) -> None:
        """Slicer 5.8 has Python 3.9: the entry file must be readable by it, and say what to do."""
        path = Path(slicer.util.modulePath("LatentSpaceRestoration"))
        source = path.read_text(encoding="utf-8")
        ast.parse(source, feature_version=(3, 9))
        with mock.patch.object(sys, "version_info", (3, 9, 10)):
            old: dict[str, Any] = {"__name__": "old_entry"}
            exec(compile(source, str(path), "exec"), old)
        self.assertNotIn("LatentSpaceRestorationLogic", old)
        panel = qt.QWidget()
        panel.setLayout(qt.QVBoxLayout())
        widget = old["LatentSpaceRestorationWidget"](panel)
        widget.layout = panel.layout()
        with mock.patch.object(ScriptedLoadableModuleWidget, "setup"):
            widget.setup()
        said = [label.text for label in panel.findChildren(qt.QLabel)]
        self.assertEqual(said, ["Latent Space Restoration needs Slicer 5.10 or later."])

    def test_logic_is_found_by_its_module(self) -> None:
        logic = slicer.util.getModuleLogic("LatentSpaceRestoration")
        self.assertEqual(type(logic).__name__, "LatentSpaceRestorationLogic")
        widget = slicer.util.getModuleWidget("LatentSpaceRestoration")
        self.assertIsInstance(widget, LatentSpaceRestorationWidget)

    def test_module_states_its_licence_of_use(self) -> None:
        module = slicer.modules.latentspacerestoration
        self.assertIn("Not for diagnosis", module.helpText)
        self.assertTrue(module.categories)
        self.assertTrue(module.contributors)
        self.assertFalse(module.icon.isNull())


if __name__ == "__main__":
    unittest.main()
