"""Stand-in for ``slicer.parameterNodeWrapper``: typed parameters kept in a scripted-module node.

It knows the types, annotations and widgets that the module uses; any other is an error. Slicer's
own is used when ``LSR_SLICER_PYTHON`` is set, and the tests must pass with both.
"""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import slicer
import vtk

API = ("Choice", "WithinRange", "parameterNodeWrapper")
_PROPERTY = "SlicerParameterName"


class WithinRange:
    """Both ends are allowed."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


class Choice:
    """One of a sequence."""

    def __init__(self, choices: Sequence[Any]) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value} is not one of {list(self.choices)}")


class Parameter:
    """How one parameter is checked, written to a node and read from it."""

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.name = name
        bare, *notes = typing.get_args(Annotated[hint, None])[:-1]
        self.validators = notes
        options = [bare]
        if isinstance(bare, types.UnionType) or typing.get_origin(bare) is typing.Union:
            options = [kind for kind in typing.get_args(bare) if kind is not type(None)]
        self.node_classes = tuple(k for k in options if issubclass(k, slicer.vtkMRMLNode))
        if not self.node_classes and bare not in (str, int, float, bool):
            raise TypeError(f"the stand-in host has no parameter of type {hint}")
        self.kind = bare
        self.default = default if default is not None or self.node_classes else bare()

    def write(self, node: Any, value: Any) -> None:
        if self.node_classes:
            if value is not None and not isinstance(value, self.node_classes):
                raise TypeError(f"{self.name} cannot be a {type(value).__name__}")
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        allowed = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, allowed):
            raise TypeError(f"{self.name} must be a {self.kind.__name__}, not {value!r}")
        for validator in self.validators:
            validator.validate(value)
        node.SetParameter(self.name, str(value))

    def read(self, node: Any) -> Any:
        if self.node_classes:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return text == "True" if self.kind is bool else self.kind(text)


class _Connector:
    """Ties one widget to one parameter."""

    def __init__(self, widget: Any, parameter: Parameter) -> None:
        self.widget = widget
        self._parameter = parameter
        kind = type(widget).__name__
        choices = next((v.choices for v in parameter.validators if isinstance(v, Choice)), None)
        span = next((v for v in parameter.validators if isinstance(v, WithinRange)), None)
        self._choices = choices
        if kind == "qMRMLNodeComboBox" and parameter.node_classes:
            self.signal = widget.currentNodeChanged
            widget.nodeTypes = [c().GetClassName() for c in parameter.node_classes]
        elif kind == "QComboBox" and choices is not None:
            self.signal = widget.currentIndexChanged
            widget.clear()
            for choice in choices:
                widget.addItem(str(choice))
        elif kind in ("QSpinBox", "QDoubleSpinBox", "ctkSliderWidget") and span is not None:
            self.signal = widget.valueChanged
            widget.minimum, widget.maximum = span.minimum, span.maximum
        elif kind == "QCheckBox" and parameter.kind is bool:
            self.signal = widget.stateChanged
        else:
            raise RuntimeError(f"cannot bind {parameter.name} to a {kind}")

    def read(self) -> Any:
        kind = type(self.widget).__name__
        if kind == "qMRMLNodeComboBox":
            return self.widget.currentNode()
        if kind == "QComboBox" and self._choices is not None:
            return self._choices[self.widget.currentIndex]
        if kind == "QCheckBox":
            return self.widget.checked
        return self._parameter.kind(self.widget.value)

    def write(self, value: Any) -> None:
        kind = type(self.widget).__name__
        if kind == "qMRMLNodeComboBox":
            self.widget.setCurrentNode(value)
        elif kind == "QComboBox" and self._choices is not None:
            if value not in self._choices:
                raise ValueError(f"{value} is not one of {list(self._choices)}")
            self.widget.currentIndex = list(self._choices).index(value)
        elif kind == "QCheckBox":
            self.widget.checked = value
        else:
            self.widget.value = value


class _Wrapper:
    """What a decorated class becomes; its instances wrap one scripted-module node."""

    allParameters: typing.ClassVar[dict[str, Parameter]] = {}

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[list[tuple[Any, Callable[..., None]]], int]] = {}
        self._updating = False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default)

    def connectGui(self, gui: Any) -> int:
        connectors: dict[str, _Connector] = {}
        for widget in vars(gui).values():
            name = widget.property(_PROPERTY)
            if name:
                connectors[name] = _Connector(widget, self.allParameters[name])
        slots = []
        for name, connector in connectors.items():
            connector.write(getattr(self, name))

            def changed(*_: Any, name: str = name, connector: _Connector = connector) -> None:
                if not self._updating:
                    setattr(self, name, connector.read())

            connector.signal.connect(changed)
            slots.append((connector.signal, changed))

        def update(*_: Any) -> None:
            if self._updating:
                return
            self._updating = True
            try:
                for name, connector in connectors.items():
                    connector.write(getattr(self, name))
            finally:
                self._updating = False

        tag = len(self._guis) + 1
        self._guis[tag] = (slots, self.AddObserver(vtk.vtkCommand.ModifiedEvent, update))
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        if tag not in self._guis:
            return
        slots, observer = self._guis.pop(tag)
        for signal, slot in slots:
            with contextlib.suppress(RuntimeError):  # the widget went before
                signal.disconnect(slot)
        self.RemoveObserver(observer)

    def AddObserver(self, event: Any, slot: Any, priority: float = 0.0) -> int:
        return int(self.parameterNode.AddObserver(event, slot, priority))

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return int(self.parameterNode.StartModify())

    def EndModify(self, before: int) -> None:
        self.parameterNode.EndModify(before)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def parameterNodeWrapper(cls: type) -> type:
    """Class decorator: annotated attributes become parameters."""
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {n: Parameter(n, hint, getattr(cls, n, None)) for n, hint in hints.items()}

    def accessor(parameter: Parameter) -> property:
        return property(
            lambda self: parameter.read(self.parameterNode),
            lambda self, value: parameter.write(self.parameterNode, value),
        )

    body: dict[str, Any] = {name: accessor(p) for name, p in parameters.items()}
    body["allParameters"] = parameters
    body["__doc__"] = cls.__doc__
    body["__module__"] = cls.__module__
    return type(cls.__name__, (_Wrapper,), body)
