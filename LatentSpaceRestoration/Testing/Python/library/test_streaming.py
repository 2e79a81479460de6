"""The score first, then a map that sharpens with every group of restorations."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.calibration.quantiles import Quantiles
from LatentSpaceRestorationLib.detection import Estimate
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import Cancelled
from LatentSpaceRestorationLib.inference import latent_model
from LatentSpaceRestorationLib.model import Model
from LatentSpaceRestorationLib.runtime.progress import RunControl
from LatentSpaceRestorationLib.volume import Volume
from tiny_model import generated_brain


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    bundle = read_bundle(tiny_model)
    return Detector(Model.load(bundle), None, 2.0)


@pytest.fixture(scope="module")
def scan() -> Volume:
    return generated_brain((44, 52, 12))


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_every_estimate_is_what_a_run_of_so_many_restorations_gives(
    detector: Detector, scan: Volume, mode: str
) -> None:
    estimates = list(detector.stream(scan, mode=mode, restorations=6, seed=2))
    assert {e.wanted for e in estimates} == {6}
    assert all(a.seconds < b.seconds for a, b in pairwise(estimates))
    if mode == "default":  # its map needs no restoration
        first, *estimates = estimates
        assert (first.restorations, first.is_last) == (0, False)
        assert first.sample_score == estimates[0].sample_score
        found, next_found = first.detection(), estimates[0].detection()
        np.testing.assert_array_equal(found.anomaly_map, next_found.anomaly_map)
        np.testing.assert_array_equal(found.anomaly_mask, next_found.anomaly_mask)
        np.testing.assert_array_equal(found.restoration, scan.array)
        assert first.changes_map
    assert [e.restorations for e in estimates] == [1, 3, 6]
    assert all(e.changes_map == (mode == "paper") for e in estimates)
    assert [e.is_last for e in estimates] == [False, False, True]
    for estimate in estimates:
        alone = detector.detect(scan, mode=mode, restorations=estimate.restorations, seed=2)
        found = estimate.detection()
        assert found.restorations == alone.restorations == estimate.restorations
        np.testing.assert_allclose(found.anomaly_map, alone.anomaly_map, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.restoration_sd, alone.restoration_sd, atol=1e-4)
        assert estimate.sample_score == pytest.approx(alone.sample_score, rel=1e-5)
        assert (estimate.percentile, estimate.p_value) == (alone.percentile, alone.p_value)
        assert estimate.slice_scores == found.slice_scores


def test_detect_hands_out_each_estimate_and_gives_the_last(
    detector: Detector, scan: Volume
) -> None:
    seen: list[Estimate] = []
    found = detector.detect(scan, restorations=4, estimate=seen.append)
    assert [e.restorations for e in seen] == [0, 1, 3, 4]
    assert found.sample_score == seen[-1].sample_score
    assert 0.0 < found.seconds["first_score"] < sum(found.seconds.values())
    assert not found.warnings or not any("budget" in warning for warning in found.warnings)


def test_progress_never_goes_back_and_ends_at_1(detector: Detector, scan: Volume) -> None:
    fractions: list[float] = []
    detector.detect(scan, restorations=5, progress=lambda done, message: fractions.append(done))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(detector: Detector, scan: Volume, threads: int) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for number in (2, threads):
            torch.set_num_threads(number)
            found.append(detector.detect(scan, restorations=4))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[1].anomaly_map, found[0].anomaly_map)
    np.testing.assert_array_equal(found[1].restoration, found[0].restoration)
    assert found[1].sample_score == found[0].sample_score


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_and_threads_do_not_change_the_map(
    tiny_model: Path, scan: Volume, chunk: int, threads: int
) -> None:
    bundle = read_bundle(tiny_model)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = Detector(Model.load(bundle), None, 2.0).detect(scan, restorations=4)
        torch.set_num_threads(threads)
        networks = latent_model.LatentModel.load(bundle)
        networks.placement = latent_model.Placement("cpu", dict.fromkeys(latent_model.SIZES, chunk))
        found = Detector(Model(bundle, networks), None, 2.0).detect(scan, restorations=4)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-5)
    assert found.sample_score == pytest.approx(expected.sample_score, abs=1e-5)


def test_a_spent_budget_still_gives_one_restoration_and_says_so(
    detector: Detector, scan: Volume
) -> None:
    found = detector.detect(scan, restorations=9, time_budget=1e-3)
    assert found.restorations == 1
    (line,) = [warning for warning in found.warnings if "budget" in warning]
    assert "0.001 s" in line
    assert "1 of 9" in line
    plenty = detector.detect(scan, restorations=3, time_budget=1000.0)
    assert plenty.restorations == 3
    assert not any("budget" in warning for warning in plenty.warnings)
    with pytest.raises(ValueError, match="time budget"):
        detector.detect(scan, time_budget=0.0)


def test_a_budget_makes_as_many_as_fit() -> None:
    course = RunControl(budget=0.5)
    made = 0
    for group in course.groups(100):
        time.sleep(0.05 * len(group))
        made += len(group)
    assert 5 <= made <= 10
    assert course.elapsed < 0.65


def test_groups_are_small_at_first_and_never_large() -> None:
    groups = list(RunControl().groups(31))
    assert [len(group) for group in groups] == [1, 2, 4, 8, 8, 8]
    assert [number for group in groups for number in group] == list(range(31))


def test_figures_are_compared_with_healthy_ones_of_as_many_restorations(
    detector: Detector, scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    from LatentSpaceRestorationLib.calibration.levels import HealthyLevel, ModeCalibration

    own = detector.model.calibration()
    few = Quantiles(np.array([0.0, 100.0]), np.array([0.0, 1e6]))
    levels = (HealthyLevel(1, few, (1e6,) * 20), HealthyLevel(2, few, (0.0,) * 20))
    changed = ModeCalibration(own.restore_threshold, own.slice_threshold, levels, 99.0, own.codes)
    monkeypatch.setattr(detector.model, "calibration", lambda mode, method: changed)
    _, one, two = (e.detection() for e in detector.stream(scan, restorations=2))
    assert (one.p_value, two.p_value) == (1.0, 1 / 21)
    assert one.threshold == detector.model.threshold_value(99.0, "default", 1)


def test_a_stream_that_nobody_listens_to_any_more_makes_nothing_further(
    detector: Detector, scan: Volume
) -> None:
    asked: list[int] = []
    stream = detector.stream(scan, restorations=20, is_cancelled=lambda: bool(asked))
    next(stream)
    asked.append(1)
    with pytest.raises(Cancelled):
        next(stream)
