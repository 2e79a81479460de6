"""The whole way with a real detector."""

from __future__ import annotations

import importlib.util
import tempfile
import unittest
from pathlib import Path

import in_slicer
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
from LatentSpaceRestorationLib.detection import Estimate  # noqa: E402
from LatentSpaceRestorationLib.errors import BundleError, Cancelled, InputError  # noqa: E402
from LatentSpaceRestorationSlicer.scene import nodes  # noqa: E402
from scene_tools import (  # noqa: E402
    add_volume,
    affine,
    ijk,
    node_ids,
    rotation,
    same_geometry,
    scan,
    segment_ijk,
)
from stub_detector import NothingMissing  # noqa: E402

from LatentSpaceRestoration import LatentSpaceRestorationLogic  # noqa: E402


@unittest.skipIf(importlib.util.find_spec("torch") is None, "torch is not installed")
class TestWithNetworks(unittest.TestCase):
    """The whole way with a real detector, whose small networks are untrained."""

    @classmethod
    def setUpClass(cls) -> None:
        from tiny_model import write_tiny_model

        cls.folder = tempfile.TemporaryDirectory()
        cls.model = str(write_tiny_model(Path(cls.folder.name)))
        cls.logic = LatentSpaceRestorationLogic(packages=NothingMissing())

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_nodes_hold_what_the_library_gives(self) -> None:
        from LatentSpaceRestorationLib.detector import Detector
        from tiny_model import generated_brain

        oblique = affine(rotation((1, 2, 3), 20) @ np.diag([1, -1, 1]), (4, 4, 4), (0, 0, 0))
        head = generated_brain((48, 52, 44), oblique)
        volume = add_volume(head.array, head.affine)
        reports: list[tuple[float, str]] = []
        result = self.logic.detect(
            volume,
            model=self.model,
            restorations=2,
            seed=3,
            progress=lambda fraction, message: reports.append((fraction, message)),
        )
        wanted = Detector.load(self.model).detect(head, restorations=2, seed=3)
        np.testing.assert_allclose(ijk(result.anomalyMap), wanted.anomaly_map, atol=1e-4)
        np.testing.assert_allclose(ijk(result.restoration), wanted.restoration, atol=1e-2)
        self.assertGreater(ijk(result.anomalyMap).max(), 0.0)
        self.assertEqual(same_geometry(volume, result.anomalyMap), "")
        fractions = [fraction for fraction, _ in reports]
        self.assertEqual(fractions, sorted(fractions))
        self.assertEqual(fractions[-1], 1.0)
        # The threshold that the model was calibrated with, and another.
        self.assertEqual(result.detection.threshold_percentile, 99.0)
        self.logic.setThreshold(result, 70.0)
        value = result.detector.model.threshold_value(70.0, mode="default", restorations=2)
        inside = segment_ijk(result.segmentation, nodes.SEGMENT_ID, volume)
        np.testing.assert_array_equal(inside, ijk(result.anomalyMap) >= value)

    def test_estimates_lead_to_the_result(self) -> None:
        from LatentSpaceRestorationSlicer.panel.preview import GrowingMap
        from tiny_model import generated_brain

        head = generated_brain()
        volume = add_volume(head.array, head.affine)
        growing = GrowingMap(volume)
        maps: list[np.ndarray] = []
        spreads: list[np.ndarray] = []

        def show(estimate: Estimate) -> None:
            detection = estimate.detection()
            growing.show(detection.anomaly_map, detection.threshold)
            maps.append(detection.anomaly_map)
            spreads.append(detection.restoration_sd)

        result = self.logic.detect(volume, model=self.model, restorations=3, onEstimate=show)
        growing.remove()
        # The first of a masked prior comes before anything is restored.
        self.assertEqual(len(maps), 3)
        self.assertFalse(spreads[0].any())
        # The map itself need not change: that is up to the model's kind of prior.
        self.assertFalse(np.array_equal(spreads[1], spreads[2]))
        np.testing.assert_array_equal(maps[2], ijk(result.anomalyMap))
        short = self.logic.detect(volume, model=self.model, restorations=3, timeBudget=1e-3)
        self.assertEqual(short.detection.restorations, 1)
        np.testing.assert_allclose(ijk(short.anomalyMap), maps[0], atol=1e-4)
        self.assertTrue(any("time budget" in warning for warning in short.warnings))

    def test_cancel_leaves_the_scene_as_it_was(self) -> None:
        from tiny_model import generated_brain

        head = generated_brain()
        volume = add_volume(head.array, head.affine)
        before = node_ids()
        reached: list[float] = []
        with self.assertRaises(Cancelled):
            self.logic.detect(
                volume,
                model=self.model,
                restorations=2,
                progress=lambda fraction, _: reached.append(fraction),
                isCancelled=lambda: bool(reached) and reached[-1] > 0.3,
            )
        self.assertEqual(node_ids(), before)

    def test_unknown_model(self) -> None:
        volume = add_volume(scan(), np.eye(4))
        before = node_ids()
        with self.assertRaisesRegex(BundleError, "there is no model no-such-model"):
            self.logic.detect(volume, model="no-such-model")
        self.assertEqual(node_ids(), before)

    def test_a_scan_without_a_brain_is_refused(self) -> None:
        before = node_ids()
        volume = add_volume(np.full((20, 20, 20), 3.0, np.float32), np.diag([4, 4, 4, 1.0]))
        with self.assertRaises(InputError):
            self.logic.detect(volume, model=self.model)
        slicer.mrmlScene.RemoveNode(volume)
        self.assertEqual(node_ids(), before)


if __name__ == "__main__":
    unittest.main()
