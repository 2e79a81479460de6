"""One detection in three steps: read the nodes, compute, write the nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import slicer
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _

from .models import searchFolders
from .scene.nodes import sceneUnchangedOnFailure
from .scene.read import readScan
from .scene.results import DetectionResult, writeResult

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Detection, Estimate
    from LatentSpaceRestorationLib.detector import Detector
    from LatentSpaceRestorationLib.options import RunOptions

#: ``load(model, device)``, with ``precision=`` where that is not left to the machine.
LoadDetector = Callable[..., "Detector"]


def loadInstalledDetector(model: str, device: str, precision: str = "auto") -> Detector:
    """Load a model by its name or folder."""
    from LatentSpaceRestorationLib.detector import Detector

    return Detector.load(model, device, search=searchFolders(), precision=precision)


@dataclass(frozen=True)
class Outputs:
    """Nodes to write to; None makes one."""

    anomalyMap: vtkMRMLScalarVolumeNode | None = None
    segmentation: vtkMRMLSegmentationNode | None = None
    restoration: vtkMRMLScalarVolumeNode | None = None


class DetectionTask:
    """A detection that was asked for.

    It is made, and its result is written, on the main thread; ``compute`` runs on any thread.
    Nothing in the scene changes before ``write``.
    """

    def __init__(
        self,
        loadDetector: LoadDetector,
        inputVolume: vtkMRMLScalarVolumeNode,
        brainMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None,
        outputs: Outputs,
        options: RunOptions,
    ) -> None:
        """Copy the scan out of the scene.

        Raises:
            ValueError: a node cannot be used.
        """
        _checkOutputs(inputVolume, brainMask, outputs)
        self._loadDetector = loadDetector
        self._inputVolume = inputVolume
        self._outputs = outputs
        self._options = options
        with sceneUnchangedOnFailure():
            self._scan = readScan(inputVolume, brainMask)

    def compute(
        self,
        progress: Callable[[float, str], None] | None = None,
        isCancelled: Callable[[], bool] | None = None,
        onEstimate: Callable[[Estimate], None] | None = None,
    ) -> tuple[Detector, Detection]:
        """Load the model and detect. Touches no node and no widget.

        Args:
            progress: called with the fraction done and what is being done.
            isCancelled: asked often; True ends it.
            onEstimate: called with what is known after each group of restorations.

        Raises:
            LSRError: the scan or the model cannot be used, or it was cancelled.
        """
        from LatentSpaceRestorationLib.volume import Volume

        if progress is not None:
            progress(0.0, _("Loading the model"))
        options, scan = self._options, self._scan
        asked = {} if options.precision == "auto" else {"precision": options.precision}
        detector = self._loadDetector(options.model, options.device, **asked)
        detection = detector.detect(
            Volume(scan.array, scan.affine, scan.name),
            options,
            brain_mask=scan.brainMask,
            estimate=onEstimate,
            progress=progress,
            is_cancelled=isCancelled,
        )
        return detector, detection

    def write(self, detector: Detector, detection: Detection) -> DetectionResult:
        """Write what was computed into nodes. Given nodes that were removed meanwhile are replaced.

        Raises:
            RuntimeError: the scan was removed or moved meanwhile; nothing was written.
        """
        if not self._scan.stillIs(self._inputVolume):
            raise RuntimeError(
                _(
                    "Volume {name} was removed or changed while it was analysed; nothing was"
                    " written. Run the detection again."
                ).format(name=self._scan.name)
            )

        slicer.mrmlScene.SaveStateForUndo()

        def present(node: slicer.vtkMRMLNode | None) -> slicer.vtkMRMLNode | None:
            return node if node is not None and slicer.mrmlScene.IsNodePresent(node) else None

        return writeResult(
            detection,
            detector,
            self._inputVolume,
            self._scan.affine,
            anomalyMap=present(self._outputs.anomalyMap),
            segmentation=present(self._outputs.segmentation),
            restoration=present(self._outputs.restoration),
            warnings=self._scan.warnings,
        )


def _checkOutputs(
    inputVolume: vtkMRMLScalarVolumeNode,
    brainMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None,
    outputs: Outputs,
) -> None:
    for node, className in (
        (outputs.anomalyMap, "vtkMRMLScalarVolumeNode"),
        (outputs.restoration, "vtkMRMLScalarVolumeNode"),
        (outputs.segmentation, "vtkMRMLSegmentationNode"),
    ):
        if node is None:
            continue
        # A label map is a scalar volume too, but holds no map.
        if not node.IsA(className) or node.IsA("vtkMRMLLabelMapVolumeNode"):
            raise ValueError(
                _("{name} cannot hold this output; give a {kind}.").format(
                    name=node.GetName(), kind=className
                )
            )
        if node in (inputVolume, brainMask):
            raise ValueError(
                _("{name} is an input and cannot be an output as well.").format(name=node.GetName())
            )
    one, isBoth = outputs.anomalyMap, outputs.anomalyMap is outputs.restoration
    if one is not None and isBoth:
        raise ValueError(
            _("{name} cannot hold two outputs; choose another for one.").format(name=one.GetName())
        )
