"""A real scan that is stored another way, turned or mirrored gives the same map, in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import in_slicer
import numpy as np
import pytest
from LatentSpaceRestorationLib.datasets.subjects import Subject
from LatentSpaceRestorationLib.detection import Detection
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.synthetic.design import Case
from LatentSpaceRestorationLib.evaluation.synthetic.sources import Source, brain_finder
from LatentSpaceRestorationLib.io.images import read_volume
from LatentSpaceRestorationLib.volume import Volume
from scan_grids import ORIENTATIONS, rotation, stored_as
from scipy import ndimage
from shared_data import tune_subjects

#: What is done to an array, and then to be done to what was found without it.
Change = Callable[[np.ndarray], np.ndarray]


def agreement(first: np.ndarray, second: np.ndarray, brain: np.ndarray) -> float:
    """Correlation of two maps over the brain."""
    return float(np.corrcoef(first[brain], second[brain])[0, 1])


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two masks; 1 if both are empty."""
    total = float(first.sum() + second.sum())
    return 2.0 * float((first & second).sum()) / total if total else 1.0


def compare(expected: Detection, found: Detection, change: Change) -> dict[str, float]:
    """A copy's map and mask, and the scan's, changed as the copy is."""
    brain = change(expected.brain_mask.astype(np.float32)) >= 0.5
    values = change(expected.anomaly_map)
    return {
        "correlation": agreement(values, found.anomaly_map, brain),
        "dice": dice((values >= expected.threshold) & brain, found.anomaly_mask > 0),
        "flagged": float((found.anomaly_mask > 0).sum()),
        "brain dice": dice(brain, found.brain_mask > 0),
    }


def with_sphere(detector: Detector, subject: Subject) -> tuple[Volume, np.ndarray]:
    """A healthy scan with a bright sphere in it, and where that is."""
    source = Source([subject], [], None, 0, brain_finder(detector))
    return source.make(Case(subject.name, "uniform-sphere", 14.0, 2.5))


def turned(degrees: tuple[float, float, float], order: int = 1) -> Change:
    """Turns an array about its middle, interpolated by splines of an order."""
    turn = rotation(degrees)

    def change(array: np.ndarray) -> np.ndarray:
        middle = (np.array(array.shape) - 1) / 2.0
        offset = middle - turn @ middle
        return ndimage.affine_transform(array.astype(np.float32), turn, offset, order=order)

    return change


@pytest.mark.slow
def test_a_tune_scan_gives_the_same_map_however_it_lies() -> None:
    scan = read_volume(tune_subjects()[0].scan)
    detector = Detector.load(device="cpu")

    def detect(volume: Volume) -> Detection:
        return detector.detect(volume, restorations=1)  # the map does not depend on how many

    def report(how: str, copy: Volume, change: Change) -> dict[str, float]:
        figures[how] = compare(expected, detect(copy), change)
        print(how, json.dumps(figures[how]), flush=True)
        return figures[how]

    expected = detect(scan)
    figures: dict[str, dict[str, float]] = {}

    # Stored along other axes: the same scan, voxel by voxel.
    other = ORIENTATIONS[29]
    report(
        "stored another way",
        stored_as(scan, other),
        lambda array: stored_as(Volume(array, scan.affine), other).array,
    )
    # Turned by the header: as a patient lies who turns the head, to be undone by nobody.
    turn = np.eye(4)
    turn[:3, :3] = rotation((3.0, -3.0, 5.0))
    report("turned", replace(scan, affine=turn @ scan.affine), lambda array: array)
    # Mirrored from left to right, in the array; the axis that runs so is found by the affine.
    axis = int(np.abs(scan.affine[0, :3]).argmax())
    report(
        "mirrored",
        replace(scan, array=np.flip(scan.array, axis).copy()),
        lambda array: np.flip(array, axis),
    )
    for how, found in figures.items():
        assert found["correlation"] >= 0.95, (how, found)
        assert found["dice"] >= 0.8, (how, found)

    # Turned in the array, with linear interpolation, which blurs: of a scan with something in it.
    # A healthy map is all noise, and nothing is above the threshold.
    scan, _ = with_sphere(detector, tune_subjects()[0])
    expected = detect(scan)
    for order in (1, 3):
        found = report(
            f"turned and interpolated, splines of order {order}",
            replace(scan, array=turned((4.0, -6.0, 8.0), order)(scan.array)),
            turned((4.0, -6.0, 8.0)),
        )
        assert found["flagged"] > 1000
        assert found["correlation"] >= 0.95
        assert found["dice"] >= 0.8
        assert found["brain dice"] >= 0.97
    (in_slicer.output_folder() / "mirrored.json").write_text(json.dumps(figures, indent=2))
