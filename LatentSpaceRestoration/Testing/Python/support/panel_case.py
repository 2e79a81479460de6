"""What tests of the panel start from. Import it after ``in_slicer.begin()``."""

from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import qt
import slicer
from scene_tools import GEOMETRIES, add_volume, scan
from stub_detector import NothingMissing, StubDetector


def click(button: Any) -> None:
    """Press and release the left mouse button over a widget."""
    try:
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest
    except ImportError:
        button.click()  # PythonQt has no QTest
        return
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def click_cell(table: Any, row: int, column: int = 0) -> None:
    """Click a cell of a table with the left mouse button."""
    try:
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest
    except ImportError:
        table.setCurrentCell(row, column)
        return
    place = table.visualItemRect(table.item(row, column)).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)


def press(widget: Any, key: str) -> None:
    """Press a key, such as ``Key_Down``, in a widget."""
    try:
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest
    except ImportError as error:
        raise unittest.SkipTest("keys are pressed by hand in Slicer") from error
    QTest.keyClick(widget.focusProxy() or widget, getattr(Qt.Key, key))


def type_in(field: Any, text: str) -> None:
    """Type a text into a field in place of what is in it."""
    try:
        from PySide6.QtTest import QTest
    except ImportError as error:
        raise unittest.SkipTest("texts are typed by hand in Slicer") from error
    target = field.focusProxy() or field
    target.setFocus()
    target.selectAll()
    QTest.keyClicks(target, text)
    press(target, "Key_Return")


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Handle events until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        slicer.app.processEvents()
        time.sleep(0.005)


@dataclass
class Plan:
    """What to do on the main thread while a detection is at a step."""

    number: int
    action: Callable[[], None]
    when: Callable[[], bool]
    reached: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


class PanelTestCase(unittest.TestCase):
    """A shown panel, a clean scene with one volume, and a detector that is no model."""

    def setUp(self) -> None:
        self.plans: list[Plan] = []
        slicer.mrmlScene.Clear()
        self.panel = slicer.modules.latentspacerestoration.createNewWidgetRepresentation()
        self.widget = self.panel.self()
        self.stub = StubDetector()
        self.stub.before_step = self._before_step
        self.widget.logic.loadDetector = self.stub.load
        self.widget.logic.packages = NothingMissing()
        self.ui = self.widget.ui
        # As in Slicer's module panel, which scrolls when it is too low.
        self.area = qt.QScrollArea()
        self.area.widgetResizable = True
        self.area.setWidget(self.panel)
        self.area.resize(440, 700)
        self.area.show()
        self.volume = add_volume(scan(), GEOMETRIES["LPS"], "Head")
        self.panel.enter()
        self.parameters = self.widget._parameterNode
        self.timer = qt.QTimer()
        self.timer.connect("timeout()", self._carry_out)
        self.timer.start(5)
        slicer.app.processEvents()

    def tearDown(self) -> None:
        self.timer.stop()
        self.panel.exit()
        self.widget.cleanup()
        # The next test makes its own panel; this one is to follow the scene no longer.
        for widget in vars(self.ui).values():
            if hasattr(widget, "setMRMLScene"):
                widget.setMRMLScene(None)
        self.area.close()
        self.area.deleteLater()

    def on_step(
        self, number: int, action: Callable[[], None], when: Callable[[], bool] = lambda: True
    ) -> None:
        """Do something on the main thread while the detection is at a step; it waits for that.

        Args:
            number: of the step; several steps may have an action.
            action: what to do, once.
            when: what to wait for with it.
        """
        self.plans.append(Plan(number, action, when))

    def _before_step(self, number: int) -> None:
        for plan in self.plans:
            if plan.number == number and not plan.done.is_set():
                plan.reached.set()
                plan.done.wait(10.0)

    def _carry_out(self) -> None:
        for plan in self.plans:
            if plan.reached.is_set() and not plan.done.is_set() and plan.when():
                try:
                    plan.action()
                finally:
                    plan.done.set()
