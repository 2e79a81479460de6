"""A real scan that is stored another way, turned or mirrored gives the same map, in its place."""

from __future__ import annotations

import json

import in_slicer
import numpy as np
import pytest
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.io import read_mask, read_volume
from LatentSpaceRestorationLib.volume import Volume
from scan_grids import ORIENTATIONS, rotation, stored_as
from test_trained_model import tune_subjects


def agreement(first: np.ndarray, second: np.ndarray, brain: np.ndarray) -> float:
    """Correlation of two maps over the brain."""
    return float(np.corrcoef(first[brain], second[brain])[0, 1])


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two masks; 1 if both are empty."""
    total = float((first > 0).sum() + (second > 0).sum())
    return 2.0 * float(((first > 0) & (second > 0)).sum()) / total if total else 1.0


@pytest.mark.slow
def test_a_tune_scan_gives_the_same_map_however_it_lies() -> None:
    subject = tune_subjects()[0]
    scan = read_volume(subject.scan)
    assert subject.mask is not None
    brain = read_mask(subject.mask, scan)
    detector = Detector.load(device="cpu")
    expected = detector.detect(scan, brain_mask=brain)
    figures = {}

    # Stored along other axes: the same scan, voxel by voxel.
    other = ORIENTATIONS[29]
    found = detector.detect(
        stored_as(scan, other),
        brain_mask=stored_as(Volume(brain, scan.affine), other).array,
    )
    for name, array in (("map", expected.anomaly_map), ("mask", expected.anomaly_mask)):
        there = stored_as(Volume(array, scan.affine), other).array
        np.testing.assert_allclose(getattr(found, f"anomaly_{name}"), there, atol=1e-3)

    # Turned by the header: as a patient lies who turns the head, to be undone by nobody.
    turn = np.eye(4)
    turn[:3, :3] = rotation((3.0, -3.0, 5.0))
    found = detector.detect(Volume(scan.array, turn @ scan.affine), brain_mask=brain)
    figures["turned"] = (
        agreement(expected.anomaly_map, found.anomaly_map, brain),
        dice(expected.anomaly_mask, found.anomaly_mask),
    )

    # Mirrored from left to right, in the array; the axis that runs so is found by the affine.
    axis = int(np.abs(scan.affine[0, :3]).argmax())
    found = detector.detect(
        Volume(np.flip(scan.array, axis).copy(), scan.affine),
        brain_mask=np.flip(brain, axis).copy(),
    )
    figures["mirrored"] = (
        agreement(expected.anomaly_map, np.flip(found.anomaly_map, axis), brain),
        dice(expected.anomaly_mask, np.flip(found.anomaly_mask, axis)),
    )
    report = {how: {"correlation": r, "dice": d} for how, (r, d) in figures.items()}
    print(json.dumps(report))
    (in_slicer.output_folder() / "mirrored.json").write_text(json.dumps(report, indent=2))
    for how, (correlation, overlap) in figures.items():
        assert correlation >= 0.95, (how, report)
        assert overlap >= 0.8, (how, report)
