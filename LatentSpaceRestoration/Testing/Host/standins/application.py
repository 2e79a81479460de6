"""Stand-in for ``slicer.app``, and the start of the host."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
import slicer.util
from PySide6 import QtWidgets

from . import modules, pythonqt, sample_data, scripted
from .files import CoreIOManager
from .mrml import Mrml
from .ui_loader import UiLoader
from .widgets import CTK_WIDGETS, QMRML_WIDGETS, PlotView

#: Names that Slicer's Python compares types with, and that no ``.ui`` file of ours uses.
_CTK_NAMES = (
    "ctkCheckBox",
    "ctkCheckablePushButton",
    "ctkColorPickerButton",
    "ctkComboBox",
    "ctkDirectoryButton",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkMessageBox",
    "ctkRangeWidget",
)
_SLICER_NAMES = (
    "qMRMLRangeWidget",
    "qMRMLScreenShotDialog",
    "qMRMLSliderWidget",
    "qMRMLSpinBox",
    "qSlicerWidget",
)


class LayoutManager:
    """The layout's part that the module uses: the plot view."""

    def __init__(self) -> None:
        self._view = PlotView()

    def plotWidget(self, index: int) -> Any:
        if index != 0:
            raise IndexError(index)
        return SimpleNamespace(plotView=lambda: self._view)

    @property
    def plotViewCount(self) -> int:
        return 1


class Application:
    """What the module and Slicer's Python ask of ``slicer.app``."""

    applicationName = "Slicer stand-in"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest/"

    def __init__(self, temporary: Path, *, main_window: bool, testing: bool) -> None:
        self._qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication(sys.argv[:1])
        self._mrml = Mrml(temporary)
        self._testing = testing
        self._layout = LayoutManager() if main_window else None
        if main_window:
            self._mrml.add_slice_views()
        self._modules = modules.ModuleManager(self._mrml.logics)
        self._files = CoreIOManager(self._mrml.logics.__getitem__)
        self._slots: dict[str, list[Callable[[], Any]]] = {
            "startupCompleted()": [],
            "lastWindowClosed()": [],
        }
        self.temporaryPath = str(temporary)
        self.slicerUserSettingsFilePath = str(temporary / "settings" / "Slicer.ini")

    def connect(self, signal: str, slot: Callable[[], Any]) -> bool:
        if signal not in self._slots:
            raise ValueError(f"the stand-in application has no signal {signal}")
        self._slots[signal].append(slot)
        return True

    def disconnect(self, signal: str, slot: Callable[[], Any]) -> bool:
        was = slot in self._slots[signal]
        if was:
            self._slots[signal].remove(slot)
        return was

    def start_up(self) -> None:
        """Send ``startupCompleted()``."""
        self.send("startupCompleted()")

    def send(self, signal: str) -> None:
        """Call what is connected."""
        for slot in list(self._slots[signal]):
            slot()

    def applicationLogic(self) -> Any:
        return self._mrml.application

    def commandOptions(self) -> Any:
        hidden = self._layout is None
        return SimpleNamespace(noMainWindow=hidden, testingEnabled=self._testing)

    def coreIOManager(self) -> CoreIOManager:
        return self._files

    def layoutManager(self) -> LayoutManager | None:
        return self._layout

    def moduleManager(self) -> modules.ModuleManager:
        return self._modules

    def mrmlScene(self) -> Any:
        return self._mrml.scene

    def pauseRender(self) -> None:
        """Nothing is rendered here."""

    def resumeRender(self) -> None:
        """Nothing is rendered here."""

    def processEvents(self) -> None:
        self._qt.processEvents()

    def restoreOverrideCursor(self) -> None:
        self._qt.restoreOverrideCursor()

    def setOverrideCursor(self, cursor: Any) -> None:
        self._qt.setOverrideCursor(cursor)

    def testingEnabled(self) -> bool:
        return self._testing

    def topLevelWidgets(self) -> list[Any]:
        return list(self._qt.topLevelWidgets())

    def translate(self, _context: str, text: str) -> str:
        return text


def start(*, main_window: bool = False, testing: bool = True) -> Application:
    """Start the host in this process; a second call returns the one that runs.

    Args:
        main_window: with the nodes of three slice views and a plot view, as with Slicer's window.
        testing: Slicer's ``--testing``: dialogs are answered, not shown.
    """
    if hasattr(slicer, "app"):
        return slicer.app
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    qt, ctk = pythonqt.install()
    qt.QUiLoader = UiLoader  # type: ignore[attr-defined]
    for module, widgets, names in (
        (ctk, CTK_WIDGETS, _CTK_NAMES),
        (slicer, QMRML_WIDGETS, _SLICER_NAMES),
    ):
        for name, widget in widgets.items():
            setattr(module, name, widget)
        for name in names:
            setattr(module, name, pythonqt.name_only(name))
    temporary = Path(tempfile.mkdtemp(prefix="slicer-host-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    slicer.modules = pythonqt.StrictModule("slicer.modules")
    sys.modules["slicer.modules"] = slicer.modules
    slicer.selfTests = {}
    slicer.qSlicerScriptedLoadableModule = modules.ScriptedModule
    slicer.qSlicerScriptedLoadableModuleWidget = modules.ModuleWidget
    scripted.provide()
    _provide_python(temporary / "bin")
    slicer.app = Application(temporary, main_window=main_window, testing=testing)
    slicer.app.moduleManager().publish()
    sample_data.provide()
    return slicer.app


def _provide_python(folder: Path) -> None:
    """Put an interpreter named PythonSlicer on the path, as Slicer does."""
    folder.mkdir()
    if os.name == "nt":
        file, text = folder / "PythonSlicer.cmd", f'@"{sys.executable}" %*\n'
    else:
        file, text = folder / "PythonSlicer", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
    file.write_text(text)
    file.chmod(0o755)
    os.environ["PATH"] = os.pathsep.join((str(folder), os.environ.get("PATH", "")))
