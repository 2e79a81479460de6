"""From healthy scans to a calibrated model that detects."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
from LatentSpaceRestorationLib.bundle import read_bundle, write_bundle
from LatentSpaceRestorationLib.calibration import PlaceStatistics, PlaceSums
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.scoring import (
    PAPER,
    ModeSettings,
    anomaly_map,
    feature_maps,
    sample_score,
)
from LatentSpaceRestorationLib.training.calibrate import (
    HealthyScan,
    calibrate_mode,
    code_quantiles,
    to_files,
)
from LatentSpaceRestorationLib.volume import Volume
from tiny_model import generated_brain

SETTINGS = ModeSettings(restore_percentile=70.0, slice_percentile=95.0)


def silent(_: str) -> None:
    """Takes a line of text."""


def healthy(seed: int) -> Volume:
    """A generated brain."""
    return generated_brain((44, 52, 10), seed=seed)


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    """The tiny model."""
    return Detector.load(tiny_model, "cpu")


@pytest.fixture(scope="module")
def scans(detector: Detector) -> list[HealthyScan]:
    """Five generated brains, read."""
    found = []
    for seed in range(5):
        prepared, _ = detector.prepare(healthy(seed))
        found.append(HealthyScan(f"H{seed}", prepared, detector.read(prepared)))
    return found


def test_a_calibrated_model_detects(
    detector: Detector, scans: list[HealthyScan], tmp_path: Path
) -> None:
    modes = {
        "default": calibrate_mode(detector, scans, SETTINGS, restorations=2, report=silent),
        "paper": calibrate_mode(detector, scans, PAPER, restorations=2, report=silent),
    }
    data, places = to_files([s.name for s in scans], code_quantiles(scans), modes)
    bundle = read_bundle(detector.bundle.folder)
    tensors = {f: bundle.tensors(f) for f in ("vqvae.safetensors", "prior.safetensors")}
    tensors["place.safetensors"] = places
    config = {**bundle.config, "name": "mine", "scoring": {"restore_percentile": 70.0}}
    written = write_bundle(tmp_path / "mine", config, tensors, data)
    loaded = Detector.load(written.folder, "cpu")

    codes = np.concatenate([s.reading.nll[s.reading.brain] for s in scans])
    calibration = loaded.calibration()
    assert (codes > calibration.restore_threshold).mean() == pytest.approx(0.3, abs=0.01)
    assert (codes > calibration.slice_threshold).mean() == pytest.approx(0.05, abs=0.01)
    assert [level.restorations for level in calibration.levels] == [1, 2]
    assert all(len(level.sample_scores) == 5 for level in calibration.levels)
    assert written.calibration["scans"] == [f"H{seed}" for seed in range(5)]

    for mode in ("default", "paper"):
        found = loaded.detect(healthy(9), mode=mode, restorations=2)
        assert found.healthy_scans == 5
        assert 1 / 6 <= found.p_value <= 1.0
        assert np.isfinite(found.sample_score)
        assert found.anomaly_map.max() > 0
        # One in a hundred healthy brain voxels is marked, or so.
        share = found.anomaly_mask.sum() / found.brain_mask.sum()
        assert share < 0.1


def test_a_scans_score_leaves_its_own_values_out(
    detector: Detector, scans: list[HealthyScan]
) -> None:
    calibration, places = calibrate_mode(detector, scans, SETTINGS, restorations=1, report=silent)
    spacing = detector.grid.spacing_mm
    maps = []
    for scan in scans:
        ((averages, _),) = detector.restorations(
            scan.prepared, scan.reading, SETTINGS, calibration.restore_threshold, 1, seed=0
        )
        maps.append(feature_maps(scan.prepared, averages, SETTINGS, spacing))

    def usual(members: list[int], name: str) -> PlaceStatistics:
        sums = [
            PlaceSums.of(maps[i][name], scans[i].prepared.mask, scans[i].prepared.position)
            for i in members
        ]
        return PlaceStatistics.from_sums(reduce(add, sums))

    expected = []
    for left_out in range(5):
        others = [i for i in range(5) if i != left_out]
        scan = scans[left_out]
        values = anomaly_map(
            scan.prepared,
            maps[left_out],
            SETTINGS,
            {name: usual(others, name) for name in maps[0]},
        )
        expected.append(
            sample_score(values, scan.prepared.mask, scan.reading.nll, 0.0, SETTINGS, spacing)
        )
    (level,) = calibration.levels
    assert level.sample_scores == pytest.approx(sorted(expected), rel=1e-3)
    for name, place in places.items():
        np.testing.assert_allclose(place.mean, usual(list(range(5)), name).mean, atol=1e-5)


def test_fewer_than_five_healthy_scans_are_refused(
    detector: Detector, scans: list[HealthyScan]
) -> None:
    with pytest.raises(InputError, match="4 healthy scans are too few"):
        calibrate_mode(detector, scans[:4], SETTINGS)
