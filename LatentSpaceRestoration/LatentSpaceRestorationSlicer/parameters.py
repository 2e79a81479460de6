"""The parameters of the panel, kept in the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import slicer
from LatentSpaceRestorationLib.options import DEVICES, MODES, RunOptions
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

from .models import ANY_MODALITY, DEFAULT_MODEL, Modalities, ModelNames, thresholdPercentile
from .scene.display import COLOURS, OPACITY

if TYPE_CHECKING:
    from slicer import vtkMRMLScriptedModuleNode

#: Healthy percentiles that the slider offers.
THRESHOLDS = (50.0, 99.99)
#: What can be laid over the scan.
LAYERS = ("anomaly map", "restoration", "difference", "spread", "nothing")


@parameterNodeWrapper
class LatentSpaceRestorationParameterNode:
    """The parameters of the panel.

    inputVolume - the scan.
    brainMask - what is brain; unset finds it.
    modality - the kind of scan that models are offered of.
    model - name of an installed model.
    anomalyMap, segmentation, restoration - nodes to write to; unset makes new ones.
    threshold - percentile of healthy brain voxels at which the segmentation is cut.
    thresholdFor - the model and mode whose own percentile was last taken over.
    timeBudget - seconds; 0 is no limit.
    layer - what is laid over the scan; mapOpacity, fade, differenceOpacity and spreadOpacity are
        for each of them.
    outlineReplaced - whether what the restoration replaced is outlined.
    colours - of the map.
    show3D - whether the segmentation has a surface.
    smallest - ml; smaller regions are not listed.
    restorations, seed, device, mode - see LatentSpaceRestorationLogic.detect.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    brainMask: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None
    modality: Annotated[str, Choice(Modalities())] = ANY_MODALITY
    model: Annotated[str, Choice(ModelNames())] = DEFAULT_MODEL
    anomalyMap: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    restoration: vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(*THRESHOLDS)] = 99.0
    thresholdFor: str = ""
    restorations: Annotated[int, WithinRange(1, 100)] = 15
    timeBudget: Annotated[float, WithinRange(0, 3600)] = 0.0
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    device: Annotated[str, Choice(list(DEVICES))] = DEVICES[0]
    mode: Annotated[str, Choice(list(MODES))] = MODES[0]
    layer: Annotated[str, Choice(list(LAYERS))] = LAYERS[0]
    mapOpacity: Annotated[float, WithinRange(0, 1)] = OPACITY
    fade: Annotated[float, WithinRange(0, 1)] = 1.0
    differenceOpacity: Annotated[float, WithinRange(0, 1)] = OPACITY
    spreadOpacity: Annotated[float, WithinRange(0, 1)] = OPACITY
    colours: Annotated[str, Choice(list(COLOURS))] = COLOURS[0]
    show3D: bool = True
    outlineReplaced: bool = False
    smallest: Annotated[float, WithinRange(0, 100)] = 0.2

    if TYPE_CHECKING:
        # What the decorator adds.
        def __init__(self, node: vtkMRMLScriptedModuleNode) -> None: ...
        def connectGui(self, gui: object) -> int: ...
        def disconnectGui(self, tag: int | None) -> None: ...


#: What may be chosen of each list of the panel, and what is if it was something else.
_CHOICES: dict[str, tuple[Sequence[str], str]] = {
    "modality": (Modalities(), ANY_MODALITY),
    "model": (ModelNames(), DEFAULT_MODEL),
    "device": (DEVICES, DEVICES[0]),
    "mode": (MODES, MODES[0]),
    "layer": (LAYERS, LAYERS[0]),
    "colours": (COLOURS, COLOURS[0]),
}


def mendChoices(parameterNode: LatentSpaceRestorationParameterNode) -> list[str]:
    """Reset what a scene of another version, or computer, has chosen and nobody can choose here.

    A list that is asked to show what is not in it raises, and there would be no panel.

    Returns:
        a line for each.
    """
    lines = []
    for name, (choices, default) in _CHOICES.items():
        chosen = getattr(parameterNode, name)
        if chosen not in choices:
            setattr(parameterNode, name, default)
            lines.append(
                _(
                    "This scene asks for {chosen}, which is not known here: {default} is taken."
                ).format(chosen=chosen, default=default)
            )
    return lines


def firstScan() -> vtkMRMLScalarVolumeNode | None:
    """The first volume that the panel's list shows: no label map, and nothing that is hidden."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if isScan(node):
            return node
    return None


def isScan(node: vtkMRMLScalarVolumeNode) -> bool:
    """Whether the panel's list shows a volume: those of classes made from that one are not."""
    return node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()


def takeModelsThreshold(parameterNode: LatentSpaceRestorationParameterNode) -> None:
    """Start from the percentile that the model was calibrated with, once for each model."""
    wanted = f"{parameterNode.model}/{parameterNode.mode}"
    if parameterNode.thresholdFor == wanted:
        return
    own = thresholdPercentile(parameterNode.model, parameterNode.mode)
    with slicer.util.NodeModify(parameterNode):
        parameterNode.thresholdFor = wanted
        if own is not None:
            parameterNode.threshold = min(max(own, THRESHOLDS[0]), THRESHOLDS[1])


def optionsOf(
    parameters: LatentSpaceRestorationParameterNode, restorations: int | None = None
) -> RunOptions:
    """What is chosen in the panel; with another number of restorations, if one is given."""
    return RunOptions(
        model=parameters.model,
        threshold=parameters.threshold,
        restorations=restorations or parameters.restorations,
        seed=parameters.seed,
        device=parameters.device,
        mode=parameters.mode,
        time_budget=parameters.timeBudget or None,
    )
