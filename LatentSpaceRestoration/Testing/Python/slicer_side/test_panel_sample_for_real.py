"""What the tutorial does, with the shipped model and the sample. Slow."""

from __future__ import annotations

import importlib.util
import time
import unittest

import in_slicer
import pytest

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from LatentSpaceRestorationSlicer.installation import Packages  # noqa: E402
from LatentSpaceRestorationSlicer.task import loadInstalledDetector  # noqa: E402
from panel_case import PanelTestCase, click  # noqa: E402
from scene_tools import same_geometry  # noqa: E402
from test_panel_sample import RESOURCES, lesion_ijk, load  # noqa: E402

HAS_TORCH = importlib.util.find_spec("torch") is not None
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@unittest.skipUnless(HAS_TORCH, "torch is not installed")
class TestWithTheModel(PanelTestCase):
    """The generated brain is chosen; three restorations."""

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
        """Begin a detection, press Cancel after so many seconds, and measure until it is over.

        On a machine that is busy with other things, the processor's time is what is measured.
        """
        pressed: list[float] = []
        began = time.monotonic()

        def press() -> None:
            late = time.monotonic() - began >= moment
            if late and self.widget._run is not None and not pressed:
                pressed.extend((time.monotonic(), time.process_time()))
                click(self.ui.detectButton)

        timer = qt.QTimer()
        timer.connect("timeout()", press)
        timer.start(10)
        click(self.ui.detectButton)
        ended = time.monotonic(), time.process_time()
        timer.stop()
        self.assertTrue(pressed, "it was done before")
        return min(end - start for end, start in zip(ended, pressed, strict=True))
