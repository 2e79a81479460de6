"""Packages that are missing: what is said, and how they are installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import in_slicer
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
from LatentSpaceRestorationSlicer import installation  # noqa: E402
from LatentSpaceRestorationSlicer.installation import (  # noqa: E402
    DeclinedError,
    MissingPackagesError,
    Packages,
    missingPackages,
)
from scene_tools import add_volume, node_ids, scan  # noqa: E402

from LatentSpaceRestoration import LatentSpaceRestorationLogic  # noqa: E402


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

    def answer(self, yes: bool, questions: list[str]) -> None:
        """Answer all questions, and keep them."""
        self.patch(
            slicer.util, "confirmOkCancelDisplay", lambda text: (questions.append(text), yes)[1]
        )

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
            install = extension.PyTorchUtilsLogic().installTorch
            questions: list[str] = []
            for answer in (False, True):
                self.answer(answer, questions)
                with self.assertRaisesRegex(MissingPackagesError, "nothing was run"):
                    self.packages.ensure()
                self.assertEqual(install.called, answer)
        # Asked once, by us, with the size and the place.
        self.assertFalse(install.call_args.kwargs["askConfirmation"])
        self.assertIn("0.2 GB", questions[0])
        self.assertIn(installation.packagesFolder(), questions[0])

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
        self.answer(True, [])
        packaging = mock.Mock()
        # It only pretends to install, so that they are still missing afterwards.
        installed = mock.patch.dict("sys.modules", {"slicer.packaging": packaging})
        with installed, self.assertRaises(MissingPackagesError):
            self.packages.ensure()
        self.assertEqual(packaging.pip_ensure.call_args.args[0], missingPackages(self.path))
        self.assertFalse(packaging.pip_ensure.call_args.kwargs["prompt_install"])

    def test_the_user_is_asked_first(self) -> None:
        self.leave_testing_mode()
        self.patch(installation, "torchIsInstalled", lambda: True)
        self.patch(installation, "hasOwnInstaller", lambda: False)
        install = mock.Mock()
        self.patch(slicer.util, "pip_install", install)
        questions: list[str] = []
        self.answer(False, questions)
        with self.assertRaisesRegex(MissingPackagesError, "nothing was run"):
            self.packages.ensure()
        install.assert_not_called()
        for part in (*missingPackages(self.path), "40 MB", installation.packagesFolder()):
            self.assertIn(part, questions[0])
        self.answer(True, questions)
        with self.assertRaises(MissingPackagesError):
            self.packages.ensure()
        install.assert_called_once_with(missingPackages(self.path))

    def test_a_numpy_that_is_too_new_for_torch_is_replaced(self) -> None:
        """As on Macs with Intel, for which torch 2.2 is the last: it cannot work with numpy 2."""
        self.path.write_text("")
        self.leave_testing_mode()
        self.patch(installation, "torchIsInstalled", lambda: True)
        version = importlib.metadata.version
        self.patch(
            importlib.metadata,
            "version",
            lambda name: "2.2.2" if name == "torch" else version(name),
        )
        self.patch(np, "__version__", "2.0.2")
        self.assertEqual(self.packages.missing(), ["numpy<2"])
        with self.assertRaisesRegex(MissingPackagesError, "numpy<2"):
            self.packages.check()
        install, restart = mock.Mock(), mock.Mock()
        self.patch(slicer.util, "pip_install", install)
        self.patch(slicer.util, "restart", restart)
        questions: list[str] = []
        self.answer(False, questions)
        with self.assertRaisesRegex(DeclinedError, "nothing was run"):
            self.packages.ensure()
        install.assert_not_called()
        self.answer(True, questions)
        with self.assertRaisesRegex(DeclinedError, "Restart Slicer"):
            self.packages.ensure()
        install.assert_called_once_with("numpy<2")
        restart.assert_called_once()
        self.assertIn("numpy 2.0.2", questions[0])
        self.patch(np, "__version__", "1.26.4")
        self.assertEqual(self.packages.missing(), [])

    def test_how_to_install_without_internet(self) -> None:
        text = installation.offlineInstructions()
        self.assertIn(f"--python-version {sys.version_info.major}.{sys.version_info.minor}", text)
        requirements = in_slicer.MODULE_FOLDER / "Resources" / "requirements.txt"
        for line in requirements.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                self.assertIn(line.partition(">")[0], text)


BLOCKED = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import slicer
from LatentSpaceRestorationSlicer.sample_data import loadSample
volume = loadSample()
"""

NO_TORCH = (
    BLOCKED
    + """
panel = slicer.modules.latentspacerestoration.widgetRepresentation()
panel.show()
panel.enter()
widget = panel.self()
label = widget.ui.installLabel
assert label.visible and "torch" in label.text, label.text
assert widget.ui.detectButton.enabled
nodes = slicer.mrmlScene.GetNumberOfNodes()
for attempt in (widget.onDetectButton, lambda: widget.logic.detect(volume)):
    try:
        attempt()
    except RuntimeError as error:
        print("SAYS", error)
    else:
        raise AssertionError("it ran without torch")
assert slicer.mrmlScene.GetNumberOfNodes() == nodes
assert "torch" not in sys.modules
"""
)

WITH_TORCH = """
import sys, time
import slicer
started = time.process_time()
panel = slicer.modules.latentspacerestoration.widgetRepresentation()
print("SECONDS", time.process_time() - started)
panel.show()
panel.enter()
assert "torch" not in sys.modules, "opening the panel imports torch"
"""

ONLY_REQUIRED = (
    BLOCKED
    + """
logic = slicer.util.getModuleLogic("LatentSpaceRestoration")
result = logic.detect(volume, model={model!r}, restorations=1)
print("SCORE", result.sampleScore)
"""
)


@unittest.skipUnless(in_slicer.on_host(), "needs another process of the stand-in host")
class TestPackages(unittest.TestCase):
    """In another process, where packages cannot be imported."""

    def run_code(self, code: str) -> str:
        command = [sys.executable, str(in_slicer.HOST), "--no-splash", "--no-main-window"]
        command += ["--testing", "--additional-module-paths", str(in_slicer.MODULE_FOLDER)]
        run = subprocess.run(
            [*command, "--python-code", code],
            capture_output=True,
            text=True,
            env=in_slicer.host_environment(),
            check=False,
            timeout=200,
        )
        self.assertEqual(run.returncode, 0, run.stderr[-3000:])
        return run.stdout

    def test_opens_without_torch_and_says_what_to_do(self) -> None:
        said = self.run_code(NO_TORCH.format(blocked={"torch"}))
        click_says, console_says = said.split("SAYS ")[1:]
        self.assertIn("Install the extension PyTorch", click_says)
        self.assertIn("torch", console_says)
        self.assertIn("click Detect anomalies", console_says)

    def test_opens_at_once_without_importing_torch(self) -> None:
        said = self.run_code(WITH_TORCH)
        self.assertLess(float(said.split("SECONDS ")[1].split()[0]), 0.5)

    @unittest.skipIf(importlib.util.find_spec("torch") is None, "torch is not installed")
    def test_detects_with_nothing_but_the_requirements(self) -> None:
        from tiny_model import write_tiny_model

        # What Slicer does not have and Resources/requirements.txt does not name.
        blocked = {"nibabel", "skimage", "PIL", "sklearn", "matplotlib", "tqdm", "nilearn"}
        with tempfile.TemporaryDirectory() as folder:
            model = str(write_tiny_model(Path(folder)))
            said = self.run_code(ONLY_REQUIRED.format(blocked=blocked, model=model))
        self.assertIn("SCORE", said)


if __name__ == "__main__":
    unittest.main()
