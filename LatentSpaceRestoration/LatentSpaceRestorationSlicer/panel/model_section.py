"""The panel's list of models, with their cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .. import models
from ..parameters import LatentSpaceRestorationParameterNode


class ModelSection:
    """Lists the models, shows the card of one, adds and removes.

    Files are read when the section is unfolded, not when the panel is made.

    Args:
        ui: the panel's widgets.
        onChanged: called with the model to choose when one was added, and with the default one
            when one was removed.
    """

    def __init__(self, ui: Any, onChanged: Callable[[str], None]) -> None:
        self._ui = ui
        self._onChanged = onChanged
        self._filtered: tuple[str, str] | None = None
        ui.modelsSection.connect("contentsCollapsed(bool)", self.onFolded)
        ui.modelsList.connect("currentTextChanged(QString)", self.onModelChosen)
        ui.addModelButton.connect("clicked(bool)", self.onAddButton)
        ui.removeModelButton.connect("clicked(bool)", self.onRemoveButton)

    def onFolded(self, folded: bool) -> None:
        """Read the models when the section is unfolded."""
        if not folded:
            self._fill(self._ui.modelSelector.currentText)

    def _fill(self, chosen: str) -> None:
        names = list(models.ModelNames())
        modelsList = self._ui.modelsList
        blocked = modelsList.blockSignals(True)
        modelsList.clear()
        for name in names:
            modelsList.addItem(name)
        modelsList.currentRow = names.index(chosen) if chosen in names else 0
        modelsList.blockSignals(blocked)
        self.onModelChosen(names[modelsList.currentRow])

    def onModelChosen(self, name: str) -> None:
        """Show the card of a model of the list."""
        if not name:
            return
        figures, card = models.describe(name)
        self._ui.modelFiguresLabel.text = figures
        self._ui.cardBrowser.markdown = card
        self._ui.removeModelButton.enabled = models.isAdded(name)

    def onAddButton(self, checked: bool = False) -> None:
        """Ask for a folder and add the model in it."""
        folder = qt.QFileDialog.getExistingDirectory(
            self._ui.modelsSection, _("Folder of a model, with its model.json")
        )
        if folder:
            self.add(folder)

    def add(self, folder: str) -> None:
        """Add the model in a folder, and choose it."""
        with slicer.util.tryWithErrorDisplay(_("The model was not added."), waitCursor=True):
            name = models.addModel(folder)
            self._onChanged(name)
            self._fill(name)

    def addTrained(self, folder: str) -> None:
        """Add a model that was trained in the panel, in place of an earlier one of its name."""
        with slicer.util.tryWithErrorDisplay(_("The model was not added."), waitCursor=True):
            name = models.addModel(folder, replace=True)
            self._onChanged(name)
            self._fill(name)

    def filter(self, parameters: LatentSpaceRestorationParameterNode, anew: bool = False) -> None:
        """Offer the models of the chosen kind of scan, and choose one of them.

        Args:
            parameters: of the panel.
            anew: the list of models was made anew; otherwise files are read only if the kind or
                the model changed.
        """
        wanted = (parameters.modality, parameters.model)
        if wanted == self._filtered and not anew:
            return
        self._filtered = wanted
        kinds = models.modalities()
        modality = parameters.modality
        for part in (self._ui.modalityLabel, self._ui.modalitySelector):
            part.visible = len(set(kinds.values()) - {""}) > 1
        offered = [name for name, kind in kinds.items() if modality in (models.ANY_MODALITY, kind)]
        box = self._ui.modelSelector
        for row in range(box.count):
            isOffered = box.itemText(row) in offered
            box.view().setRowHidden(row, not isOffered)
            box.model().item(row).setEnabled(isOffered)  # the arrow keys pass it by
        if offered and parameters.model not in offered:
            parameters.model = offered[0]

    def onRemoveButton(self, checked: bool = False) -> None:
        """Delete the model that is chosen in the list, after asking."""
        item = self._ui.modelsList.currentItem()
        if item is None or not models.isAdded(item.text()):
            return
        name = item.text()
        question = _("Delete the model {name} from {folder}?").format(
            name=name, folder=models.userModelsFolder()
        )
        if not slicer.util.confirmOkCancelDisplay(question):
            return
        with slicer.util.tryWithErrorDisplay(_("The model was not removed.")):
            models.removeModel(name)
            self._onChanged(models.DEFAULT_MODEL)
            self._fill(models.DEFAULT_MODEL)
