"""Many scans from Slicer's console."""

from __future__ import annotations

import importlib.util
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import in_slicer

in_slicer.begin()

import slicer  # noqa: E402
from LatentSpaceRestorationLib.errors import Cancelled  # noqa: E402
from LatentSpaceRestorationSlicer import cohorts  # noqa: E402
from LatentSpaceRestorationSlicer.installation import MissingPackagesError  # noqa: E402
from scene_tools import node_ids  # noqa: E402
from stub_detector import NothingMissing  # noqa: E402

from LatentSpaceRestoration import LatentSpaceRestorationLogic  # noqa: E402

NEEDED = ("torch", "nibabel", "PIL", "skimage")


@unittest.skipIf(
    any(importlib.util.find_spec(name) is None for name in NEEDED), "a package is not installed"
)
class TestCohort(unittest.TestCase):
    """With a real detector, whose small networks are untrained."""

    @classmethod
    def setUpClass(cls) -> None:
        from LatentSpaceRestorationLib.io.images import write_volume
        from tiny_model import generated_brain, write_tiny_model

        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.model = str(write_tiny_model(cls.folder))
        cls.scans = cls.folder / "scans"
        cls.scans.mkdir()
        for seed in range(2):
            write_volume(cls.scans / f"s{seed}.nii", generated_brain(seed=seed))
        (cls.scans / "bad.nii").write_text("no image")
        cls.logic = LatentSpaceRestorationLogic(packages=NothingMissing())

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def detect(self, **options: object) -> cohorts.CohortResult:
        common = {"model": self.model, "restorations": 1, "device": "cpu"}
        return self.logic.detectCohort(self.folder / self.id(), self.scans, **common, **options)

    def test_rows_table_and_going_on(self) -> None:
        asked: list[float] = []

        def second() -> bool:
            """In the midst of the second scan that is done."""
            return bool(asked) and asked[-1] > 0.8

        def take(fraction: float, message: str) -> None:
            asked.append(fraction)

        before = node_ids()
        with self.assertRaises(Cancelled):
            self.detect(progress=take, isCancelled=second)
        self.assertEqual(node_ids(), before)

        asked.clear()
        result = self.detect(progress=take)
        self.assertEqual([row.id for row in result.rows], ["bad", "s0", "s1"])
        self.assertEqual([row.status for row in result.rows], ["failed", "done", "done"])
        self.assertEqual(asked, sorted(asked))
        self.assertGreaterEqual(asked[0], 1 / 3)  # of three, one was done before
        self.assertEqual(asked[-1], 1.0)

        table = result.table.GetTable()
        self.assertEqual(result.table.GetName(), "scores")
        self.assertEqual(table.GetNumberOfRows(), 3)
        self.assertEqual(table.GetColumnByName("id").GetValue(1), "s0")
        self.assertEqual(table.GetColumnByName("score").GetValue(1), result.rows[1].score)
        self.assertIn("is not an image", table.GetColumnByName("reason").GetValue(0))
        score = table.GetColumnByName("score").GetValue(0)
        self.assertNotEqual(score, score, "not a number")

        volume = slicer.util.loadVolume(str(self.scans / "s0.nii"))
        alone = self.logic.detect(volume, model=self.model, restorations=1, device="cpu")
        self.assertAlmostEqual(alone.sampleScore, result.rows[1].score, places=5)

    def test_missing_packages_are_named_with_how_to_install_them(self) -> None:
        with mock.patch.object(cohorts, "missingPackages", return_value=["nibabel>=5.2"]):
            with self.assertRaises(MissingPackagesError) as raised:
                self.detect()
            self.assertIn("slicer.util.pip_install(['nibabel>=5.2'])", str(raised.exception))
        with (
            mock.patch.object(cohorts, "_isInstalled", return_value=False),
            self.assertRaises(MissingPackagesError) as raised,
        ):
            self.detect(jobs=2)
        self.assertIn("distributed", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
