"""The stand-in host: its switches, its strictness, and the headless script that runs on it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

import in_slicer

in_slicer.begin()

import slicer  # noqa: E402

if not in_slicer.on_host():
    raise unittest.SkipTest("this is Slicer itself, not the stand-in host")

import ctk  # noqa: E402
import qt  # noqa: E402
from standins.ui_loader import UiLoader, custom_widgets  # noqa: E402
from standins.widgets import CTK_WIDGETS, QMRML_WIDGETS  # noqa: E402

UI_FILE = in_slicer.MODULE_FOLDER / "Resources" / "UI" / "LatentSpaceRestoration.ui"
HEADLESS = Path(__file__).parents[1] / "run_headless.py"


def host(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the host in another process, with further environment variables."""
    return subprocess.run(
        [sys.executable, str(in_slicer.HOST), *arguments],
        capture_output=True,
        text=True,
        env={**in_slicer.host_environment(), **more},
        check=False,
        timeout=240,
    )


class TestLauncher(unittest.TestCase):
    def test_unknown_switches_are_refused(self) -> None:
        for arguments in (
            ["--no-such-switch", "--python-code", "pass"],
            ["--no-main-window"],
            ["--python-script"],
            ["--python-code", "pass", "--python-script", "x.py"],
        ):
            with self.subTest(arguments):
                self.assertEqual(host(*arguments).returncode, 2)

    def test_scripts_get_their_arguments_and_end_the_host_with_their_status(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "script.py"
            script.write_text(
                "import sys, slicer\n"
                "assert slicer.app.layoutManager() is None\n"
                "assert slicer.util.mainWindow() is None\n"
                "assert slicer.app.testingEnabled()\n"
                "slicer.modules.latentspacerestoration\n"
                "what = sys.argv[1]\n"
                "print('ran', what)\n"
                "if what == 'raise':\n    raise ValueError('on purpose')\n"
                "sys.exit(3)\n"
            )
            switches = ["--no-splash", "--no-main-window", "--testing"]
            switches += ["--additional-module-paths", str(in_slicer.MODULE_FOLDER)]
            for what, status in (("exit", 3), ("raise", 1)):
                with self.subTest(what):
                    run = host(*switches, "--python-script", str(script), what)
                    self.assertIn(f"ran {what}", run.stdout)
                    self.assertEqual(run.returncode, status, run.stderr)
        self.assertIn("on purpose", run.stderr)

    def test_a_wrong_slicer_folder_is_said(self) -> None:
        run = host("--python-code", "pass", LSR_SLICER_PYTHON=tempfile.gettempdir())
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("is not Slicer's Base/Python folder", run.stderr)

    @unittest.skipIf(importlib.util.find_spec("torch") is None, "torch is not installed")
    def test_the_headless_command(self) -> None:
        from tiny_model import write_tiny_model

        with tempfile.TemporaryDirectory() as folder:
            model = write_tiny_model(Path(folder))
            scene = Path(folder) / "scene.mrb"
            run = host(
                *("--no-splash", "--no-main-window", "--testing"),
                *("--additional-module-paths", str(in_slicer.MODULE_FOLDER)),
                *("--python-script", str(HEADLESS)),
                *("--model", str(model), "--restorations", "1", "--save", str(scene)),
            )
            self.assertEqual(run.returncode, 0, run.stderr[-3000:])
            said = json.loads(run.stdout.strip().splitlines()[-1])
            self.assertGreater(scene.stat().st_size, 10_000)
        self.assertEqual(said["nodes"][0], "GeneratedBrain anomaly map")
        self.assertGreater(said["sample_score"], 0.0)


class TestStrictness(unittest.TestCase):
    """What PythonQt refuses, the host refuses."""

    def setUp(self) -> None:
        self.button = qt.QPushButton("text")

    def test_properties_are_attributes(self) -> None:
        self.assertEqual(self.button.text, "text")
        self.button.enabled = False
        self.assertFalse(self.button.enabled)
        self.button.objectName = "button"
        self.assertEqual(self.button.name, "button")

    def test_unknown_attributes(self) -> None:
        with self.assertRaises(AttributeError):
            self.button.txet = "misspelt"
        with self.assertRaises(AttributeError):
            _ = self.button.txet
        with self.assertRaises(AttributeError):
            _ = slicer.app.noSuchThing
        with self.assertRaises(AttributeError):
            _ = slicer.modules.nosuchmodule
        with self.assertRaises(AttributeError):
            _ = ctk.ctkNoSuchWidget
        with self.assertRaises(AttributeError):
            slicer.modules.latentspacerestoration.titel = "misspelt"

    def test_properties_keep_their_type(self) -> None:
        with self.assertRaises(TypeError):
            qt.QSpinBox().value = object()

    def test_unknown_signals(self) -> None:
        combo = slicer.qMRMLNodeComboBox()
        for sender, signal in (
            (self.button, "clickd(bool)"),
            (self.button, "clicked(int)"),
            (combo, "currentNodeChanged(int)"),
        ):
            with self.subTest(signal), self.assertRaises(ValueError):
                sender.connect(signal, print)

    def test_slots_get_what_they_take(self) -> None:
        got: list[object] = []
        self.button.connect("clicked(bool)", lambda: got.append("nothing"))
        self.button.connect("clicked(bool)", lambda checked: got.append(checked))
        self.button.connect("clicked()", lambda *everything: got.append(everything))
        self.button.click()
        self.assertEqual(got, ["nothing", False, ()])

    def test_disconnected_slots_are_silent(self) -> None:
        got: list[object] = []
        self.button.connect("clicked(bool)", got.append)
        self.assertTrue(self.button.disconnect("clicked(bool)", got.append))
        self.button.click()
        self.assertEqual(got, [])

    def test_names_without_a_widget_cannot_be_used(self) -> None:
        with self.assertRaises(NotImplementedError):
            ctk.ctkDirectoryButton()


class TestUiFile(unittest.TestCase):
    def load(self, text: str) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "changed.ui"
            path.write_text(text, encoding="utf-8")
            return slicer.util.loadUI(str(path))

    def test_stand_ins_are_those_of_the_ui_file(self) -> None:
        declared = custom_widgets(ElementTree.parse(UI_FILE).getroot())
        self.assertEqual(sorted(declared), sorted({**QMRML_WIDGETS, **CTK_WIDGETS}))

    def test_mistakes_in_a_ui_file(self) -> None:
        text = UI_FILE.read_text(encoding="utf-8")
        self.load(text)
        for old, new in (
            ('name="noneDisplay"', 'name="noneDisplai"'),
            ("mrmlSceneChanged(vtkMRMLScene*)", "mrmlSceneChanges(vtkMRMLScene*)"),
            ("<class>ctkSliderWidget</class>", "<class>ctkRangeWidget</class>"),
            ("<receiver>inputVolumeSelector", "<receiver>inputVolumeSelectr"),
        ):
            with self.subTest(new), self.assertRaises((ValueError, AttributeError)):
                self.assertIn(old, text)
                self.load(text.replace(old, new))

    def test_the_loader_is_the_strict_one(self) -> None:
        self.assertIs(qt.QUiLoader, UiLoader)


if __name__ == "__main__":
    unittest.main()
