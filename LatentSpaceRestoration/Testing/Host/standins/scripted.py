"""Stand-ins for ``slicer.i18n`` and ``slicer.ScriptedLoadableModule``.

With the environment variable ``LSR_SLICER_PYTHON`` set to a Slicer checkout's ``Base/Python``,
Slicer's own are used, and its own ``parameterNodeWrapper``.
"""

from __future__ import annotations

import importlib
import os
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer
import slicer.util
from PySide6.QtGui import QIcon

from . import parameters

_OWN = ("i18n", "ScriptedLoadableModule", "parameterNodeWrapper")


def slicer_python() -> Path | None:
    """The folder ``slicer`` of the checkout that ``LSR_SLICER_PYTHON`` names, if it is set.

    Raises:
        FileNotFoundError: it is set, but to another folder.
    """
    folder = os.environ.get("LSR_SLICER_PYTHON", "")
    if not folder:
        return None
    package = Path(folder) / "slicer"
    if not (package / "ScriptedLoadableModule.py").is_file():
        raise FileNotFoundError(f"LSR_SLICER_PYTHON={folder} is not Slicer's Base/Python folder")
    return package


def provide() -> None:
    """Make the modules of ``_OWN`` importable from ``slicer``."""
    package = slicer_python()
    if package is not None:
        slicer.__path__.append(str(package))
        for name in _OWN:
            importlib.import_module(f"slicer.{name}")
        return
    _module("i18n", tr=tr, translate=translate)
    _module(
        "ScriptedLoadableModule",
        ScriptedLoadableModule=ScriptedLoadableModule,
        ScriptedLoadableModuleWidget=ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic=ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest=ScriptedLoadableModuleTest,
    )
    _module("parameterNodeWrapper", **{name: getattr(parameters, name) for name in parameters.API})


def _module(name: str, **content: Any) -> None:
    module = ModuleType(f"slicer.{name}", f"Stand-in for slicer.{name}.")
    module.__dict__.update(content)
    sys.modules[module.__name__] = module
    setattr(slicer, name, module)


def tr(text: str) -> str:
    """Untranslated."""
    return text


def translate(_context: str, text: str) -> str:
    """Untranslated."""
    return text


class ScriptedLoadableModule:
    """Stand-in: what a module says of itself."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        icon = Path(parent.path).parent / "Resources" / "Icons" / f"{self.moduleName}.png"
        if icon.is_file():
            parent.icon = QIcon(str(icon))
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)

    def getDefaultModuleDocumentationLink(self, docPage: str = "") -> str:
        return slicer.app.documentationBaseUrl + docPage

    def runTest(self, msec: int = 100, **_: Any) -> None:
        case = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest()


class ScriptedLoadableModuleWidget:
    """Stand-in: the Python side of a panel."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._unload)

    def setup(self) -> None:
        """Slicer adds a developer's section here."""

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def cleanup(self) -> None:
        """For the module to override."""

    def _unload(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._unload)


class ScriptedLoadableModuleLogic:
    """Stand-in: keeps the one parameter node of the module."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Stand-in: a test case that Slicer can run from its developer's section."""

    messageDelay = 0

    def delayDisplay(self, message: str, requestedDelay: int = 0) -> None:
        slicer.util.delayDisplay(message, self.messageDelay)

    def runTest(self) -> None:
        for name in unittest.TestLoader().getTestCaseNames(type(self)):
            self.setUp()
            getattr(self, name)()
            self.tearDown()
