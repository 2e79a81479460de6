"""Stand-in for Slicer's module ``SampleData``: what is registered, and loading of it.

If the checkout that ``LSR_SLICER_PYTHON`` names has that module, Slicer's own is used. This one is
strict: it takes what the module gives and no more, and files of ``file:`` addresses alone.
"""

from __future__ import annotations

import importlib.util
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer
import slicer.util
import vtk

from .scripted import slicer_python


@dataclass(frozen=True)
class SampleDataSource:
    """Files that make one sample; the lists are of one length."""

    sampleName: str
    uris: list[str]
    fileNames: list[str]
    nodeNames: list[str]
    checksums: list[str]
    loadFileTypes: list[str]
    thumbnailFileName: str

    def __post_init__(self) -> None:
        lists = (self.uris, self.fileNames, self.nodeNames, self.checksums, self.loadFileTypes)
        if len({len(values) for values in lists}) != 1:
            raise ValueError("All fields of sample data source must have the same length")


class SampleDataLogic:
    """Samples by category, in ``slicer.modules.sampleDataSources``."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str,
        *,
        sampleName: str,
        uris: list[str],
        fileNames: list[str],
        nodeNames: list[str],
        checksums: list[str],
        loadFileTypes: list[str],
        thumbnailFileName: str,
    ) -> None:
        source = SampleDataSource(
            sampleName, uris, fileNames, nodeNames, checksums, loadFileTypes, thumbnailFileName
        )
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if source not in sources:
            sources.append(source)

    def downloadSamples(self, sampleName: str) -> list[Any]:
        """Load the nodes of a sample, as a click on its picture does."""
        every = [s for sources in slicer.modules.sampleDataSources.values() for s in sources]
        (source,) = (source for source in every if source.sampleName == sampleName)
        return [
            self._load(*parts)
            for parts in zip(
                source.uris,
                source.fileNames,
                source.nodeNames,
                source.checksums,
                source.loadFileTypes,
                strict=True,
            )
        ]

    def _load(self, uri: str, fileName: str, nodeName: str, checksum: str, kind: str) -> Any:
        if not uri.startswith("file:"):
            raise ValueError(f"the stand-in host is offline and cannot load {uri}")
        path = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()) / fileName
        urllib.request.urlretrieve(uri, path)
        algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
        if slicer.util.computeChecksum(algorithm, str(path)) != digest:
            raise ValueError(f"{fileName} is not what it was registered as")
        nodes = vtk.vtkCollection()
        properties = {"fileName": str(path), "name": nodeName}
        if not slicer.app.coreIOManager().loadNodes(kind, properties, nodes):
            raise ValueError(f"{fileName} cannot be loaded as {kind}")
        return nodes.GetItemAsObject(0)


def provide() -> None:
    """Make the module ``SampleData`` importable."""
    slicer.modules.sampleDataSources = {}
    package = slicer_python()
    own = package and package.parents[2] / "Modules/Scripted/SampleData/SampleData.py"
    if own and own.is_file():
        spec = importlib.util.spec_from_file_location("SampleData", own)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["SampleData"] = module
        spec.loader.exec_module(module)
        return
    module = ModuleType("SampleData", "Stand-in for Slicer's module SampleData.")
    module.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    sys.modules["SampleData"] = module
