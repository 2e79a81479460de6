"""Detection on nodes, without a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from LatentSpaceRestorationLib.options import RunOptions
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from . import cohorts
from .cohorts import CohortResult
from .installation import Packages
from .models import DEFAULT_MODEL
from .parameters import LatentSpaceRestorationParameterNode
from .scene import page, stored
from .scene.results import DetectionResult
from .scene.stored import StoredResult
from .task import DetectionTask, LoadDetector, Outputs, loadInstalledDetector

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Estimate

_RESOURCES = Path(__file__).parents[1] / "Resources"


class LatentSpaceRestorationLogic(ScriptedLoadableModuleLogic):
    """Detection on nodes, without a panel.

    Args:
        loadDetector: gives the detector for a model and a device.
        packages: what must be installed for a detection.

    Attributes:
        trainingPackages: what must be installed for a training.
    """

    def __init__(
        self,
        loadDetector: LoadDetector = loadInstalledDetector,
        packages: Packages | None = None,
    ) -> None:
        super().__init__()
        requirements = _RESOURCES / "requirements.txt"
        self.loadDetector = loadDetector
        self.packages = packages or Packages(requirements)
        self.trainingPackages = Packages(requirements, _RESOURCES / "requirements-training.txt")

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
        precision: str = "auto",
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
            precision: auto, float32 or bfloat16, that networks compute in.
            progress: called with the fraction done and what is being done.
            isCancelled: asked often; True ends the detection.
            mode: default; pixelsnail for the auto-regressive prior of a model that has a masked one
                as well; paper for the published equations.
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
        options = RunOptions(
            model=model,
            threshold=threshold,
            restorations=restorations,
            seed=seed,
            device=device,
            precision=precision,
            mode=mode,
            method=method,
            time_budget=timeBudget,
        )
        task = self.task(
            inputVolume, brainMask, Outputs(anomalyMap, segmentation, restoration), options
        )
        return task.write(*task.compute(progress, isCancelled, onEstimate))

    def detectCohort(
        self,
        runFolder: str | Path,
        inputs: str | Path | Sequence[str | Path],
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
        jobs: int = 0,
        scheduler: str | None = None,
        precision: str = "auto",
    ) -> CohortResult:
        """Find what is unusual in many scans on disk, as ``lsr cohort`` does.

        Runs to its end, and never opens a dialog. Of the scene nothing changes but that a table
        ``scores`` is added. A scan that fails is a row with its reason. What is done is kept if it
        ends early, and a second call goes on from there.

        Args:
            runFolder: gets the results of each scan and ``scores.tsv``; made if it is missing.
            inputs: image files, folders of them, BIDS data sets, DICOM folders, tables, or globs.
            model, threshold, restorations, seed, device, mode, method, timeBudget, precision: as
                for ``detect``.
            progress: called with the fraction done and what is being done.
            isCancelled: asked often; True ends the run.
            jobs: worker processes; 0 takes one scan after the other in this process.
            scheduler: address of a Dask cluster to use instead.

        Raises:
            LatentSpaceRestorationLib.errors.LSRError: there are no scans, the model or the folder
                cannot be used, or it was cancelled.
            MissingPackagesError: a package is not installed; more are needed than for ``detect``.
        """
        self.packages.check()
        onCluster = jobs > 0 or scheduler is not None
        cohorts.checkPackages(_RESOURCES / "cohort-requirements.txt", onCluster)
        options = RunOptions(
            model=cohorts.findModel(model),
            mode=mode,
            method=method,
            threshold=threshold,
            restorations=restorations,
            seed=seed,
            time_budget=timeBudget,
            device=device,
            precision=precision,
        )
        given = [inputs] if isinstance(inputs, str | Path) else inputs
        return cohorts.runCohort(runFolder, given, options, jobs, scheduler, progress, isCancelled)

    def task(
        self,
        inputVolume: vtkMRMLScalarVolumeNode,
        brainMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None,
        outputs: Outputs,
        options: RunOptions,
    ) -> DetectionTask:
        """A detection that is read from the scene but not computed yet; raises as ``detect``."""
        self.packages.check()
        return DetectionTask(self.loadDetector, inputVolume, brainMask, outputs, options)

    def resultOf(self, inputVolume: vtkMRMLScalarVolumeNode) -> StoredResult | None:
        """The last result of a scan in the scene, from a saved scene too; None if there is none."""
        return stored.latest(inputVolume)

    def exportPage(self, node: vtkMRMLScalarVolumeNode, path: str | Path) -> Path:
        """Write a result as a page: one file, in which it is scrolled through without Slicer.

        The page shows the head, and has the scan's name in the scene; nothing else of the patient.

        Args:
            node: the scan, of which the last result is taken, or the anomaly map of a result.
            path: of the page, such as ``result.html``; what is there is replaced.

        Raises:
            ValueError: there is no result, or a part of it was removed.
            LatentSpaceRestorationLib.errors.OutputError: the page cannot be written.
        """
        result = stored.StoredResult.of(node) or stored.latest(node)
        if result is None:
            raise ValueError(
                _("{name} has no result; detect anomalies in it first.").format(name=node.GetName())
            )
        return page.writePage(result, path)

    def setThreshold(self, result: DetectionResult | StoredResult, percentile: float) -> None:
        """Cut a result's segmentation at another healthy percentile, without detecting again.

        Args:
            result: from ``detect`` or ``resultOf``; its nodes are changed.
            percentile: of healthy brain voxels, above 0 and below 100.
        """
        stored.cutAt(result.stored if isinstance(result, DetectionResult) else result, percentile)
