"""The sample that comes with the module: in Slicer's list, whole, honest, and good to try it on."""

from __future__ import annotations

import importlib.util
import time
import unittest
from typing import Any

import in_slicer
import numpy as np
import pytest

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from LatentSpaceRestorationSlicer import sample_data  # noqa: E402
from LatentSpaceRestorationSlicer.installation import Packages  # noqa: E402
from LatentSpaceRestorationSlicer.task import loadInstalledDetector  # noqa: E402
from panel_case import PanelTestCase, click  # noqa: E402
from SampleData import SampleDataLogic  # noqa: E402
from scene_tools import ijk, same_geometry, segment_ijk, to_world  # noqa: E402

RESOURCES = in_slicer.MODULE_FOLDER / "Resources"
HAS_TORCH = importlib.util.find_spec("torch") is not None


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
        nibabel = pytest.importorskip("nibabel")
        for file in files:
            self.assertIn(b"synthetic", bytes(nibabel.load(file).header["descrip"]))


@pytest.mark.slow
@unittest.skipUnless(HAS_TORCH, "torch is not installed")
class TestWithTheModel(PanelTestCase):
    """What the tutorial does, with the shipped model."""

    def setUp(self) -> None:
        super().setUp()
        self.widget.logic.packages = Packages(RESOURCES / "requirements.txt")
        self.widget.logic.loadDetector = loadInstalledDetector
        slicer.mrmlScene.RemoveNode(self.volume)
        self.brain, self.lesion = load()
        self.ui.inputVolumeSelector.setCurrentNode(self.brain)
        self.parameters.restorations = 3

    def test_the_lesion_is_the_first_region(self) -> None:
        click(self.ui.detectButton)
        result = self.widget.resultSection.shown
        self.assertEqual(same_geometry(self.brain, result.anomalyMap), "")
        inside = lesion_ijk(self.brain, self.lesion)
        self.assertGreater(result.flagged()[inside].mean(), 0.8)
        self.assertTrue(inside[self.widget.resultSection.regions.regions[0].index])
        self.assertIn("More unusual than all", self.ui.wordsLabel.text)

    def test_cancel_within_a_second(self) -> None:
        """From when the button is pressed until it can be pressed again, at several moments."""
        for moment in (0.1, 0.5, 1.5, 4.0, 8.0):
            with self.subTest(moment):
                self.assertLess(self.seconds_to_cancel(moment), 1.0)
                self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
                self.assertTrue(self.ui.detectButton.enabled)

    def seconds_to_cancel(self, moment: float) -> float:
        """Begin a detection, press Cancel after so many seconds, and measure until it is over."""
        pressed: list[float] = []
        began = time.monotonic()

        def press() -> None:
            late = time.monotonic() - began >= moment
            if late and self.widget._run is not None and not pressed:
                pressed.append(time.monotonic())
                click(self.ui.detectButton)

        timer = qt.QTimer()
        timer.connect("timeout()", press)
        timer.start(10)
        click(self.ui.detectButton)
        ended = time.monotonic()
        timer.stop()
        self.assertTrue(pressed, "it was done before")
        return ended - pressed[0]


if __name__ == "__main__":
    unittest.main()
