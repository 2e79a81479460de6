"""The sample that comes with the module: in Slicer's list, whole, honest, and good to try it on."""

from __future__ import annotations

import gzip
import unittest
from typing import Any

import in_slicer
import numpy as np

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from LatentSpaceRestorationSlicer import sample_data  # noqa: E402
from SampleData import SampleDataLogic  # noqa: E402
from scene_tools import ijk, segment_ijk, to_world  # noqa: E402

RESOURCES = in_slicer.MODULE_FOLDER / "Resources"


def load() -> tuple[Any, Any]:
    """The generated brain and the lesion, from Slicer's list of samples."""
    brain, lesion = SampleDataLogic().downloadSamples(sample_data.SAMPLE)
    return brain, lesion


def lesion_ijk(brain: Any, lesion: Any) -> np.ndarray:
    segment = lesion.GetSegmentation().GetNthSegmentID(0)
    return segment_ijk(lesion, segment, brain) > 0


class TestSample(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_it_is_in_the_list_once_with_a_picture(self) -> None:
        sample_data.registerSampleData()
        (source,) = slicer.modules.sampleDataSources[sample_data.CATEGORY]
        self.assertFalse(qt.QPixmap(source.thumbnailFileName).isNull())
        self.assertTrue(all(uri.startswith("file:") for uri in source.uris), "works offline")

    def test_a_brain_with_a_lesion_in_it(self) -> None:
        brain, lesion = load()
        self.assertEqual((brain.GetName(), lesion.GetName()), ("GeneratedBrain", "GeneratedLesion"))
        inside = lesion_ijk(brain, lesion)
        values = ijk(brain)
        voxel = np.prod(brain.GetSpacing()) / 1000.0
        self.assertGreater((values > 0).sum() * voxel, 1000.0)
        self.assertTrue(5.0 < inside.sum() * voxel < 10.0)
        self.assertTrue((values[inside] > 0).all())
        self.assertLess(np.median(values[inside]), 0.7 * np.median(values[values > 0]))
        # On the patient's right, as the tutorial says.
        middle = np.argwhere(inside).mean(axis=0)
        self.assertGreater(to_world(brain, middle)[0], 10.0)

    def test_small_and_labelled_as_synthetic(self) -> None:
        files = sorted((RESOURCES / "SampleData").glob("*.nii.gz"))
        self.assertEqual(len(files), 2)
        self.assertLess(sum(file.stat().st_size for file in files), 1_500_000)
        for file in files:
            description = gzip.decompress(file.read_bytes())[148:228]  # of NIfTI's header
            self.assertIn(b"synthetic", description)


if __name__ == "__main__":
    unittest.main()
