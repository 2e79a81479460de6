"""Training a model of one's own in the panel: the form, the processes, stopping, going on."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import in_slicer

in_slicer.begin()

import slicer  # noqa: E402
from LatentSpaceRestorationLib.training.engine.progress import STAGES  # noqa: E402
from LatentSpaceRestorationLib.training.engine.work_lock import is_held, work_lock  # noqa: E402
from LatentSpaceRestorationSlicer import models  # noqa: E402
from LatentSpaceRestorationSlicer.panel import training_process  # noqa: E402
from LatentSpaceRestorationSlicer.panel.training_process import State, pythonOfSlicer  # noqa: E402
from LatentSpaceRestorationSlicer.panel.training_section import stageInWords  # noqa: E402
from panel_case import PanelTestCase, click, type_in, wait_for  # noqa: E402
from stub_detector import NothingMissing  # noqa: E402

HAS_TORCH = importlib.util.find_spec("torch") is not None

#: Stands for PythonSlicer: starts the interpreter, and when it is ended it is so alone.
LAUNCHER = """#!{python}
import pathlib, subprocess, sys
here = pathlib.Path(__file__).parent
sys.exit(subprocess.run([sys.executable, here / "interpreter", *sys.argv[1:]]).returncode)
"""
#: Stands for the interpreter that ``lsr`` runs on: does what is in a file beside it, for each
#: command, and ends as ``lsr`` does when it is stopped.
STAND_IN = """
import pathlib, shutil, signal, sys, time
here = pathlib.Path(__file__).parent
def stop(*_):
    print("lsr: error: cancelled", file=sys.stderr, flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
assert sys.argv[1:3] == ["-m", "LatentSpaceRestorationLib"]
print(*sys.argv[3:], file=(here / "asked.txt").open("a"), flush=True)
exec((here / (sys.argv[3] + ".py")).read_text(encoding="utf-8"))
"""
TRAIN = """
from filelock import FileLock
work = pathlib.Path(sys.argv[sys.argv.index("--work") + 1])
work.mkdir(parents=True, exist_ok=True)
held = FileLock(work / ".lock")
held.acquire(timeout=5)
(work / "vqvae.pt").write_text("")
print("step 50/1100 of vqvae  3 min left  l1 0.5", flush=True)
while not (here / "go").exists():
    time.sleep(0.01)
print("step 10/20 of masked  5 s left  loss 0.5", flush=True)
shutil.copytree(here / "tiny", work / "mine", dirs_exist_ok=True)
"""
CALIBRATE = 'print("read p01 (1 of 5)", flush=True)\n'


class TrainingCase(PanelTestCase):
    """A form that is filled in, in a section that is unfolded."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        (self.folder / "scans").mkdir()
        self.widget.logic.trainingPackages = NothingMissing()
        mine = self.folder / "settings" / "Models"
        patcher = mock.patch.object(models, "userModelsFolder", return_value=mine)
        patcher.start()
        self.addCleanup(patcher.stop)
        self.ui.trainingSection.collapsed = False
        self.area.resize(440, 1500)
        for _ in range(3):
            slicer.app.processEvents()

    def fill(self, name: str = "mine") -> None:
        type_in(self.ui.scansPath, str(self.folder / "scans"))
        type_in(self.ui.ownNameLineEdit, name)
        type_in(self.ui.populationLineEdit, "adults of our own")
        type_in(self.ui.ownFolderPath, str(self.folder / "work"))

    def state(self) -> State:
        return self.widget.trainingSection.training.state


@unittest.skipIf(os.name == "nt", "the stand-in is a script with a first line")
class TestForm(TrainingCase):
    def setUp(self) -> None:
        super().setUp()
        python = self.folder / "python"
        python.write_text(LAUNCHER.format(python=sys.executable))
        python.chmod(0o755)
        (self.folder / "interpreter").write_text(STAND_IN)
        self.addCleanup(lambda: self.widget.trainingSection.close())
        self.does("train", TRAIN)
        self.does("calibrate", CALIBRATE)
        patcher = mock.patch.object(training_process, "pythonOfSlicer", return_value=str(python))
        patcher.start()
        self.addCleanup(patcher.stop)

    def does(self, command: str, code: str) -> None:
        (self.folder / f"{command}.py").write_text(code)

    def processes(self) -> list[str]:
        """Command lines of what still runs from the folder."""
        listed = subprocess.run(["ps", "axo", "stat,args"], capture_output=True, text=True)
        lines = listed.stdout.splitlines()
        # One that has ended, and that nobody has asked about, is listed as well.
        return [line for line in lines if str(self.folder) in line and not line.startswith("Z")]

    def asked(self) -> list[str]:
        return (self.folder / "asked.txt").read_text(encoding="utf-8").splitlines()

    @unittest.skipUnless(HAS_TORCH, "torch is not installed")
    def test_from_the_form_to_a_model_in_the_list(self) -> None:
        from tiny_model import write_tiny_model

        write_tiny_model(self.folder, name="mine").rename(self.folder / "tiny")
        self.assertFalse(self.ui.trainButton.enabled)
        self.assertIn("Choose the scans", self.ui.trainButton.toolTip)
        self.fill()
        click(self.ui.trainButton)
        self.assertEqual(self.ui.trainButton.text, "Stop training")
        self.assertFalse(self.ui.scansPath.enabled)
        wait_for(lambda: "3 min left" in self.ui.trainingLabel.text)
        self.assertEqual(
            self.ui.trainingLabel.text,
            "1 of 3 networks: learning what slices are made of: 50 of 1100, 3 min left",
        )
        self.assertTrue(self.ui.trainingBar.visible)
        self.assertEqual((self.ui.trainingBar.value, self.ui.trainingBar.maximum), (50, 1100))
        self.area.grab().save(str(in_slicer.output_folder() / "panel-training.png"))
        # Meanwhile the panel can be used.
        click(self.ui.detectButton)
        self.assertIsNotNone(self.widget.resultSection.shown)
        (self.folder / "go").touch()
        wait_for(lambda: self.state() is State.DONE)
        self.assertEqual(self.ui.trainingLabel.text, "Model mine is trained, and chosen.")
        self.assertEqual(self.ui.modelSelector.currentText, "mine")
        self.assertEqual(self.widget._parameterNode.model, "mine")
        self.assertTrue((models.userModelsFolder() / "mine" / "model.json").is_file())
        work = self.folder / "work"
        self.assertEqual(
            self.asked(),
            [
                f"train prior {work}/mine.toml --work {work}/mine --device auto --no-tensorboard",
                f"calibrate {work}/mine/mine --methods lsr --device auto",
            ],
        )
        self.assertIn(
            'population = "adults of our own"', (work / "mine.toml").read_text(encoding="utf-8")
        )
        self.assertTrue(self.ui.scansPath.enabled)
        # Trained again, it takes its own place.
        click(self.ui.trainButton)
        wait_for(lambda: self.state() is State.DONE)
        self.assertEqual(self.ui.modelSelector.currentText, "mine")

    @unittest.skipUnless(HAS_TORCH, "torch is not installed")
    def test_the_chosen_model_is_adapted_to_the_scans(self) -> None:
        from tiny_model import write_tiny_model

        write_tiny_model(self.folder, name="mine").rename(self.folder / "tiny")
        self.does(
            "calibrate",
            """
print("read p01 (1 of 5)", flush=True)
while not (here / "go").exists():
    time.sleep(0.01)
place = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
shutil.copytree(here / "tiny", place / "mine", dirs_exist_ok=True)
""",
        )
        self.assertFalse(self.ui.adaptButton.enabled)
        self.fill()
        click(self.ui.adaptButton)
        self.assertEqual(self.ui.trainButton.text, "Stop")
        self.assertFalse(self.ui.adaptButton.enabled)
        wait_for(lambda: "1 of 5" in self.ui.trainingLabel.text)
        click(self.ui.trainButton)
        wait_for(lambda: self.state() is State.STOPPED)
        self.assertEqual(self.ui.trainingLabel.text, "Stopped.")
        self.assertEqual(self.ui.trainButton.text, "Start training")
        (self.folder / "go").touch()
        click(self.ui.adaptButton)
        wait_for(lambda: self.state() is State.DONE)
        self.assertEqual(self.ui.trainingLabel.text, "Model mine is adapted, and chosen.")
        self.assertEqual(self.widget._parameterNode.model, "mine")
        base, scans, work = (
            models.folderOf("brain-t1"),
            self.folder / "scans",
            self.folder / "work",
        )
        asked = f"calibrate {base} {scans} --name mine --output {work} --device auto"
        self.assertEqual(self.asked(), [asked, asked])
        # What it was adapted from is what is chosen now.
        type_in(self.ui.ownNameLineEdit, "other")
        self.does("calibrate", 'print("lsr: error: too few", file=sys.stderr); sys.exit(3)')
        click(self.ui.adaptButton)
        wait_for(lambda: self.state() is State.FAILED)
        self.assertEqual(self.ui.trainingLabel.text, "Adapting failed: too few")
        self.assertIn(f"calibrate {models.folderOf('mine')} ", self.asked()[2])

    def test_stopping_and_going_on(self) -> None:
        self.fill()
        self.assertEqual(self.ui.trainButton.text, "Start training")
        click(self.ui.trainButton)
        wait_for(lambda: "3 min left" in self.ui.trainingLabel.text)
        click(self.ui.trainButton)
        self.assertFalse(self.ui.trainButton.enabled)
        wait_for(lambda: self.state() is State.STOPPED)
        wait_for(lambda: self.processes() == [])
        self.assertIn("goes on from there", self.ui.trainingLabel.text)
        self.assertEqual(self.ui.trainButton.text, "Go on training")
        self.assertEqual(len(self.asked()), 1, "it calibrated a model that was not trained")
        click(self.ui.trainButton)
        wait_for(lambda: "3 min left" in self.ui.trainingLabel.text)
        self.assertEqual(self.asked()[1], self.asked()[0])

    def test_closing_the_panel_stops_it(self) -> None:
        self.fill()
        click(self.ui.trainButton)
        wait_for(lambda: "3 min left" in self.ui.trainingLabel.text)
        process = self.widget.trainingSection.training._process
        self.widget.cleanup()
        self.assertIsNotNone(process.returncode)
        wait_for(lambda: self.processes() == [])
        self.assertFalse(is_held(self.folder / "work" / "mine"))
        self.assertIs(self.state(), State.STOPPED)

    def test_what_does_not_end_when_it_is_asked_to_is_ended(self) -> None:
        self.does("train", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TRAIN)
        self.fill()
        click(self.ui.trainButton)
        wait_for(lambda: "3 min left" in self.ui.trainingLabel.text)
        self.widget.trainingSection.training.end(seconds=0.2)
        wait_for(lambda: self.processes() == [])
        self.assertIs(self.state(), State.STOPPED)

    def test_a_launcher_that_ends_alone_is_not_the_end(self) -> None:
        self.fill()
        click(self.ui.trainButton)
        wait_for(lambda: "3 min left" in self.ui.trainingLabel.text)
        os.kill(self.widget.trainingSection.training._process.pid, signal.SIGKILL)
        time.sleep(0.5)
        self.widget.trainingSection.poll()
        self.assertIs(self.state(), State.RUNNING)
        self.assertEqual(self.ui.trainButton.text, "Stop training")
        click(self.ui.trainButton)
        wait_for(lambda: self.state() is State.STOPPED)
        wait_for(lambda: self.processes() == [])

    def test_no_second_training_in_a_folder(self) -> None:
        self.fill()
        work = self.folder / "work" / "mine"
        with work_lock(work), self.assertRaisesRegex(RuntimeError, "works in .* already"):
            self.widget.trainingSection.onTrainButton()
        self.assertFalse(self.widget.trainingSection.isRunning)
        self.assertFalse((self.folder / "asked.txt").exists())

    def test_faults_are_told_in_a_line(self) -> None:
        self.does("train", 'print("lsr: error: no scans; give some", file=sys.stderr); sys.exit(3)')
        self.fill()
        click(self.ui.trainButton)
        wait_for(lambda: self.state() is State.FAILED)
        self.assertEqual(self.ui.trainingLabel.text, "The training failed: no scans; give some")
        self.does("train", "sys.exit(9)")
        click(self.ui.trainButton)
        wait_for(lambda: self.state() is State.FAILED)
        self.assertIn("status 9; see ", self.ui.trainingLabel.text)
        self.assertTrue(self.ui.trainButton.enabled)

    def test_what_cannot_be_is_said_before_anything_starts(self) -> None:
        from LatentSpaceRestorationLib.errors import ConfigError

        self.fill("no name")
        with self.assertRaisesRegex(ConfigError, "cannot be a folder's"):
            self.widget.trainingSection.onTrainButton()
        self.assertFalse(self.widget.trainingSection.isRunning)
        self.assertFalse((self.folder / "work").exists())

    def test_how_to_train_is_shown(self) -> None:
        self.assertFalse(self.ui.guideBrowser.visible)
        click(self.ui.guideButton)
        self.assertTrue(self.ui.guideBrowser.visible)
        self.assertIn("What you need", self.ui.guideBrowser.plainText)
        click(self.ui.guideButton)
        self.assertFalse(self.ui.guideBrowser.visible)


class TestParts(unittest.TestCase):
    def test_every_stage_has_words(self) -> None:
        self.assertEqual(len({stageInWords(stage) for stage in STAGES}), len(STAGES))

    def test_it_is_slicers_python(self) -> None:
        self.assertIn("PythonSlicer", Path(pythonOfSlicer()).name)


if __name__ == "__main__":
    unittest.main()
