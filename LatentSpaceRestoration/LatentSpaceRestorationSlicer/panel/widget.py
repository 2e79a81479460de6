"""The panel: what its buttons do, and what is shown when."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from .. import computer
from ..installation import DeclinedError, offlineInstructions
from ..logic import LatentSpaceRestorationLogic
from ..models import ANY_MODALITY, folderOf
from ..parameters import (
    LAYERS,
    THRESHOLDS,
    LatentSpaceRestorationParameterNode,
    firstScan,
    isScan,
    mendChoices,
    optionsOf,
    takeModelsThreshold,
)
from ..scene import score_plot, stored
from ..task import Outputs
from .model_section import ModelSection
from .preview import GrowingMap, Growth, computeTelling
from .result_section import ResultSection
from .running import WorkerRun
from .time_left import TimeLeft
from .training_section import TrainingSection

#: Widgets that consist of others, which alone take the keys that are typed.
_COMPOSITE = ("qMRMLNodeComboBox", "ctkSliderWidget")


def leadFocusInside(widget: Any) -> None:
    """Let the key of a label, and Tab, lead to the first part of a widget that takes keys."""
    parts = list(widget.children())
    while parts:
        part = parts.pop(0)
        if not part.isWidgetType():
            continue
        if part.focusPolicy != qt.Qt.NoFocus:
            widget.setFocusProxy(part)
            return
        parts = [*part.children(), *parts]


class LatentSpaceRestorationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: LatentSpaceRestorationLogic
        self._parameterNode: LatentSpaceRestorationParameterNode | None = None
        self._guiTag: int | None = None
        self._run: WorkerRun | None = None
        self._isGone = False
        self._shownFor: vtkMRMLScalarVolumeNode | None = None
        self._timeLeft = TimeLeft()

    def setup(self) -> None:
        """Build the panel. Needs neither torch nor a main window."""
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/LatentSpaceRestoration.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        for part in vars(self.ui).values():
            if part.className() in _COMPOSITE:
                leadFocusInside(part)
        self.logic = LatentSpaceRestorationLogic()
        self.resultSection = ResultSection(self.ui, partial(stored.cutAt, surface=False))

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        self.addObserver(scene, scene.EndUndoEvent, self.onUndone)
        self.addObserver(scene, scene.EndRedoEvent, self.onUndone)
        self.modelSection = ModelSection(self.ui, self.onModelsChanged)
        self.trainingSection = TrainingSection(
            self.ui,
            lambda: self.logic.trainingPackages.ensure(),
            self._modelFolder,
            self.modelSection.addTrained,
        )
        warning = panel.style().standardIcon(qt.QStyle.SP_MessageBoxWarning).pixmap(16, 16)
        for icon in (self.ui.installIcon, self.ui.warningsIcon):
            icon.setPixmap(warning)
        self.ui.detectButton.connect("clicked(bool)", self.onDetectButton)
        self.ui.checkButton.connect("clicked(bool)", self.onCheckButton)
        # Slicer waits for what runs before it tells the panel that it quits.
        slicer.app.connect("lastWindowClosed()", self._cancel)
        self._showRunning(False)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """The panel is about to be destroyed."""
        slicer.app.disconnect("lastWindowClosed()", self._cancel)
        self._cancel()
        self._isGone = True
        self.resultSection.close()
        self.trainingSection.close()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """The panel is shown."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Another module's panel is shown."""
        self.ui.flickerButton.checked = False
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        self._cancel()
        self.resultSection.show(None)
        self._shownFor = None
        self.setParameterNode(None)
        if self._run is None:
            self.ui.statusLabel.text = ""

    def onSceneEndClose(self, caller: Any = None, event: Any = None) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any = None, event: Any = None) -> None:
        """A saved scene was read: its choices and its result are shown."""
        if self.parent.isEntered and self._run is None:
            self.initializeParameterNode()

    def onNodeRemoved(self, caller: Any = None, event: Any = None) -> None:
        shown = self.resultSection.shown
        if shown is not None and not slicer.mrmlScene.IsClosing() and not shown.isInScene():
            self._showResult()

    def onUndone(self, caller: Any = None, event: Any = None) -> None:
        """Something was undone, or done again: the result is read anew from its nodes."""
        if self._run is None:
            self.resultSection.show(None)
            self._showResult()

    def initializeParameterNode(self) -> None:
        """Take the scene's parameter node, and choose the first volume if none is chosen."""
        missing = self.logic.packages.missing()
        for part in (self.ui.installIcon, self.ui.installLabel):
            part.visible = bool(missing)
        self.ui.installLabel.text = _(
            "Not installed yet: {packages}. Click Detect anomalies, and you will be asked whether"
            " to install."
        ).format(packages=", ".join(missing))
        parameterNode = self.logic.getParameterNode()
        mended = mendChoices(parameterNode)
        if mended:
            self.ui.statusLabel.text = "\n".join(mended)
        if not parameterNode.inputVolume or not isScan(parameterNode.inputVolume):
            parameterNode.inputVolume = firstScan()
        self._shownFor = parameterNode.inputVolume
        self.setParameterNode(parameterNode)
        self._showResult()

    def _showResult(self, lay: bool = False) -> None:
        """Show the last result of the chosen scan, cut where it was cut, or that there is none.

        Args:
            lay: in the slice views, too.
        """
        parameters = self._parameterNode
        if parameters is None or self._run is not None:
            return
        self._shownFor = parameters.inputVolume
        result = stored.latest(self._shownFor)
        if result is not None and result == self.resultSection.shown:
            return
        self.resultSection.show(result)
        if result is not None:
            # Otherwise the slider, which is where the other scan was cut, would cut this one.
            parameters.threshold = min(max(result.percentile, THRESHOLDS[0]), THRESHOLDS[1])
            self.resultSection.takeThreshold()
            self.resultSection.layers.apply(parameters, lay)

    def onModelsChanged(self, model: str) -> None:
        """A model was added or removed: offer those that there are now, and choose one."""
        parameters = self._parameterNode
        if parameters is not None:
            self.setParameterNode(None)  # lets go of the choices that there were
            parameters.model = model
            parameters.modality = ANY_MODALITY
            self.setParameterNode(parameters)

    def _modelFolder(self) -> Path:
        assert self._parameterNode is not None  # while the panel is shown
        return folderOf(self._parameterNode.model)

    def setParameterNode(self, parameterNode: LatentSpaceRestorationParameterNode | None) -> None:
        """Bind the widgets to a parameter node, or to none."""
        modified = vtk.vtkCommand.ModifiedEvent
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self._guiTag = None
            if self.hasObserver(self._parameterNode, modified, self._checkCanApply):
                self.removeObserver(self._parameterNode, modified, self._checkCanApply)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.resultSection.layers.nameChoices()
            self.modelSection.filter(parameterNode, anew=True)
            self.addObserver(parameterNode, modified, self._checkCanApply)
        self._checkCanApply()

    def _checkCanApply(self, caller: Any = None, event: Any = None) -> None:
        if self._parameterNode is not None:
            takeModelsThreshold(self._parameterNode)
            self._followChoices(self._parameterNode)
        if self._run is not None:
            self.ui.detectButton.enabled = not self._run.isCancelled
            self.ui.detectButton.toolTip = _("Stop; nothing is written.")
        elif self._parameterNode is not None and self._parameterNode.inputVolume:
            self.ui.detectButton.enabled = True
            self.ui.detectButton.toolTip = _("Find what is unusual in the volume.")
        else:
            self.ui.detectButton.enabled = False
            self.ui.detectButton.toolTip = _("Choose a volume first.")

    def _followChoices(self, parameters: LatentSpaceRestorationParameterNode) -> None:
        self.modelSection.filter(parameters)
        if parameters.inputVolume is not self._shownFor:
            self._showResult(lay=True)
        self.resultSection.layers.apply(parameters)

    def onDetectButton(self, checked: bool = False) -> None:
        """Detect, or cancel the detection that runs."""
        if self._run is not None:
            self._cancel()
            return
        if self._parameterNode is None:
            return
        # No hourglass: there may be a question, and there is a Cancel.
        with slicer.util.tryWithErrorDisplay(_("Anomaly detection failed.")):
            try:
                self.logic.packages.ensure()
            except DeclinedError as declined:
                self.ui.statusLabel.text = str(declined)
                return
            self.ui.installIcon.visible = self.ui.installLabel.visible = False
            self._detect(self._parameterNode)

    def _detect(self, parameters: LatentSpaceRestorationParameterNode) -> None:
        from LatentSpaceRestorationLib.errors import Cancelled

        options = optionsOf(parameters)
        volume = parameters.inputVolume
        outputs = Outputs(parameters.anomalyMap, parameters.segmentation, parameters.restoration)
        started = time.monotonic()
        task = self.logic.task(volume, parameters.brainMask, outputs, options)
        growingMap = GrowingMap(volume)
        self.resultSection.show(None)
        done, status = False, _("It failed; nothing was changed.")
        try:
            try:
                detector, detection = self._wait(
                    partial(computeTelling, task), partial(self._showGrowth, growingMap)
                )
            finally:
                growingMap.remove()
            task.write(detector, detection)
            parameters.layer, done = LAYERS[0], True
            status = score_plot.doneInWords(
                time.monotonic() - started, detection.restorations, options.restorations
            )
        except Cancelled:
            status = _("Cancelled; nothing was changed.")
        finally:
            if not self._isGone:
                self._showResult(lay=done)
                self._showRunning(False, status)
        self.resultSection.onPeakButton()

    def _wait(self, work: Any, showNews: Callable[[Any], None]) -> Any:
        """Run ``work`` on a thread, with progress and Cancel, and wait for its result.

        Raises:
            Cancelled: the user asked for the end.
        """
        from LatentSpaceRestorationLib.errors import Cancelled

        self._run = WorkerRun(work)
        self._timeLeft = TimeLeft()
        self._showRunning(True)
        try:
            result = self._run.wait(self._showProgress, showNews)
            if self._run.isCancelled:
                raise Cancelled
            return result
        finally:
            self._run = None

    def onCheckButton(self, checked: bool = False) -> None:
        """Say what this computer can do, and how long the chosen volume would take."""
        parameters = self._parameterNode
        if self._run is not None or parameters is None:
            return
        if self.logic.packages.missing():
            self._showLines([*computer.versions(), offlineInstructions()])
            return
        with slicer.util.tryWithErrorDisplay(_("The check failed.")):
            self._check(parameters)

    def _check(self, parameters: LatentSpaceRestorationParameterNode) -> None:
        from LatentSpaceRestorationLib.errors import Cancelled

        task, few = None, optionsOf(parameters, computer.MEASURED_RESTORATIONS)
        if parameters.inputVolume:
            task = self.logic.task(parameters.inputVolume, parameters.brainMask, Outputs(), few)
        wanted = (parameters.model, parameters.device, parameters.restorations)
        status = _("The check failed.")
        try:
            lines = self._wait(partial(computer.check, task, *wanted), self._showLines)
            self._showLines(lines)
            status = ""
        except Cancelled:
            status = _("Cancelled.")
        finally:
            if not self._isGone:
                self._showRunning(False, status)

    def _showLines(self, lines: list[str]) -> None:
        self.ui.computerLabel.text = "\n".join(lines)

    def _cancel(self) -> None:
        if self._run is not None:
            self._run.cancel()
            self.ui.detectButton.text = _("Cancelling...")
            self.ui.detectButton.enabled = False

    def _showProgress(self, fraction: float, message: str) -> None:
        self.ui.progressBar.value = round(100 * fraction)
        left = self._timeLeft.inWords(fraction)
        self.ui.statusLabel.text = (
            _("{step}, {left}").format(step=message, left=left) if left else message
        )

    def _showGrowth(self, growingMap: GrowingMap, growth: Growth) -> None:
        self.resultSection.showEstimate(growth.estimate)
        if growth.anomalyMap is not None:
            growingMap.show(growth.anomalyMap, growth.threshold)

    def _showRunning(self, running: bool, status: str = "") -> None:
        for part in (
            "inputsSection",
            "outputsSection",
            "advancedSection",
            "modelsSection",
            "checkButton",
            "thresholdLabel",
            "thresholdSlider",
        ):
            getattr(self.ui, part).enabled = not running
        self.ui.detectButton.text = _("Cancel") if running else _("Detect anomalies")
        self.ui.progressBar.visible = running
        self.ui.progressBar.value = 0
        self.ui.statusLabel.text = status
        self._checkCanApply()
