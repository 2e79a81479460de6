"""Anomalies put into healthy scans, and the figures of a detector that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LatentSpaceRestorationLib.detection import Detection
from LatentSpaceRestorationLib.evaluation.spheres import Case, summarise
from LatentSpaceRestorationLib.evaluation.synthetic import Sphere, paint_sphere, random_sphere
from LatentSpaceRestorationLib.volume import Volume
from scan_grids import ORIENTATIONS, ScanGrid, rotation


def oblique_scan() -> tuple[Volume, np.ndarray, ScanGrid]:
    """Noise, a ball of brain of 60 mm radius, on an oblique left-handed anisotropic grid."""
    affine = np.eye(4)
    affine[:3, :3] = rotation((8.0, -12.0, 20.0)) @ ORIENTATIONS[1] * [2.0, 3.0, 4.0]
    affine[:3, 3] = [10.0, -20.0, 30.0]
    grid = ScanGrid((66, 44, 34), affine)
    brain = np.linalg.norm(grid.positions() - grid.centre, axis=-1) <= 60.0
    noise = np.random.default_rng(0).normal(500.0, 50.0, grid.shape).astype(np.float32)
    return Volume(noise, affine), brain, grid


@pytest.mark.parametrize("seed", range(6))
def test_spheres_lie_in_the_brain_half_dark_half_bright(seed: int) -> None:
    volume, brain, grid = oblique_scan()
    sphere = random_sphere(volume, brain, seed)
    assert np.linalg.norm(np.array(sphere.centre) - grid.centre) <= 60.0 - 6.0 + 4.0
    assert 10.0 <= sphere.radius_mm <= 30.0
    assert 1.2 <= abs(sphere.contrast) <= 3.0
    assert (sphere.contrast < 0) == bool(seed % 2)
    assert random_sphere(volume, brain, seed) == sphere
    assert random_sphere(volume, brain, seed + 6) != sphere


@pytest.mark.parametrize("contrast", [2.0, -2.0])
def test_a_painted_sphere_is_where_its_label_says(contrast: float) -> None:
    volume, brain, grid = oblique_scan()
    x, y, z = (float(c) for c in grid.centre + np.array([10.0, 5.0, -8.0]))
    before = volume.array.copy()
    painted, label = paint_sphere(volume, brain, Sphere((x, y, z), 15.0, contrast))
    np.testing.assert_array_equal(volume.array, before)
    np.testing.assert_array_equal(painted.array != before, label)
    assert painted.affine is volume.affine
    distance = np.linalg.norm(grid.positions() - [x, y, z], axis=-1)
    np.testing.assert_array_equal(label, distance <= 15.0)
    millilitres = label.sum() * volume.voxel_volume_ml
    assert millilitres == pytest.approx(4.0 / 3.0 * np.pi * 1.5**3, rel=0.05)
    np.testing.assert_allclose(painted.array[label], 500.0 + contrast * 50.0, atol=5.0)


def test_a_sphere_does_not_leave_the_brain_nor_get_darker_than_the_scan() -> None:
    volume, brain, grid = oblique_scan()
    x, y, z = (float(c) for c in grid.centre + np.array([50.0, 0.0, 0.0]))
    painted, label = paint_sphere(volume, brain, Sphere((x, y, z), 20.0, -30.0))
    assert not label[~brain].any()
    np.testing.assert_array_equal(painted.array[~brain], volume.array[~brain])
    assert (painted.array[label] == volume.array.min()).all()


def detection(score: float, values: np.ndarray, threshold: float) -> Detection:
    """A result with a given score and map, the brain being everything."""
    mask = (values >= threshold).astype(np.uint8)
    whole = np.ones(values.shape, np.uint8)
    return Detection(
        *(values, mask, values, values, whole),
        sample_score=score,
        percentile=50.0,
        p_value=0.5,
        threshold=threshold,
        threshold_percentile=99.0,
        slice_scores=(),
        healthy_scans=20,
        model="m",
        mode="default",
        method="lsr",
        restorations=1,
        seed=0,
        device="cpu",
        warnings=(),
        seconds={"all": 1.0},
        version="0",
    )


def cases_of(healthy: list[float], painted: list[float]) -> list[Case]:
    """Cases with those scores; the maps are the labels, and a little noise."""
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    cases = []
    for number, score in enumerate(healthy + painted):
        label = np.zeros((10, 10, 10), bool)
        if number >= len(healthy):
            label[2:6, 3:7, 4:8] = True
        values = (label * 2.0 + random.uniform(0.0, 1.0, label.shape)).astype(np.float32)
        sphere = Sphere((0.0, 0.0, 0.0), 5.0, 1.0) if label.any() else None
        cases.append(Case(f"S{number}", sphere, detection(score, values, 1.5), label))
    return cases


def test_a_perfect_detector_gets_perfect_figures() -> None:
    figures = summarise(cases_of([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]))
    for key in ("sample_auroc", "sample_ap", "pooled_ap", "pooled_auroc", "hit_rate"):
        assert figures[key] == pytest.approx(1.0), key
    assert figures["dice_calibrated_median"] == figures["dice_best_median"] == 1.0
    assert figures["healthy_flagged_median"] == 0.0
    assert figures["scans"] == len(figures["cases"]) == 6


def test_scores_that_do_not_order_the_scans_get_half() -> None:
    figures = summarise(cases_of([1.0, 4.0], [1.0, 4.0]))
    assert figures["sample_auroc"] == 0.5


def test_a_map_that_misses_the_lesion_is_told_from_one_that_hits() -> None:
    cases = cases_of([1.0], [2.0])
    missed = replace(cases[1], label=np.roll(cases[1].label, 4, axis=0))
    figures = summarise([cases[0], missed])
    assert figures["hit_rate"] == 0.0
    assert figures["dice_calibrated_median"] == 0.0
    assert figures["pooled_ap"] < 0.2


def test_what_is_flagged_in_healthy_scans_is_told() -> None:
    cases = cases_of([1.0], [2.0])
    flagged = replace(cases[0].detection, anomaly_mask=cases[1].detection.anomaly_mask)
    figures = summarise([replace(cases[0], detection=flagged), cases[1]])
    assert figures["healthy_flagged_median"] == pytest.approx(0.064)
