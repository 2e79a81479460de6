"""The panel's list of models, and its check of the computer."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import in_slicer

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from LatentSpaceRestorationLib.errors import BundleError  # noqa: E402
from LatentSpaceRestorationSlicer import computer, models  # noqa: E402
from panel_case import PanelTestCase, click, press  # noqa: E402

HAS_TORCH = importlib.util.find_spec("torch") is not None


@unittest.skipUnless(HAS_TORCH, "torch is not installed")
class TestModels(PanelTestCase):
    def setUp(self) -> None:
        super().setUp()
        from tiny_model import write_tiny_model

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.model = write_tiny_model(Path(folder.name) / "elsewhere")
        mine = Path(folder.name) / "settings" / "Models"
        patcher = mock.patch.object(models, "userModelsFolder", return_value=mine)
        patcher.start()
        self.addCleanup(patcher.stop)
        self.ui.modelsSection.collapsed = False
        for _ in range(3):  # the section gets its height one event later
            slicer.app.processEvents()

    def names(self) -> list[str]:
        return [self.ui.modelsList.item(row).text() for row in range(self.ui.modelsList.count)]

    def test_the_list_shows_cards(self) -> None:
        self.assertEqual(self.names(), [models.DEFAULT_MODEL])
        self.assertIn("Trained on", self.ui.cardBrowser.plainText)
        self.assertRegex(
            self.ui.modelFiguresLabel.text,
            r"^T1, 2 mm, \d+\.\d MB, calibrated with \d+ healthy scans$",
        )
        self.assertFalse(self.ui.removeModelButton.enabled)

    def test_adding_and_removing(self) -> None:
        (self.model / "notes.txt").write_text("not part of the model")
        with mock.patch.object(
            qt.QFileDialog, "getExistingDirectory", return_value=str(self.model)
        ):
            click(self.ui.addModelButton)
        self.assertEqual(self.names(), [models.DEFAULT_MODEL, "tiny"])
        self.assertEqual(self.parameters.model, "tiny")
        self.assertEqual(self.ui.modelSelector.currentText, "tiny")
        self.assertIn("random weights", self.ui.cardBrowser.plainText)
        self.assertIn("added by you", self.ui.modelFiguresLabel.text)
        copied = {path.name for path in (models.userModelsFolder() / "tiny").iterdir()}
        listed = set(json.loads((self.model / "model.json").read_text(encoding="utf-8"))["files"])
        self.assertEqual(copied, listed | {"model.json"})
        # Its source may go; it is found by its name.
        shutil.rmtree(self.model)
        from LatentSpaceRestorationSlicer.task import loadInstalledDetector

        self.assertEqual(loadInstalledDetector("tiny", "cpu").bundle.name, "tiny")
        self.assertEqual(models.thresholdPercentile("tiny", "default"), 99.0)
        press(self.ui.modelsList, "Key_Up")
        self.assertFalse(self.ui.removeModelButton.enabled)
        press(self.ui.modelsList, "Key_Down")
        for answer, left in ((False, ["tiny"]), (True, [])):
            with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=answer):
                click(self.ui.removeModelButton)
            self.assertEqual(self.names(), [models.DEFAULT_MODEL, *left])
        self.assertEqual(self.parameters.model, models.DEFAULT_MODEL)
        self.assertFalse((models.userModelsFolder() / "tiny").exists())

    def test_what_is_refused(self) -> None:
        models.addModel(self.model)
        with self.assertRaisesRegex(ValueError, "There is a model tiny already"):
            models.addModel(self.model)
        with self.assertRaisesRegex(ValueError, "not for finding anomalies"):
            models.addModel(in_slicer.MODULE_FOLDER / "Resources/Models/brain-extraction")
        with self.assertRaises(BundleError):
            models.addModel(self.model.parent)
        with self.assertRaisesRegex(ValueError, "stays"):
            models.removeModel(models.DEFAULT_MODEL)
        with self.assertRaisesRegex(ValueError, "stays"):
            models.removeModel("../Models/tiny")
        models.removeModel("tiny")
        settings = self.model / "model.json"
        whole = settings.read_text(encoding="utf-8")
        for name in ("../out", ".hidden", ""):
            settings.write_text(json.dumps({**json.loads(whole), "name": name}))
            with self.assertRaisesRegex((BundleError, ValueError), "name"):
                models.addModel(self.model)
        settings.write_text(whole)
        weights = self.model / "vqvae.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        with self.assertRaisesRegex(BundleError, "vqvae.safetensors"):
            models.addModel(self.model)
        self.assertEqual(list(models.userModelsFolder().iterdir()), [])

    def test_models_are_offered_by_the_kind_of_scan(self) -> None:
        self.assertFalse(self.ui.modalitySelector.visible, "there is but one kind")
        settings = self.model / "model.json"
        settings.write_text(settings.read_text(encoding="utf-8").replace('"T1"', '"FLAIR"'))
        self.widget.modelSection.add(str(self.model))
        parameters, box = self.widget._parameterNode, self.ui.modalitySelector
        self.assertTrue(box.visible)
        self.assertEqual([box.itemText(row) for row in range(3)], ["any", "FLAIR", "T1"])
        self.assertEqual(parameters.model, "tiny")
        press(box, "Key_End")
        self.assertEqual((parameters.modality, parameters.model), ("T1", models.DEFAULT_MODEL))
        press(self.ui.modelSelector, "Key_Down")
        self.assertEqual(parameters.model, models.DEFAULT_MODEL, "the other is not offered")
        press(box, "Key_Up")
        self.assertEqual((parameters.modality, parameters.model), ("FLAIR", "tiny"))
        models.removeModel("tiny")
        self.panel.exit()
        self.panel.enter()
        self.assertEqual(self.widget._parameterNode.modality, "any")
        self.assertEqual(self.widget._parameterNode.model, models.DEFAULT_MODEL)

    def test_a_damaged_model_is_said(self) -> None:
        models.addModel(self.model)
        weights = models.userModelsFolder() / "tiny" / "prior.safetensors"
        weights.write_bytes(b"")
        self.assertIn("prior.safetensors", models.describe("tiny")[0])


class TestComputer(PanelTestCase):
    def test_expected_seconds(self) -> None:
        self.assertEqual(computer.expected([(1, 4.0), (3, 6.0)], 15), 4.0 + 14 * 1.0)
        self.assertEqual(computer.expected([(0, 2.0), (1, 4.0), (3, 6.0)], 15), 4.0 + 14 * 1.0)
        self.assertEqual(computer.expected([(1, 4.0)], 1), 4.0)

    @unittest.skipUnless(HAS_TORCH, "torch is not installed")
    def test_the_check(self) -> None:
        before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
        click(self.ui.checkButton)
        text = self.ui.computerLabel.text
        for part in ("torch 2", "scipy 1", "Runs on", "brain-t1: T1, 2 mm", "Python 3"):
            self.assertIn(part, text)
        self.assertEqual(self.stub.asked[-1].restorations, computer.MEASURED_RESTORATIONS)
        # The stub's estimates say 0.1 s for each restoration.
        self.assertIn("score after 0.1 s, the map of 15 restorations after 1.5 s", text)
        after = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
        self.assertEqual(after, before)
        self.assertIsNone(self.widget.resultSection.shown)
        self.assertEqual(self.ui.detectButton.text, "Detect anomalies")

    @unittest.skipUnless(HAS_TORCH, "torch is not installed")
    def test_it_can_be_cancelled(self) -> None:
        self.on_step(
            1,
            lambda: click(self.ui.detectButton),
            when=lambda: bool(self.ui.computerLabel.text),
        )
        click(self.ui.checkButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")
        self.assertIn("Runs on", self.ui.computerLabel.text)
        self.assertTrue(self.ui.checkButton.enabled)

    def test_what_is_missing_is_said_with_instructions(self) -> None:
        self.widget.logic.packages.missing = lambda: ["torch"]
        click(self.ui.checkButton)
        self.assertIn("pip download torch", self.ui.computerLabel.text)
        self.assertEqual(self.stub.asked, [])


if __name__ == "__main__":
    unittest.main()
