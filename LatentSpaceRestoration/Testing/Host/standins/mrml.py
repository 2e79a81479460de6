"""The scene and the module logics, all of them Slicer's own, from the ``slicer-core`` wheel.

The wheel has no share folder, so that a small one is written: one colour map, label colours, and a
terminology with the terms that the module uses. Its colours and terms are this project's own
choice, not Slicer's files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import slicer
import vtk

#: Slicer's name of a module -> the class of its logic.
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Data": "vtkSlicerDataModuleLogic",
}

#: Classes that Slicer's subject-hierarchy plugins put into the tree (Qt does that in Slicer).
IN_HIERARCHY = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLModelNode",
    "vtkMRMLTextNode",
)

_SLICE_VIEWS = (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))


class Mrml:
    """The scene, the application logic and the module logics, kept alive together."""

    def __init__(self, temporary: Path) -> None:
        share = temporary / "share"
        _write_share(share)
        self.scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = self.scene
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetTemporaryPath(str(temporary))
        # The two are joined, and must be set before the scene is.
        self.application.SetHomeDirectory(str(temporary))
        self.application.SetShareDirectory(share.name)
        self.application.SetMRMLScene(self.scene)
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._data_manager = slicer.vtkDataIOManagerLogic()
        self._data_manager.SetMRMLApplicationLogic(self.application)
        self._data_manager.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self._remote.SetMRMLScene(self.scene)
        self._remote.AddDataIOToScene()
        self.logics: dict[str, Any] = {}
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            if hasattr(logic, "SetModuleShareDirectory"):
                logic.SetModuleShareDirectory(str(share))
            logic.SetMRMLApplicationLogic(self.application)
            logic.SetMRMLScene(self.scene)
            self.application.SetModuleLogic(name, logic)
            self.logics[name] = logic
        events = slicer.vtkMRMLScene
        self.scene.AddObserver(events.NodeAddedEvent, _into_hierarchy)
        self.scene.AddObserver(events.NodeAboutToBeRemovedEvent, _out_of_hierarchy)
        # A closed scene gets its hierarchy back at once, as it does from Slicer's plugins.
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode
        self.scene.AddObserver(events.EndCloseEvent, lambda *_: hierarchy(self.scene))

    def add_slice_views(self) -> None:
        """What the layout does when Slicer has a main window: the nodes of three slice views."""
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        for name, orientation in _SLICE_VIEWS:
            view = self.scene.CreateNodeByClass("vtkMRMLSliceNode")
            view.UnRegister(None)
            layers = self.scene.CreateNodeByClass("vtkMRMLSliceCompositeNode")
            layers.UnRegister(None)
            for node in (view, layers):
                node.SetName(name)
                node.SetLayoutName(name)
                node.SetSingletonTag(name)
                self.scene.AddNode(node)
            view.SetOrientation(orientation)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _into_hierarchy(scene: Any, _event: str, node: Any) -> None:
    if node.GetHideFromEditors() or not any(node.IsA(name) for name in IN_HIERARCHY):
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is not None and not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _out_of_hierarchy(scene: Any, _event: str, node: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if item and not scene.IsClosing():
        hierarchy.RemoveItem(item, False, False)


def _write_share(share: Path) -> None:
    colours = share / "ColorFiles"
    colours.mkdir(parents=True)
    stops = ((0.0, (0, 0, 4)), (0.25, (87, 16, 110)), (0.5, (188, 55, 84)))
    stops += ((0.75, (249, 142, 9)), (1.0, (252, 255, 164)))
    lines = []
    for index in range(256):
        place = index / 255
        upper = next(i for i, (at, _) in enumerate(stops) if at >= place)
        (a, low), (b, high) = stops[max(upper - 1, 0)], stops[upper]
        share_of_high = 0.0 if b == a else (place - a) / (b - a)
        mixed = (round(x + (y - x) * share_of_high) for x, y in zip(low, high, strict=True))
        lines.append(f"{index} Inferno_{index} {' '.join(map(str, mixed))} 255")
    (colours / "Inferno.txt").write_text("\n".join(lines) + "\n")
    labels = "0 background 0 0 0 0\n1 tissue 128 174 128 255\n2 region_2 241 214 145 255\n"
    for name in ("GenericColors.txt", "GenericAnatomyColors.txt"):
        (colours / name).write_text(labels)

    def code(meaning: str, value: str, **more: Any) -> dict[str, Any]:
        return {
            "CodeMeaning": meaning,
            "CodingSchemeDesignator": "SCT",
            "CodeValue": value,
            **more,
        }

    altered = code("Morphologically Altered Structure", "49755003", showAnatomy=True)
    altered["Type"] = [
        code("Morphologically Altered Structure", "49755003"),
        code("Mass", "4147007", recommendedDisplayRGBValue=[144, 238, 144]),
    ]
    tissue = code("Tissue", "85756007", showAnatomy=True)
    tissue["Type"] = [code("Tissue", "85756007", recommendedDisplayRGBValue=[128, 174, 128])]
    for name in ("SlicerGeneralAnatomy", "DICOM-Master"):
        label = "3D Slicer General Anatomy list" if "General" in name else "DICOM master list"
        context = {
            "SegmentationCategoryTypeContextName": f"Segmentation category and type - {label}",
            "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/"
            "segment-context-schema.json#",
            "SegmentationCodes": {"Category": [tissue, altered]},
        }
        path = share / f"SegmentationCategoryTypeModifier-{name}.term.json"
        path.write_text(json.dumps(context))
    regions = {
        "AnatomicContextName": "Anatomic codes - DICOM master list",
        "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/"
        "anatomic-context-schema.json#",
        "AnatomicCodes": {"AnatomicRegion": [code("Brain", "12738006")]},
    }
    path = share / "AnatomicRegionAndModifier-DICOM-Master.term.json"
    path.write_text(json.dumps(regions))
