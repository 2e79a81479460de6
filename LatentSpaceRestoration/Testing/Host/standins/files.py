"""Stand-in for ``slicer.app.coreIOManager()``: the readers and writers that tests need.

The reading and writing itself is Slicer's own, from the logics and storage nodes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import slicer

_BY_ENDING = {
    ".seg.nrrd": "SegmentationFile",
    ".nii.gz": "VolumeFile",
    ".nii": "VolumeFile",
    ".nrrd": "VolumeFile",
    ".tsv": "TableFile",
    ".csv": "TableFile",
    ".mrb": "SceneFile",
    ".mrml": "SceneFile",
}


class CoreIOManager:
    """Loads and saves nodes for ``slicer.util``."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic  # name of a module -> its logic

    def fileType(self, name: str) -> str:
        for ending, kind in _BY_ENDING.items():
            if name.lower().endswith(ending):
                return kind
        raise ValueError(f"the stand-in host cannot read {name}")

    def fileWriterFileType(self, node: Any) -> str:
        return "NodeFile" if node.IsA("vtkMRMLStorableNode") else ""

    def loadNodes(self, kind: str, properties: Any, loaded: Any, messages: Any = None) -> bool:
        name = properties["fileName"]
        if kind == "SceneFile":
            return self._load_scene(name)
        if not os.path.isfile(name):
            if messages is not None:
                messages.AddMessage(slicer.vtkCommand.ErrorEvent, f"no such file: {name}")
            return False
        title = properties.get("name") or os.path.basename(name).split(".")[0]
        node = None
        if kind == "VolumeFile":
            label = 1 if properties.get("labelmap") else 0
            node = self._logic("Volumes").AddArchetypeVolume(name, title, label)
        elif kind == "SegmentationFile":
            node = self._logic("Segmentations").LoadSegmentationFromFile(name, True, title)
        elif kind == "TableFile":
            node = self._logic("Tables").AddTable(name, title)
        else:
            raise ValueError(f"the stand-in host has no reader for {kind}")
        if node is None:
            return False
        loaded.AddItem(node)
        return True

    def saveNodes(self, kind: str, properties: Any, messages: Any) -> bool:
        if kind == "SceneFile":
            return self._save_scene(properties["fileName"])
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(properties["fileName"])
        return bool(storage.WriteData(node))

    def _load_scene(self, name: str) -> bool:
        if name.endswith(".mrb"):
            return bool(slicer.mrmlScene.ReadFromMRB(name, True, None))
        slicer.mrmlScene.SetURL(name)
        return bool(slicer.mrmlScene.Connect())

    def _save_scene(self, name: str) -> bool:
        if not name.endswith(".mrb"):
            raise ValueError("the stand-in host saves scenes as .mrb only")
        folder = tempfile.mkdtemp(dir=slicer.app.temporaryPath)
        try:
            return bool(slicer.mrmlScene.WriteToMRB(name, None, None))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
