"""A real training, of tiny networks, from the panel's form to a model that detects. Slow."""

from __future__ import annotations

import json

import in_slicer
import pytest

in_slicer.begin()

from LatentSpaceRestorationSlicer import models  # noqa: E402
from LatentSpaceRestorationSlicer.panel.training_process import State  # noqa: E402
from LatentSpaceRestorationSlicer.task import loadInstalledDetector  # noqa: E402
from panel_case import click, wait_for  # noqa: E402
from test_panel_training import TrainingCase  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class TestForReal(TrainingCase):
    def test_stopped_gone_on_and_used(self) -> None:
        from tiny_training import SETTINGS, write_training

        write_training(self.folder)
        settings = SETTINGS.replace('"tiny"', '"mine"').replace("steps = 12", "steps = 120")
        source = json.dumps(str(self.folder / "scans"))
        work = self.folder / "work"
        work.mkdir()
        (work / "mine.toml").write_text(settings.replace('"scans"', source))
        self.fill()
        click(self.ui.trainButton)
        training = self.widget.trainingSection.training
        wait_for(lambda: training.progress is not None and training.progress.stage == "vqvae", 400)
        click(self.ui.trainButton)
        wait_for(lambda: training.state is State.STOPPED)
        stopped = training.log.read_text(encoding="utf-8")
        self.assertIn("stopped at step ", stopped)
        self.assertEqual(self.ui.trainButton.text, "Go on training")
        click(self.ui.trainButton)
        training = self.widget.trainingSection.training
        wait_for(lambda: training.state is not State.RUNNING, 1200)
        self.assertIs(training.state, State.DONE, training.log.read_text(encoding="utf-8"))
        self.assertIn("resumed at step ", training.log.read_text(encoding="utf-8"))
        self.assertEqual(self.ui.modelSelector.currentText, "mine")
        self.assertEqual(loadInstalledDetector("mine", "cpu").bundle.name, "mine")
        self.assertIn("calibrated with 5 healthy scans", models.describe("mine")[0])
