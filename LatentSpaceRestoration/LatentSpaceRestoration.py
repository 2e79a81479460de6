"""Latent Space Restoration: what is unusual in a brain scan. Slicer's entry to the module."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from LatentSpaceRestorationSlicer import results, scores
from LatentSpaceRestorationSlicer.installation import MissingPackagesError, Packages
from LatentSpaceRestorationSlicer.models import DEFAULT_MODEL, ModelNames
from LatentSpaceRestorationSlicer.parameters import (
    LatentSpaceRestorationParameterNode,
    takeModelsThreshold,
)
from LatentSpaceRestorationSlicer.preview import GrowingMap, Growth, computeTelling
from LatentSpaceRestorationSlicer.result_section import ResultSection
from LatentSpaceRestorationSlicer.results import DetectionResult
from LatentSpaceRestorationSlicer.running import WorkerRun
from LatentSpaceRestorationSlicer.task import (
    DetectionTask,
    LoadDetector,
    Options,
    Outputs,
    loadInstalledDetector,
)
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Estimate


class LatentSpaceRestoration(ScriptedLoadableModule):
    """What Slicer shows of the module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("Latent Space Restoration")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Volumes", "Plots"]
        parent.contributors = ["Latent Space Restoration contributors"]
        parent.helpText = _(
            "Finds what is unusual in a T1-weighted brain scan. A model of healthy brains says how"
            " likely each part of the scan is, and restores the unlikely parts; where the scan and"
            " its restoration differ, the anomaly map is high. For research use. Not for diagnosis."
        )
        parent.acknowledgementText = _(
            "Method: Naval Marimont and Tarroni, Anomaly detection through latent space restoration"
            " using vector-quantized variational autoencoders, ISBI 2021."
        )


class LatentSpaceRestorationLogic(ScriptedLoadableModuleLogic):
    """Detection on nodes, without a panel.

    Args:
        loadDetector: gives the detector for a model and a device.
        packages: what must be installed.
    """

    def __init__(
        self,
        loadDetector: LoadDetector = loadInstalledDetector,
        packages: Packages | None = None,
    ) -> None:
        super().__init__()
        requirements = Path(__file__).parent / "Resources" / "requirements.txt"
        self.loadDetector = loadDetector
        self.packages = packages or Packages(requirements)

    def getParameterNode(self) -> LatentSpaceRestorationParameterNode:
        return LatentSpaceRestorationParameterNode(super().getParameterNode())

    def detect(
        self,
        inputVolume: vtkMRMLScalarVolumeNode,
        anomalyMap: vtkMRMLScalarVolumeNode | None = None,
        segmentation: vtkMRMLSegmentationNode | None = None,
        restoration: vtkMRMLScalarVolumeNode | None = None,
        brainMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None = None,
        model: str = DEFAULT_MODEL,
        threshold: float | None = None,
        restorations: int = 15,
        seed: int = 0,
        device: str = "auto",
        progress: Callable[[float, str], None] | None = None,
        isCancelled: Callable[[], bool] | None = None,
        mode: str = "default",
        method: str = "lsr",
        timeBudget: float | None = None,
        onEstimate: Callable[[Estimate], None] | None = None,
    ) -> DetectionResult:
        """Find what is unusual in a scan. Runs to its end, and never opens a dialog.

        If it fails or is cancelled, the scene is as it was.

        Args:
            inputVolume: T1-weighted head or brain, of any orientation and spacing. A rigid parent
                transform counts; the outputs get it too.
            anomalyMap, segmentation, restoration: nodes to write to; None makes new ones, named
                after the input.
            brainMask: a segmentation or a label map that marks the brain; None finds it.
            model: name of an installed model, or a model's folder.
            threshold: percentile of healthy brain voxels, above 0 and below 100, at which the
                segmentation is cut; None takes the model's.
            restorations: how many to average, at least 1.
            seed: the same seed gives the same result.
            device: auto, cpu, cuda or mps.
            progress: called with the fraction done and what is being done.
            isCancelled: asked often; True ends the detection.
            mode: default, or paper for the published equations.
            method: lsr.
            timeBudget: seconds, above 0, from when the model is loaded, after which no more
                restorations are begun; None waits for all. One is made in any case, and
                ``result.detection.restorations`` says how many were.
            onEstimate: called, in the caller's thread, with each ``Estimate``: the score after a
                group of restorations, the last included. Its ``detection()`` gives the images.

        Raises:
            ValueError: a node or an option cannot be used.
            LatentSpaceRestorationLib.errors.LSRError: the scan or the model cannot be used, or the
                detection was cancelled.
            MissingPackagesError: torch or another package is not installed.
        """
        options = Options(model, threshold, restorations, seed, device, mode, method, timeBudget)
        task = self.task(
            inputVolume, brainMask, Outputs(anomalyMap, segmentation, restoration), options
        )
        return task.write(*task.compute(progress, isCancelled, onEstimate))

    def task(
        self,
        inputVolume: vtkMRMLScalarVolumeNode,
        brainMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None,
        outputs: Outputs,
        options: Options,
    ) -> DetectionTask:
        """A detection that is read from the scene but not computed yet; raises as ``detect``."""
        self.packages.check()
        return DetectionTask(self.loadDetector, inputVolume, brainMask, outputs, options)

    def setThreshold(self, result: DetectionResult, percentile: float) -> None:
        """Cut a result's segmentation at another healthy percentile, without detecting again.

        Args:
            result: from ``detect``; its nodes are changed.
            percentile: of healthy brain voxels, above 0 and below 100.
        """
        detection = result.detection
        value = result.detector.threshold_value(
            percentile, mode=detection.mode, restorations=detection.restorations
        )
        results.cutAt(result, value)


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

    def setup(self) -> None:
        """Build the panel. Needs neither torch nor a main window."""
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/LatentSpaceRestoration.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = LatentSpaceRestorationLogic()
        self.resultSection = ResultSection(self.ui, self.logic.setThreshold)

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.ui.detectButton.connect("clicked(bool)", self.onDetectButton)
        self._showRunning(False)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """The panel is about to be destroyed."""
        self._cancel()
        self._isGone = True
        self.resultSection.close()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """The panel is shown."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Another module's panel is shown."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        self._cancel()
        self.resultSection.show(None)
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any = None, event: Any = None) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Take the scene's parameter node, and choose the first volume if none is chosen."""
        missing = self.logic.packages.missing()
        self.ui.installLabel.visible = bool(missing)
        self.ui.installLabel.text = _(
            "Not installed yet: {packages}. Click Detect anomalies, and you will be asked whether"
            " to install."
        ).format(packages=", ".join(missing))
        parameterNode = self.logic.getParameterNode()
        if parameterNode.model not in ModelNames():
            parameterNode.model = DEFAULT_MODEL
        if not parameterNode.inputVolume:
            parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass(
                "vtkMRMLScalarVolumeNode"
            )
        self.setParameterNode(parameterNode)

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
            self.addObserver(parameterNode, modified, self._checkCanApply)
        self._checkCanApply()

    def _checkCanApply(self, caller: Any = None, event: Any = None) -> None:
        if self._parameterNode is not None:
            takeModelsThreshold(self._parameterNode)
        if self._run is not None:
            self.ui.detectButton.enabled = not self._run.isCancelled
            self.ui.detectButton.toolTip = _("Stop; nothing is written.")
        elif self._parameterNode is not None and self._parameterNode.inputVolume:
            self.ui.detectButton.enabled = True
            self.ui.detectButton.toolTip = _("Find what is unusual in the volume.")
        else:
            self.ui.detectButton.enabled = False
            self.ui.detectButton.toolTip = _("Choose a volume first.")

    def onDetectButton(self, checked: bool = False) -> None:
        """Detect, or cancel the detection that runs."""
        if self._run is not None:
            self._cancel()
            return
        if self._parameterNode is None:
            return
        with slicer.util.tryWithErrorDisplay(_("Anomaly detection failed."), waitCursor=True):
            self.logic.packages.ensure()
            self.ui.installLabel.visible = False
            self._detect(self._parameterNode)

    def _detect(self, parameters: LatentSpaceRestorationParameterNode) -> None:
        from LatentSpaceRestorationLib.errors import Cancelled

        options = Options(
            parameters.model,
            parameters.threshold,
            parameters.restorations,
            parameters.seed,
            parameters.device,
            parameters.mode,
            "lsr",
            parameters.timeBudget or None,
        )
        volume = parameters.inputVolume
        outputs = Outputs(parameters.anomalyMap, parameters.segmentation, parameters.restoration)
        started = time.monotonic()
        task = self.logic.task(volume, parameters.brainMask, outputs, options)
        self._run = WorkerRun(partial(computeTelling, task))
        growingMap = GrowingMap(volume)
        self.resultSection.show(None)
        self._showRunning(True)
        result, status = None, _("It failed; nothing was changed.")
        try:
            try:
                detector, detection = self._run.wait(
                    self._showProgress, partial(self._showGrowth, growingMap)
                )
            finally:
                growingMap.remove()
            if self._run.isCancelled:
                raise Cancelled
            result = task.write(detector, detection)
            status = scores.doneInWords(
                time.monotonic() - started, detection.restorations, options.restorations
            )
        except Cancelled:
            status = _("Cancelled; nothing was changed.")
        finally:
            self._run = None
            if not self._isGone:
                self.resultSection.show(result)
                self._showRunning(False, status)
        self.resultSection.onPeakButton()

    def _cancel(self) -> None:
        if self._run is not None:
            self._run.cancel()
            self.ui.detectButton.text = _("Cancelling...")
            self.ui.detectButton.enabled = False

    def _showProgress(self, fraction: float, message: str) -> None:
        self.ui.progressBar.value = round(100 * fraction)
        self.ui.statusLabel.text = message

    def _showGrowth(self, growingMap: GrowingMap, growth: Growth) -> None:
        self.resultSection.showEstimate(growth.estimate)
        if growth.anomalyMap is not None:
            growingMap.show(growth.anomalyMap, growth.threshold)

    def _showRunning(self, running: bool, status: str = "") -> None:
        for part in (
            "inputsSection",
            "outputsSection",
            "advancedSection",
            "thresholdLabel",
            "thresholdSlider",
        ):
            getattr(self.ui, part).enabled = not running
        self.ui.detectButton.text = _("Cancel") if running else _("Detect anomalies")
        self.ui.progressBar.visible = running
        self.ui.progressBar.value = 0
        self.ui.statusLabel.text = status
        self._checkCanApply()


def generatedBrain(name: str = "Generated") -> vtkMRMLScalarVolumeNode:
    """A volume to try the module on: an ellipsoid the size of a brain, with stripes, at 2 mm."""
    shape, radii = np.array((70, 90, 80)), np.array((32, 42, 30))
    index = np.indices(shape.tolist()).transpose(1, 2, 3, 0)
    inside = np.square((index - (shape - 1) / 2) / radii).sum(axis=-1) < 1.0
    stripes = 100.0 + 30.0 * np.sin(index.sum(axis=-1) / 5.0)
    array = np.where(inside, stripes, 0.0).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return slicer.util.addVolumeFromArray(array.transpose(2, 1, 0), affine, name)


class LatentSpaceRestorationTest(ScriptedLoadableModuleTest):
    """Self-test, with the model that is installed."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_panelOpens(self) -> None:
        """The panel is there, and cannot detect without a volume."""
        widget = slicer.util.getModuleWidget("LatentSpaceRestoration")
        widget.initializeParameterNode()
        self.assertEqual(widget.ui.detectButton.text, _("Detect anomalies"))
        self.assertFalse(widget.ui.detectButton.enabled)

    def test_detect(self) -> None:
        """A generated brain gives a map on its own grid; without torch, a clear error."""
        volume = generatedBrain()
        logic = LatentSpaceRestorationLogic()
        if logic.packages.missing():
            with self.assertRaises(MissingPackagesError):
                logic.detect(volume)
            return
        result = logic.detect(volume, restorations=1)
        compare = slicer.modules.volumes.logic().CompareVolumeGeometry
        self.assertEqual(compare(volume, result.anomalyMap), "")
        self.assertGreater(result.sampleScore, 0.0)
