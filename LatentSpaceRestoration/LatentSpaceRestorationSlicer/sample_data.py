"""The module's sample in Slicer's list of samples, which comes with it and needs no network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

_RESOURCES = Path(__file__).parents[1] / "Resources"
CATEGORY = "LatentSpaceRestoration"
SAMPLE = "GeneratedBrain"
#: Name of each file and node, and how it is read.
_FILES = {"GeneratedBrain": "VolumeFile", "GeneratedLesion": "SegmentationFile"}


def registerSampleData() -> None:
    """Offer a generated brain with a painted lesion, and the lesion."""
    from SampleData import SampleDataLogic

    files = [_file(name) for name in _FILES]
    # Titles of categories came with Slicer 5.11.
    if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):
        SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, _("Latent Space Restoration"))
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE,
        uris=[file.as_uri() for file in files],
        fileNames=[file.name for file in files],
        nodeNames=list(_FILES),
        checksums=[f"SHA256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files],
        loadFileTypes=list(_FILES.values()),
        thumbnailFileName=str(_RESOURCES / "Icons" / f"{SAMPLE}.png"),
    )


def loadSample() -> vtkMRMLScalarVolumeNode:
    """Load the generated brain alone, without the list of samples."""
    return slicer.util.loadVolume(str(_file(SAMPLE)), {})


def _file(name: str) -> Path:
    return _RESOURCES / "SampleData" / f"{name}.nii.gz"
