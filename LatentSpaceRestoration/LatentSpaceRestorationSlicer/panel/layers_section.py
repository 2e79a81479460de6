"""The panel's controls of what the slice views and the 3D views show of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import qt
from slicer import vtkMRMLSliceCompositeNode
from slicer.i18n import tr as _

from ..parameters import LAYERS, LatentSpaceRestorationParameterNode
from ..scene import changes, display
from ..scene.stored import StoredResult

_FLICKER_MILLISECONDS = 500
#: The parameter that is each layer's opacity; its slider and label are named after it.
_OPACITIES = {
    "anomaly map": "mapOpacity",
    "restoration": "fade",
    "difference": "differenceOpacity",
    "spread": "spreadOpacity",
}


def layerInWords(layer: str) -> str:
    """A layer's name, which in the scene is kept untranslated."""
    return {
        "anomaly map": _("anomaly map"),
        "restoration": _("restoration"),
        "difference": _("difference"),
        "spread": _("spread"),
        "nothing": _("nothing"),
    }[layer]


@dataclass(frozen=True)
class Look:
    """What is laid over a scan, and how; ``opacity`` is that of the layer."""

    layer: str
    opacity: float
    colours: str
    show3D: bool
    outlineReplaced: bool


class LayersSection:
    """Lays the map, the restoration, its difference or its spread over the scan, as asked.

    Views that show nothing of the result are left alone, and so are all views while no parameter
    of the layers changes: what a user chooses in a view stays.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._result: StoredResult | None = None
        self._shown: Look | None = None
        self._onRestoration = False
        self._timer = qt.QTimer()
        self._timer.setInterval(_FLICKER_MILLISECONDS)
        self._timer.connect("timeout()", lambda: self._flick())
        ui.flickerButton.connect("toggled(bool)", self.onFlickerButton)

    def close(self) -> None:
        """The panel is about to be destroyed."""
        self._timer.stop()

    def show(self, result: StoredResult | None) -> None:
        """Take over a result, or none; the views are left as they are."""
        self._ui.flickerButton.checked = False
        self._result = result
        self._shown = None
        self._ui.layersBox.enabled = result is not None

    def nameChoices(self) -> None:
        """Name the layers that can be chosen in the user's language."""
        for row, layer in enumerate(LAYERS):
            self._ui.layerSelector.setItemText(row, layerInWords(layer))

    def apply(self, parameters: LatentSpaceRestorationParameterNode, lay: bool = False) -> None:
        """Show what the parameters say, if they changed.

        Args:
            parameters: of the panel.
            lay: in all slice views, whatever they show now.
        """
        for layer, name in _OPACITIES.items():
            for part in ("Label", "Slider"):
                getattr(self._ui, f"{name}{part}").visible = layer == parameters.layer
        self._ui.coloursSelector.enabled = parameters.layer == "anomaly map"
        result = self._result
        if result is None or not result.isInScene():
            return
        opacity = _OPACITIES.get(parameters.layer)
        wanted = Look(
            parameters.layer,
            0.0 if opacity is None else getattr(parameters, opacity),
            parameters.colours,
            parameters.show3D,
            parameters.outlineReplaced,
        )
        before, self._shown = self._shown, wanted
        if wanted == before:
            return
        # A result that was only taken over looks as it does; its views are not laid again.
        if before is None and not lay:
            return
        display.setColours(result.anomalyMap, wanted.colours)
        if before is None or wanted.show3D != before.show3D:
            self._show3D(result, wanted.show3D)
        if before is None or wanted.outlineReplaced != before.outlineReplaced:
            changes.outline(result, wanted.outlineReplaced)
        self._lay(result, wanted, display.allViews() if lay else self._views(result))

    @staticmethod
    def _views(result: StoredResult) -> tuple[vtkMRMLSliceCompositeNode, ...]:
        return display.viewsOf(
            *(result.inputVolume, result.restoration, result.anomalyMap, result.spread),
            result.node("Difference"),
        )

    def _lay(
        self, result: StoredResult, look: Look, views: Sequence[vtkMRMLSliceCompositeNode]
    ) -> None:
        under, over = result.inputVolume, None
        if look.layer == "anomaly map":
            over = result.anomalyMap
        elif look.layer == "restoration" and not self._timer.active:
            over = result.restoration
        elif look.layer == "difference":
            over = changes.difference(result)
        elif look.layer == "spread":
            over = result.spread
        if self._onRestoration:
            under = result.restoration or under
        display.layOver(views, under, over, look.opacity)

    def _show3D(self, result: StoredResult, shown: bool) -> None:
        # A surface that is not seen would only make moving the threshold slower.
        segmentation = result.segmentation
        if segmentation is None:
            return
        if shown:
            segmentation.CreateClosedSurfaceRepresentation()
        else:
            segmentation.RemoveClosedSurfaceRepresentation()
        segmentation.GetDisplayNode().SetVisibility3D(shown)

    def buildSurface(self) -> None:
        """Make the surface again that a cut took away, if one is wanted."""
        result = self._result
        wanted = self._shown is not None and self._shown.show3D
        segmentation = result.segmentation if wanted and result is not None else None
        if segmentation is not None and result is not None and result.isInScene():
            segmentation.CreateClosedSurfaceRepresentation()

    def onFlickerButton(self, checked: bool) -> None:
        """Alternate between the scan and its restoration, or stop at the scan."""
        if checked:
            self._timer.start()
        else:
            self._timer.stop()
        self._flick(checked)

    def _flick(self, onRestoration: bool | None = None) -> None:
        flicked = not self._onRestoration
        self._onRestoration = flicked if onRestoration is None else onRestoration
        result = self._result
        if result is not None and result.isInScene() and self._shown is not None:
            self._lay(result, self._shown, self._views(result))
