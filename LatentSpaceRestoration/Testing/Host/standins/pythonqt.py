"""PythonQt's idioms over PySide6: properties as attributes, ``connect`` by signature, strictness.

In Slicer, ``widget.text`` is the text and ``widget.text = "x"`` sets it; in PySide6 these are
methods. The classes of PySide6 are changed in place, since Slicer compares types exactly.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_get = QtCore.QObject.__getattribute__
_QT_MODULES = (QtCore, QtGui, QtWidgets)
#: What a property of a C++ type takes; PySide6 alone would take anything.
_ACCEPTED = {"int": (int, float), "double": (int, float), "bool": (bool, int), "QString": (str,)}
#: What PySide6 has, and PythonQt does not.
_UNWRAPPED = {QtGui.QColor: ("getRgb", "getRgbF", "getHsv")}
_being_read: set[tuple[int, str]] = set()
_connections: dict[tuple[int, str, Any], tuple[Any, Callable[..., None]]] = {}


class StrictModule(ModuleType):
    """A module made of stand-ins, whose missing names say that they are missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"the stand-in host has no {self.__name__}.{name}")


class NameOnly:
    """A class that Slicer's Python only compares with or annotates: it cannot be made here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(f"the stand-in host has no working {type(self).__name__}")


def name_only(name: str) -> type:
    """A class of that name that cannot be instantiated."""
    return type(name, (NameOnly,), {})


def install() -> tuple[ModuleType, ModuleType]:
    """Change PySide6's classes, and put the modules ``qt`` and ``ctk`` into ``sys.modules``.

    Returns:
        the two modules; widgets are added to them by their own module.
    """
    if "qt" in sys.modules:
        return sys.modules["qt"], sys.modules["ctk"]
    qt, ctk = StrictModule("qt"), StrictModule("ctk")
    for source in _QT_MODULES:
        for name in dir(source):
            if name.startswith("Q"):
                setattr(qt, name, getattr(source, name))
    qt.Qt = QtCore.Qt  # type: ignore[attr-defined]
    # Every class of PySide6 has its own slot for setting, so that each is changed.
    for cls in _subclasses(QtCore.QObject):
        if "__setattr__" in cls.__dict__ and cls.__module__.startswith("PySide6"):
            cls.__setattr__ = _set_attribute
    QtCore.QObject.__getattribute__ = _get_attribute  # type: ignore[method-assign]
    for cls, names in _UNWRAPPED.items():
        for name in names:
            setattr(cls, name, property(_not_wrapped))
    # PythonQt gives the path alone.
    chosen = QtWidgets.QFileDialog.getSaveFileName
    QtWidgets.QFileDialog.getSaveFileName = lambda *given: chosen(*given)[0]  # type: ignore[assignment, method-assign]
    sys.modules["qt"], sys.modules["ctk"] = qt, ctk
    return qt, ctk


def _not_wrapped(obj: Any) -> Any:
    raise AttributeError(f"PythonQt does not wrap this of {type(obj).__name__}")


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*(_subclasses(child) for child in cls.__subclasses__()))


def _has_property(obj: QtCore.QObject, name: str) -> bool:
    return bool(_get(obj, "metaObject")().indexOfProperty(name) >= 0)


def _get_attribute(obj: QtCore.QObject, name: str) -> Any:
    if name.startswith("_"):
        return _get(obj, name)
    if name == "name":
        return _get(obj, "objectName")()
    if name == "connect":
        return lambda signature, slot: _connect(obj, signature, slot)
    if name == "disconnect":
        return lambda signature, slot: _disconnect(obj, signature, slot)
    if name == "className":
        return lambda: _get(obj, "metaObject")().className()
    key = (id(obj), name)
    if key in _being_read or not _has_property(obj, name):
        return _get(obj, name)
    # Reading a property can run a virtual method of its name, like sizeHint, and PySide6 then asks
    # this function whether Python overrides that.
    _being_read.add(key)
    try:
        return _get(obj, "property")(name)
    finally:
        _being_read.discard(key)


def _set_attribute(obj: QtCore.QObject, name: str, value: Any) -> None:
    if name == "name":
        name = "objectName"
    if _has_property(obj, name):
        value = list(value) if isinstance(value, tuple) else value  # PythonQt takes any sequence
        meta = _get(obj, "metaObject")()
        kind = meta.property(meta.indexOfProperty(name)).typeName()
        fits = isinstance(value, _ACCEPTED.get(kind, object))
        if not fits or not _get(obj, "setProperty")(name, value):
            raise TypeError(f"{type(obj).__name__}.{name} is a {kind}, and cannot be {value!r}")
        return
    if isinstance(value, QtCore.SignalInstance):
        # PySide6 keeps a signal in the object itself once it was asked for.
        _get(obj, "__dict__")[name] = value
        return
    if type(obj).__module__.startswith("PySide6"):
        # PythonQt: "creating new attributes on C++ objects is not allowed".
        raise AttributeError(f"{type(obj).__name__} has no property {name!r}")
    descriptor = getattr(type(obj), name, None)
    if hasattr(descriptor, "__set__"):
        descriptor.__set__(obj, value)
    else:
        _get(obj, "__dict__")[name] = value


def _signal(obj: QtCore.QObject, signature: str) -> tuple[Any, int]:
    """The bound signal of a C++ signature, and how many arguments the signature has."""
    normalised = QtCore.QMetaObject.normalizedSignature(signature).data().decode()
    name, _, arguments = normalised.partition("(")
    count = 0 if arguments == ")" else arguments.count(",") + 1
    declared = getattr(type(obj), "cpp_signals", ())
    if normalised in declared:
        return _get(obj, name), count
    if _get(obj, "metaObject")().indexOfSignal(normalised) < 0:
        raise ValueError(f"{type(obj).__name__} has no signal {normalised}")
    return _get(obj, name), count


def _connect(obj: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    signal, count = _signal(obj, signature)

    def call(*arguments: Any) -> None:
        # PythonQt hands over the arguments of the connected overload, or as many as are taken.
        code = getattr(slot, "__code__", None)
        if code is not None and not code.co_flags & inspect.CO_VARARGS:
            arguments = arguments[: code.co_argcount - (1 if hasattr(slot, "__self__") else 0)]
        slot(*arguments)

    # PySide6 chooses the overload by the number of arguments that a slot declares.
    relays: tuple[Callable[..., None], ...] = (
        lambda: call(),
        lambda first: call(first),
        lambda first, second: call(first, second),
    )
    relay = relays[count]
    signal.connect(relay)
    _connections[(id(obj), signature, slot)] = (signal, relay)
    return True


def _disconnect(obj: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    _signal(obj, signature)
    found = _connections.pop((id(obj), signature, slot), None)
    if found is None:
        return False
    found[0].disconnect(found[1])
    return True


__all__ = ["NameOnly", "QtUiTools", "StrictModule", "install", "name_only"]
