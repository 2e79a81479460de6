"""The module's sample in Slicer's list of samples; it comes with the module, and needs no network."""

from __future__ import annotations

import hashlib
from pathlib import Path

from slicer.i18n import tr as _

CATEGORY = "LatentSpaceRestoration"
SAMPLE = "GeneratedBrain"
#: Name of each file and node, and how it is read.
_FILES = {"GeneratedBrain": "VolumeFile", "GeneratedLesion": "SegmentationFile"}


def registerSampleData() -> None:
    """Offer a generated brain with a painted lesion, and the lesion."""
    from SampleData import SampleDataLogic

    resources = Path(__file__).parents[1] / "Resources"
    files = [resources / "SampleData" / f"{name}.nii.gz" for name in _FILES]
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
        thumbnailFileName=str(resources / "Icons" / f"{SAMPLE}.png"),
    )
