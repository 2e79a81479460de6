"""Stand-ins for the qMRML and CTK widgets that the module's ``.ui`` file uses.

Inside this file too, Qt's properties are attributes (see ``pythonqt``). A method that has a
property's name, like ``sizeHint``, can therefore not be overridden here.
"""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6.QtCore import Property, QEvent, QRect, Qt, Signal
from PySide6.QtGui import QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)


def stored(kind: Any, name: str, default: Any, changed: str = "") -> Property:
    """A Qt property that keeps its value, and then calls the method ``changed``."""

    def get(self: QWidget) -> Any:
        return getattr(self, f"_{name}", default)

    def put(self: QWidget, value: Any) -> None:
        setattr(self, f"_{name}", value)
        if changed:
            getattr(self, changed)()

    return Property(kind, get, put)


class qMRMLWidget(QWidget):
    """A widget that knows the scene, and tells its children when that changes."""

    mrmlSceneChanged = Signal(object)
    cpp_signals = ("mrmlSceneChanged(vtkMRMLScene*)",)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(QWidget):
    """A choice among the nodes of the scene that have the wanted classes."""

    currentNodeChanged = Signal(object)
    cpp_signals = ("currentNodeChanged(vtkMRMLNode*)",)

    nodeTypes = stored("QStringList", "types", [], "_refill")
    showHidden = stored(bool, "hidden", False, "_refill")
    showChildNodeTypes = stored(bool, "children", True, "_refill")
    noneEnabled = stored(bool, "none", False, "_refill")
    noneDisplay = stored(str, "none_text", "None", "_refill")
    addEnabled = stored(bool, "add", True)
    removeEnabled = stored(bool, "remove", True)
    editEnabled = stored(bool, "edit", False)
    renameEnabled = stored(bool, "rename", False)
    selectNodeUponCreation = stored(bool, "select_new", True)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observers: list[int] = []
        self._nodes: list[Any] = []
        self._current: Any = None
        self._box = QComboBox(self)
        self._box.sizePolicy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        # As in Slicer there is no focus proxy: without one, keys and Tab do not lead into it.
        self._box.activated.connect(self._picked)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._observers:
            self._scene.RemoveObserver(tag)
        self._scene, self._observers = scene, []
        if scene is not None:
            events = slicer.vtkMRMLScene
            for event in (events.NodeAddedEvent, events.NodeRemovedEvent, events.EndCloseEvent):
                self._observers.append(scene.AddObserver(event, lambda *_: self._refill()))
        self._refill()

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and node not in self._nodes:
            self._refill()
        self._choose(node if node in self._nodes else None)

    def nodeCount(self) -> int:
        return len(self._nodes)

    def _fits(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if self.showChildNodeTypes:
            return any(node.IsA(kind) for kind in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    def _refill(self) -> None:
        if self._scene is None or self._scene.IsClosing():
            self._nodes = []
        else:
            count = self._scene.GetNumberOfNodes()
            every = (self._scene.GetNthNode(i) for i in range(count))
            self._nodes = [node for node in every if self._fits(node)]
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay)
        for node in self._nodes:
            self._box.addItem(node.GetName())
        self._choose(self._current if self._current in self._nodes else None)

    def _choose(self, node: Any) -> None:
        if node is None and not self.noneEnabled and self._nodes:
            node = self._nodes[0]
        offset = 1 if self.noneEnabled else 0
        self._box.currentIndex = self._nodes.index(node) + offset if node else offset - 1
        if node is not self._current:
            self._current = node
            self.currentNodeChanged.emit(node)

    def _picked(self, index: int) -> None:
        index -= 1 if self.noneEnabled else 0
        self._choose(self._nodes[index] if index >= 0 else None)


class ctkCollapsibleButton(QWidget):
    """A titled group that folds away when its title is clicked."""

    contentsCollapsed = Signal(bool)
    text = stored(str, "title", "", "update")
    collapsed = stored(bool, "folded", False, "_fold")
    _TITLE = 26

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setContentsMargins(0, self._TITLE, 0, 0)

    def _fold(self) -> None:
        for child in self.children():
            if isinstance(child, QWidget):
                child.setVisible(not self.collapsed)
        self.maximumHeight = self._TITLE if self.collapsed else 16777215
        self.contentsCollapsed.emit(self.collapsed)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Taken, so that the release comes here, too."""

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.position().y() <= self._TITLE:
            self.collapsed = not self.collapsed

    def childEvent(self, event: Any) -> None:
        if event.type() == QEvent.Type.ChildPolished and isinstance(event.child(), QWidget):
            event.child().setVisible(not self.collapsed)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        title = QRect(0, 0, self.width, self._TITLE - 2)
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect = title
        self.style().drawControl(QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        left = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.drawText(title.adjusted(24, 0, 0, 0), left, self.text)
        arrow = (
            QStyle.PrimitiveElement.PE_IndicatorArrowRight
            if self.collapsed
            else QStyle.PrimitiveElement.PE_IndicatorArrowDown
        )
        option.rect = QRect(6, 5, 14, 14)
        self.style().drawPrimitive(arrow, option, painter, self)


class ctkSliderWidget(QWidget):
    """A slider with a spin box beside it."""

    valueChanged = Signal(float)
    minimum = stored(float, "low", 0.0, "_update_range")
    maximum = stored(float, "high", 100.0, "_update_range")
    singleStep = stored(float, "step", 1.0, "_update_range")
    pageStep = stored(float, "page", 10.0)
    decimals = stored(int, "places", 2, "_update_range")
    suffix = stored(str, "unit", "", "_update_range")

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QSlider(Qt.Orientation.Horizontal, self)
        self._spin = QDoubleSpinBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self._slider.valueChanged.connect(
            lambda tick: self._spin.setValue(self.minimum + tick * self.singleStep)
        )
        self._spin.valueChanged.connect(self._moved)
        self._update_range()

    def _update_range(self) -> None:
        self._spin.decimals = self.decimals
        self._spin.singleStep = self.singleStep
        self._spin.suffix = self.suffix
        self._slider.maximum = max(1, round((self.maximum - self.minimum) / self.singleStep))
        self._spin.setRange(self.minimum, self.maximum)

    def _moved(self, number: float) -> None:
        blocked = self._slider.blockSignals(True)
        self._slider.value = round((number - self.minimum) / self.singleStep)
        self._slider.blockSignals(blocked)
        self.valueChanged.emit(number)

    def _value(self) -> float:
        return float(self._spin.value)

    def _set_value(self, number: float) -> None:
        self._spin.setValue(number)

    value = Property(float, _value, _set_value)


class ctkPathLineEdit(QWidget):
    """A path that is typed, or chosen in a dialog."""

    currentPathChanged = Signal(str)
    #: Of QDir::Filter, what the dialog lets choose.
    Dirs = 1
    filters = stored(int, "filter", 0)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._edit = QLineEdit(self)
        browse = QToolButton(self)
        browse.text = "..."
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit, 1)
        layout.addWidget(browse)
        self.setFocusProxy(self._edit)
        self._edit.textChanged.connect(self.currentPathChanged.emit)
        browse.clicked.connect(self._browse)

    def _browse(self) -> None:
        if self.filters != self.Dirs:
            raise NotImplementedError("the stand-in host chooses folders only")
        folder = QFileDialog.getExistingDirectory(self)
        if folder:
            self._set_path(folder)

    def _path(self) -> str:
        return str(self._edit.text)

    def _set_path(self, path: str) -> None:
        self._edit.text = path

    currentPath = Property(str, _path, _set_path)


class PlotView(QWidget):
    """The plot view's part that the module uses: which points were selected."""

    dataSelected = Signal(object, object)
    cpp_signals = ("dataSelected(vtkStringArray*,vtkCollection*)",)

    def select(self, series: str, rows: list[int]) -> None:
        """What a click on points of a plot series does."""
        names = vtk.vtkStringArray()
        names.InsertNextValue(series)
        ids = vtk.vtkIdTypeArray()
        for row in rows:
            ids.InsertNextValue(row)
        picked = vtk.vtkCollection()
        picked.AddItem(ids)
        self.dataSelected.emit(names, picked)


#: Widgets that a ``.ui`` file may name, beside Qt's own.
QMRML_WIDGETS: dict[str, type[QWidget]] = {
    "qMRMLWidget": qMRMLWidget,
    "qMRMLNodeComboBox": qMRMLNodeComboBox,
}
CTK_WIDGETS: dict[str, type[QWidget]] = {
    "ctkCollapsibleButton": ctkCollapsibleButton,
    "ctkPathLineEdit": ctkPathLineEdit,
    "ctkSliderWidget": ctkSliderWidget,
}

__all__ = ["CTK_WIDGETS", "QMRML_WIDGETS", "PlotView", "QVBoxLayout"]
