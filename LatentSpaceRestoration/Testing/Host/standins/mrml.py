"""The scene and the module logics, all of them Slicer's own, from the ``slicer-core`` wheel.

The wheel has no share folder, so that a small one is written: colour maps, label colours, and a
terminology with the terms that the module uses. Its colours and terms are this project's own
choice, not Slicer's files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    "Markups": "vtkSlicerMarkupsLogic",
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
    "vtkMRMLMarkupsNode",
)

#: Evenly spaced anchors of the colour maps, from low to high.
_COLOURS = {
    "Inferno": ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)),
    "Plasma": ((13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)),
    "Viridis": ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)),
    "Cividis": ((0, 34, 78), (67, 78, 108), (125, 124, 120), (187, 174, 111), (253, 234, 69)),
}

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
        cache = temporary / "cache"
        cache.mkdir()
        self.scene.GetCacheManager().SetRemoteCacheDirectory(str(cache))
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
        self.scene.AddObserver(events.EndImportEvent, _all_into_hierarchy)
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
            layers.AddObserver(vtk.vtkCommand.ModifiedEvent, _save_states_of)


#: What each slice view showed last, by the name of its layers.
_SHOWN: dict[str, list[str | None]] = {}


def _save_states_of(layers: Any, _event: str) -> None:
    """As a slice view's controller does: each volume that it comes to show is a state for undo."""
    scene, now = layers.GetScene(), [layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID()]
    before = _SHOWN.get(layers.GetName(), [None, None])
    _SHOWN[layers.GetName()] = now
    if scene is None or scene.IsUndoing() or scene.IsRedoing() or scene.IsBatchProcessing():
        return
    for _ in range(sum(one != other for one, other in zip(now, before, strict=True))):
        scene.SaveStateForUndo()


@vtk.calldata_type(vtk.VTK_OBJECT)
def _into_hierarchy(scene: Any, _event: str, node: Any) -> None:
    # While a scene is read, its own hierarchy is not whole; its nodes follow at the end.
    if not scene.IsImporting():
        _add_to_hierarchy(scene, node)


def _all_into_hierarchy(scene: Any, _event: str) -> None:
    for node in [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]:
        _add_to_hierarchy(scene, node)


def _add_to_hierarchy(scene: Any, node: Any) -> None:
    if node.GetHideFromEditors() or not any(node.IsA(name) for name in IN_HIERARCHY):
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is not None and not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _out_of_hierarchy(scene: Any, _event: str, node: Any) -> None:
    # A second hierarchy is removed when it is merged into the first; to ask for one would begin
    # that anew, without end.
    if node.IsA("vtkMRMLSubjectHierarchyNode"):
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if item and not scene.IsClosing():
        hierarchy.RemoveItem(item, False, False)


def _write_colours(path: Path, name: str, anchors: Sequence[tuple[int, int, int]]) -> None:
    """A colour map of 256 colours between evenly spaced anchors."""
    lines = []
    for index in range(256):
        place = index / 255 * (len(anchors) - 1)
        below = min(int(place), len(anchors) - 2)
        pairs = zip(anchors[below], anchors[below + 1], strict=True)
        mixed = (round(a + (b - a) * (place - below)) for a, b in pairs)
        lines.append(f"{index} {name}_{index} {' '.join(map(str, mixed))} 255")
    path.write_text("\n".join(lines) + "\n")


def _write_share(share: Path) -> None:
    colours = share / "ColorFiles"
    colours.mkdir(parents=True)
    for name, anchors in _COLOURS.items():
        _write_colours(colours / f"{name}.txt", name, anchors)
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
    # Slicer's own, all of them: what is none of these is not in its list.
    altered["Type"] = [
        code(meaning, value)
        for meaning, value in (
            ("Mass", "4147007"),
            ("Nodule", "27925004"),
            ("Cyst", "367643001"),
            ("Blood clot", "75753009"),
            ("Embolus", "55584005"),
            ("Edema", "79654002"),
            ("Hemorrhage", "50960005"),
            ("Inflammation", "23583003"),
            ("Abscess", "44132006"),
            ("Necrosis", "6574001"),
            ("Neoplasm, Primary", "86049000"),
            ("Neoplasm, Secondary", "14799000"),
            ("Neoplasm", "108369006"),
        )
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
