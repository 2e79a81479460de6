"""What lies around a real head changes nothing, given as a volume or as a node of a scene."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import in_slicer
import numpy as np
import pytest
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy
from LatentSpaceRestorationLib.io.images import read_mask, read_volume
from LatentSpaceRestorationLib.volume import Volume
from shared_data import tune_subjects

in_slicer.begin()

import slicer  # noqa: E402
from scene_tools import add_volume  # noqa: E402

from LatentSpaceRestoration import LatentSpaceRestorationLogic  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "Benchmarks"))
from surroundings_conditions import HEADS  # noqa: E402

CONDITIONS = {c.name: c for c in HEADS}


@pytest.fixture(scope="module")
def head() -> Healthy:
    """A healthy head that was neither trained nor calibrated on, with its given brain."""
    subject = tune_subjects()[0]
    assert subject.mask is not None
    volume = read_volume(subject.scan)
    return Healthy(volume, read_mask(subject.mask, volume))


def through_slicer(volume: Volume) -> tuple[Any, np.ndarray]:
    """The result and the anomaly map, (I, J, K), of a node of a scene."""
    slicer.mrmlScene.Clear(0)
    node = add_volume(np.asarray(volume.array), volume.affine, "Head")
    result = LatentSpaceRestorationLogic().detect(node, device="cpu", restorations=1)
    return result, slicer.util.arrayFromVolume(result.anomalyMap).transpose(2, 1, 0).copy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["padded by 40 mm", "frame of -1024", "32767 outside a cylinder", "256 cubed, 8 bits"]
)
def test_what_lies_around_a_head_changes_nothing(head: Healthy, name: str) -> None:
    detector = Detector.load("brain-t1", "cpu")
    plain = detector.detect(head.volume, restorations=1)
    changed = CONDITIONS[name].change(head)
    found = detector.detect(changed.volume, restorations=1)
    plain_ml = plain.brain_mask.sum() * head.volume.voxel_volume_ml
    found_ml = found.brain_mask.sum() * changed.volume.voxel_volume_ml
    assert found_ml == pytest.approx(plain_ml, rel=0.02)
    assert found.sample_score == pytest.approx(plain.sample_score, rel=0.1, abs=0.2)
    result, values = through_slicer(changed.volume)
    np.testing.assert_array_equal(values, found.anomaly_map)
    assert result.sampleScore == found.sample_score
