"""Stand-ins for the module manager, a module, and the widget that holds a module's panel."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from PySide6.QtCore import Property
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QVBoxLayout, QWidget

from .widgets import qMRMLWidget


class CoreModule:
    """A module of Slicer's own, of which there is only the logic."""

    __slots__ = ("_logic", "name")

    def __init__(self, name: str, logic: Any) -> None:
        self.name = name
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


class ScriptedModule:
    """Stand-in for ``qSlicerScriptedLoadableModule``; ``parent`` of the module's Python class."""

    __slots__ = (
        "_widget",
        "acknowledgementText",
        "associatedNodeTypes",
        "categories",
        "contributors",
        "dependencies",
        "helpText",
        "hidden",
        "icon",
        "name",
        "path",
        "title",
    )

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.name = path.stem
        self.title = ""
        self.helpText = self.acknowledgementText = ""
        self.categories: list[str] = []
        self.contributors: list[str] = []
        self.dependencies: list[str] = []
        self.associatedNodeTypes: list[str] = []
        self.hidden = False
        self.icon = QIcon()
        self._widget: ModuleWidget | None = None

    def logic(self) -> Any:
        # In Slicer this is an empty C++ object for a scripted module.
        return None

    def widgetRepresentation(self) -> ModuleWidget:
        """The panel; made when it is first asked for."""
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self) -> ModuleWidget:
        panel = ModuleWidget()
        python_class = getattr(sys.modules[self.name], f"{self.name}Widget")
        panel.hold(python_class(panel))
        setattr(slicer.modules, f"{self.name}Widget", panel.self())
        return panel


class ModuleWidget(qMRMLWidget):
    """Stand-in for ``qSlicerScriptedLoadableModuleWidget``."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        QVBoxLayout(self)
        self._entered = False
        self._python: Any = None

    isEntered = Property(bool, lambda self: self._entered)

    def hold(self, python_widget: Any) -> None:
        """Take the module's Python widget and set it up."""
        self._python = python_widget
        self.setMRMLScene(slicer.mrmlScene)
        python_widget.setup()

    def self(self) -> Any:
        return self._python

    def enter(self) -> None:
        self._entered = True
        self._python.enter()

    def exit(self) -> None:
        self._entered = False
        self._python.exit()


class ModuleManager:
    """Stand-in for ``qSlicerModuleManager``."""

    def __init__(self, logics: dict[str, Any]) -> None:
        self._modules: dict[str, CoreModule | ScriptedModule] = {
            name: CoreModule(name, logic) for name, logic in logics.items()
        }
        self._unloading: list[Callable[[str], None]] = []

    def publish(self) -> None:
        """Put each module into ``slicer.modules``."""
        for name, module in self._modules.items():
            setattr(slicer.modules, name.lower(), module)

    def module(self, name: str) -> CoreModule | ScriptedModule | None:
        return self._modules.get(name)

    def connect(self, signal: str, slot: Callable[[str], None]) -> bool:
        self._check(signal)
        self._unloading.append(slot)
        return True

    def disconnect(self, signal: str, slot: Callable[[str], None]) -> bool:
        self._check(signal)
        self._unloading.remove(slot)
        return True

    def load(self, folder: str | Path) -> list[str]:
        """Load every scripted module of a folder, as ``--additional-module-paths`` does.

        Raises:
            FileNotFoundError: there is no such folder, or no module in it.
        """
        folder = Path(folder).resolve()
        files = sorted(folder.glob("*.py")) if folder.is_dir() else []
        if not files:
            raise FileNotFoundError(f"no scripted module in {folder}")
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        return [self._load_file(path) for path in files if path.stem not in self._modules]

    def unload(self, name: str) -> None:
        """Send ``moduleAboutToBeUnloaded``, as Slicer does when it ends."""
        for slot in list(self._unloading):
            slot(name)

    def _load_file(self, path: Path) -> str:
        name = path.stem
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        source = importlib.util.module_from_spec(spec)
        sys.modules[name] = source
        spec.loader.exec_module(source)
        module = ScriptedModule(path)
        python_module = getattr(source, name)(module)
        setup = getattr(python_module, "setup", None)
        if setup is not None:
            setup()
        self._modules[name] = module
        setattr(slicer.modules, name.lower(), module)
        setattr(slicer.modules, f"{name}Instance", python_module)
        return name

    @staticmethod
    def _check(signal: str) -> None:
        if signal != "moduleAboutToBeUnloaded(QString)":
            raise ValueError(f"the stand-in module manager has no signal {signal}")
