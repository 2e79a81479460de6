"""What tests of the module's logic start from. Import it after ``in_slicer.begin()``."""

from __future__ import annotations

import unittest

import slicer
from stub_detector import NothingMissing, StubDetector

from LatentSpaceRestoration import LatentSpaceRestorationLogic


class LogicTestCase(unittest.TestCase):
    """A clean scene, and a logic with a detector that is no model."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.stub = StubDetector()
        self.logic = LatentSpaceRestorationLogic(self.stub.load, NothingMissing())
