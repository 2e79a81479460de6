"""The anomaly map while it grows: in a node of its own, which is gone when the detection ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

from ..scene import display
from ..scene.nodes import sceneUnchangedOnFailure, writeVolume
from ..task import DetectionTask

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Detection, Estimate
    from LatentSpaceRestorationLib.detector import Detector

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Growth:
    """What is known by now in a detection that runs.

    Attributes:
        estimate: the score, and how many restorations it rests on.
        anomalyMap: (I, J, K) float32 on the scan's grid; None while it is being made.
        threshold: value of the map from which on it is shown.
    """

    estimate: Estimate
    anomalyMap: np.ndarray | None = None
    threshold: float = 0.0


def computeTelling(
    task: DetectionTask,
    progress: Callable[[float, str], None],
    isCancelled: Callable[[], bool],
    tell: Callable[[Growth], None],
) -> tuple[Detector, Detection]:
    """``task.compute``, which tells what is known after each group of restorations.

    The score is told at once, and the map when it is made, if it is another than the one before.
    The map of the last estimate is not made here: it is the result's, which follows.
    """

    def onEstimate(estimate: Estimate) -> None:
        tell(Growth(estimate))
        is_new = estimate.changes_map and not estimate.is_last
        detection = _images(estimate, isCancelled) if is_new else None
        if detection is not None:
            # Without the other images, which would be kept until the next map is made.
            tell(Growth(estimate, detection.anomaly_map, detection.threshold))

    return task.compute(progress, isCancelled, onEstimate)


def _images(estimate: Estimate, isCancelled: Callable[[], bool]) -> Detection | None:
    """Make an estimate's images; None if it is cancelled before they are there.

    They take seconds for a large scan, and cannot be broken off. So they are made on a thread of
    their own, which is left to its end when it is cancelled.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="LatentSpaceRestorationImages")
    try:
        images = thread.submit(estimate.detection)
        while not isCancelled():
            if wait([images], _POLL_SECONDS).done:
                return images.result()
        return None
    finally:
        thread.shutdown(wait=False)


class GrowingMap:
    """Shows the map of a running detection over its scan, and leaves the scene as it was.

    The node is not offered as an input, has no place in the subject hierarchy and is not saved. If
    the scan is removed, so is the map.
    """

    def __init__(self, inputVolume: vtkMRMLScalarVolumeNode) -> None:
        self._inputVolume = inputVolume
        self._node: vtkMRMLScalarVolumeNode | None = None
        self._before: tuple[display.Layers, ...] = ()
        self._observation: int | None = None

    def show(self, anomalyMap: np.ndarray, threshold: float) -> None:
        """Show a map in place of the last one; the first one is laid over the scan.

        Args:
            anomalyMap: (I, J, K) on the scan's grid. Nothing is shown if the scan is gone, or has
                another grid by now.
            threshold: the lowest value that is drawn.
        """
        if not self._fits(anomalyMap):
            self.remove()
        elif self._node is None:
            with sceneUnchangedOnFailure():
                node = self._add()
                self._write(node, anomalyMap, threshold)
                node.GetDisplayNode().SetSaveWithScene(False)
            self._node, self._before = node, display.currentLayers()
            events = slicer.vtkMRMLScene
            self._observation = slicer.mrmlScene.AddObserver(
                events.NodeRemovedEvent, self._onNodeRemoved
            )
            display.overlay(self._inputVolume, node)
        elif slicer.mrmlScene.IsNodePresent(self._node):
            self._write(self._node, anomalyMap, threshold)

    def remove(self) -> None:
        """Remove the node, if there is one, and show in the slice views what they showed before."""
        node, self._node = self._node, None
        if self._observation is not None:
            slicer.mrmlScene.RemoveObserver(self._observation)
            self._observation = None
        # A closed scene took the node, and what the views showed, with it.
        if node is not None and slicer.mrmlScene.IsNodePresent(node):
            display.takeOff(self._inputVolume, node, self._before)
            slicer.mrmlScene.RemoveNode(node)

    def _fits(self, anomalyMap: np.ndarray) -> bool:
        volume = self._inputVolume
        if not slicer.mrmlScene.IsNodePresent(volume) or volume.GetImageData() is None:
            return False
        return tuple(volume.GetImageData().GetDimensions()) == anomalyMap.shape

    def _add(self) -> vtkMRMLScalarVolumeNode:
        scene = slicer.mrmlScene
        node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        node.UnRegister(None)
        # Before it is added, so that it gets no place in the subject hierarchy.
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.SetName(
            scene.GenerateUniqueName(
                _("{name} anomaly map so far").format(name=self._inputVolume.GetName())
            )
        )
        return scene.AddNode(node)

    def _write(
        self, node: vtkMRMLScalarVolumeNode, anomalyMap: np.ndarray, threshold: float
    ) -> None:
        writeVolume(node, anomalyMap, self._inputVolume)
        display.showMap(node, threshold)

    def _onNodeRemoved(self, caller: Any, event: Any) -> None:
        scene = slicer.mrmlScene
        if not scene.IsClosing() and not scene.IsNodePresent(self._inputVolume):
            self.remove()
