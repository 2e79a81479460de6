"""The panel's form that trains a model on a folder of healthy scans, or adapts one to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from ..installation import DeclinedError
from .training_process import State, TrainingProcess

_POLL_MILLISECONDS = 250
_FIELDS = ("scansPath", "ownNameLineEdit", "populationLineEdit", "ownFolderPath")


def stageInWords(stage: str) -> str:
    """What is being made."""
    return {
        "prepare": _("Preparing the scans"),
        "vqvae": _("1 of 3 networks: learning what slices are made of"),
        "encode": _("Reading altered copies of all slices as codes"),
        "prior": _("2 of 3 networks: learning which code follows which"),
        "masked": _("3 of 3 networks: learning each code from all around it"),
        "calibrate": _("Calibrating with healthy scans"),
    }[stage]


class TrainingSection:
    """Starts a training in another process, shows how far it is, stops it, and lets it go on.

    Args:
        ui: the panel's widgets.
        ensurePackages: installs what is missing, after asking, or raises.
        chosenModel: tells the folder of the model that is chosen in the panel.
        onTrained: called with the folder of a model that was trained or adapted.
    """

    def __init__(
        self,
        ui: Any,
        ensurePackages: Callable[[], None],
        chosenModel: Callable[[], Path],
        onTrained: Callable[[str], None],
    ) -> None:
        self._ui = ui
        self._ensurePackages = ensurePackages
        self._chosenModel = chosenModel
        self._onTrained = onTrained
        self.training: TrainingProcess | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_POLL_MILLISECONDS)
        self._timer.connect("timeout()", self.poll)
        for path in (ui.scansPath, ui.ownFolderPath):
            path.filters = ctk.ctkPathLineEdit.Dirs
            path.connect("currentPathChanged(QString)", self.onFieldChanged)
        ui.ownNameLineEdit.connect("textChanged(QString)", self.onFieldChanged)
        ui.trainButton.connect("clicked(bool)", self.onTrainButton)
        ui.adaptButton.connect("clicked(bool)", self.onAdaptButton)
        ui.guideButton.connect("toggled(bool)", self.onGuideButton)
        ui.trainingSection.connect("contentsCollapsed(bool)", self.onFolded)
        self._show()
        self.onFolded()

    @property
    def isRunning(self) -> bool:
        """Whether a training is under way."""
        return self.training is not None and self.training.state is State.RUNNING

    def close(self) -> None:
        """The panel is about to be destroyed: the training ends, and can go on later."""
        self._timer.stop()
        if self.training is not None:
            self.training.end()

    def onFolded(self, folded: bool = False) -> None:
        """What is hidden stays so in a section that is unfolded, which shows all that is in it."""
        if not folded:
            self._ui.guideBrowser.visible = self._ui.guideButton.checked
            self._ui.trainingBar.visible = self.isRunning

    def onFieldChanged(self, text: str = "") -> None:
        """What is asked for changed."""
        if not self.isRunning:
            self._show()

    def onTrainButton(self, checked: bool = False) -> None:
        """Start, go on, or stop."""
        if self.training is not None and self.isRunning:
            self.training.stop()
            self._ui.trainButton.enabled = False
            self._ui.trainingLabel.text = _("Stopping; what was made is kept...")
            return
        self._start(adapts=False)

    def onAdaptButton(self, checked: bool = False) -> None:
        """Calibrate a copy of the chosen model with the scans."""
        self._start(adapts=True)

    def _start(self, adapts: bool) -> None:
        with slicer.util.tryWithErrorDisplay(_("The training was not started.")):
            try:
                self._ensurePackages()
            except DeclinedError as declined:
                self._show(str(declined))
                return
            training = TrainingProcess(self._own(str(self._chosenModel()) if adapts else ""))
            training.start()
            self.training = training
            self._timer.start()
            self._show(_("Starting..."))

    def onGuideButton(self, shown: bool) -> None:
        """Show how to train, or not."""
        browser = self._ui.guideBrowser
        if shown and not browser.plainText:
            browser.markdown = guide()
        browser.visible = shown

    def poll(self) -> None:
        """See how far the training is."""
        training = self.training
        if training is None:
            return
        state = training.poll()
        if state is State.RUNNING:
            self._showProgress()
            return
        self._timer.stop()
        name = training.own.name
        if state is State.DONE:
            words = (
                _("Model {name} is adapted, and chosen.")
                if training.own.adapts
                else _("Model {name} is trained, and chosen.")
            )
            self._show(words.format(name=name))
            self._onTrained(str(training.own.model))
        elif state is State.FAILED:
            words = (
                _("Adapting failed: {reason}")
                if training.own.adapts
                else _("The training failed: {reason}")
            )
            self._show(words.format(reason=training.error))
        elif training.own.adapts:
            self._show(_("Stopped."))
        else:
            self._show(_("Stopped. It goes on from there when you start it again."))

    def _own(self, adapts: str = "") -> Any:
        from LatentSpaceRestorationLib.training.job import TrainingJob

        ui = self._ui
        return TrainingJob(
            Path(ui.scansPath.currentPath).expanduser(),
            ui.ownNameLineEdit.text.strip(),
            Path(ui.ownFolderPath.currentPath).expanduser(),
            ui.populationLineEdit.text.strip(),
            ui.deviceSelector.currentText or "auto",
            adapts,
        )

    def _show(self, status: str = "") -> None:
        """Show the form as it is while nothing runs, or while a training does."""
        ui, running = self._ui, self.isRunning
        for name in _FIELDS:
            getattr(ui, name).enabled = not running
        ui.trainingBar.visible = running
        ui.trainingBar.value = 0
        filled = bool(
            ui.scansPath.currentPath and ui.ownNameLineEdit.text and ui.ownFolderPath.currentPath
        )
        ui.trainButton.enabled = running or filled
        ui.adaptButton.enabled = filled and not running
        ui.trainingLabel.text = status
        if running and self.training is not None and self.training.own.adapts:
            ui.trainButton.text = _("Stop")
            ui.trainButton.toolTip = _("End it; the model stays as it is.")
        elif running:
            ui.trainButton.text = _("Stop training")
            ui.trainButton.toolTip = _(
                "End the training after its step. What was made is kept, and it can go on later."
            )
        else:
            begun = filled and self._own().is_begun
            ui.trainButton.text = _("Go on training") if begun else _("Start training")
            ui.trainButton.toolTip = (
                _("Train a model on the scans, in another process. Slicer can be used meanwhile.")
                if filled
                else _("Choose the scans, a name and a folder first.")
            )

    def _showProgress(self) -> None:
        training = self.training
        progress = None if training is None else training.progress
        if progress is None or not self._ui.trainButton.enabled:
            return
        self._ui.trainingBar.maximum = max(progress.total, 1)
        self._ui.trainingBar.value = progress.done
        words = stageInWords(progress.stage)
        left = f", {progress.left}" if progress.left else ""
        self._ui.trainingLabel.text = _("{stage}: {done} of {total}{left}").format(
            stage=words, done=progress.done, total=progress.total, left=left
        )


def guide() -> str:
    """How to train, in Markdown."""
    resources = Path(__file__).parents[2] / "Resources"
    return (resources / "Documentation" / "train-your-own.md").read_text(encoding="utf-8")
