"""``qt.QUiLoader`` as in Slicer: custom widgets known, connections made, mistakes refused.

Qt's own loader only prints a warning for a property or class that does not exist, and cannot
connect signals that carry MRML objects; here the first is an error and the second is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from PySide6.QtCore import QBuffer, QByteArray, QFile, QIODevice, QObject
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import QWidget

from .widgets import CTK_WIDGETS, QMRML_WIDGETS


class UiLoader(QUiLoader):
    """Loads a ``.ui`` file, strictly."""

    def __init__(self) -> None:
        super().__init__()
        for kind in (*QMRML_WIDGETS.values(), *CTK_WIDGETS.values()):
            self.registerCustomWidget(kind)

    def load(self, file: QFile, parent: QWidget | None = None) -> QWidget:  # type: ignore[override]
        """Build the widgets of an open file.

        Raises:
            ValueError: a class, property, signal or slot in the file does not exist.
        """
        root = ElementTree.fromstring(bytes(file.readAll().data()))
        for declared in custom_widgets(root):
            if declared not in QMRML_WIDGETS and declared not in CTK_WIDGETS:
                raise ValueError(f"no stand-in for the custom widget {declared}")
        connections = root.find("connections")
        wanted = [] if connections is None else list(connections)
        if connections is not None:
            root.remove(connections)
        buffer = QBuffer()
        buffer.setData(QByteArray(ElementTree.tostring(root)))
        buffer.open(QIODevice.OpenModeFlag.ReadOnly)
        top = super().load(buffer, parent)
        if top is None:
            raise ValueError(self.errorString())
        _check_properties(root, top)
        for connection in wanted:
            _connect(top, {field.tag: field.text or "" for field in connection})
        return top


def custom_widgets(root: ElementTree.Element) -> list[str]:
    """The classes that a ``.ui`` document declares as custom widgets."""
    return [entry.findtext("class", "") for entry in root.iter("customwidget")]


def _elements(root: ElementTree.Element) -> Iterator[tuple[str, str, ElementTree.Element]]:
    for element in root.iter("widget"):
        yield element.get("name", ""), element.get("class", ""), element


def _named(top: QWidget, name: str) -> Any:
    found = top if top.objectName == name else top.findChild(QObject, name)
    if found is None:
        raise ValueError(f"the .ui file has no widget {name}")
    return found


def _check_properties(root: ElementTree.Element, top: QWidget) -> None:
    for name, kind, element in _elements(root):
        widget = _named(top, name)
        if type(widget).__name__ != kind:
            raise ValueError(f"{name} is a {type(widget).__name__}, not a {kind}")
        for entry in element.findall("property"):
            if kind == "QLabel" and entry.get("name") == "buddy":  # no property to Qt
                if widget.buddy() is not _named(top, entry.findtext("cstring", "")):
                    raise ValueError(f"{name} did not get its buddy")
                continue
            declared = widget.metaObject().indexOfProperty(entry.get("name", "")) >= 0
            if not declared and entry.get("stdset") != "0":
                raise ValueError(f"{kind} {name} has no property {entry.get('name')}")


def _connect(top: QWidget, fields: dict[str, str]) -> None:
    sender, receiver = _named(top, fields["sender"]), _named(top, fields["receiver"])
    slot = getattr(receiver, fields["slot"].partition("(")[0])
    sender.connect(fields["signal"], slot)
