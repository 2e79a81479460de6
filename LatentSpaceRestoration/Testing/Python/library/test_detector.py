"""The one way through, with a tiny model of random weights: what holds whatever the weights are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.calibration.levels import ModeCalibration
from LatentSpaceRestorationLib.detection import Detection
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import Cancelled, InputError, is_distrusted
from LatentSpaceRestorationLib.inference import latent_model
from LatentSpaceRestorationLib.inference.readings import Decoded
from LatentSpaceRestorationLib.methods.base import Known
from LatentSpaceRestorationLib.methods.lsr import LatentSpaceRestoration
from LatentSpaceRestorationLib.methods.settings import ModeSettings
from LatentSpaceRestorationLib.model import Model
from LatentSpaceRestorationLib.networks.vqvae import VQVAE
from LatentSpaceRestorationLib.preprocessing import quality
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.results.record import DetectionRecord
from LatentSpaceRestorationLib.volume import Volume
from scan_grids import ORIENTATIONS, rotation, stored_as
from tiny_model import generated_brain

#: Of all detections here, where nothing else is said.
QUICK = {"restorations": 2, "seed": 3}


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    """The tiny model, without a brain-extraction model even where one is installed."""
    bundle = read_bundle(tiny_model)
    return Detector(Model.load(bundle), None, 2.0)


@pytest.fixture(scope="module")
def scan() -> Volume:
    """Twelve slices of a brain without a head, 4 mm along the patient's axes."""
    return generated_brain((44, 52, 12))


@pytest.fixture(scope="module")
def result(detector: Detector, scan: Volume) -> Detection:
    """The detection that others are compared with."""
    return detector.detect(scan, **QUICK)


def check_images(found: Detection, scan: Volume) -> None:
    """What every detection's images fulfil."""
    images = {
        "anomaly_map": np.float32,
        "anomaly_mask": np.uint8,
        "restoration": np.float32,
        "restoration_sd": np.float32,
        "brain_mask": np.uint8,
    }
    for name, kind in images.items():
        image = getattr(found, name)
        assert image.shape == scan.array.shape, name
        assert image.dtype == kind, name
        assert np.isfinite(image).all(), name
    brain = found.brain_mask > 0
    assert set(np.unique(found.brain_mask)) <= {0, 1}
    assert brain.any()
    assert (found.anomaly_map >= 0).all()
    assert (found.anomaly_map[~brain] == 0).all()
    assert found.anomaly_map.max() > 0
    expected = brain & (found.anomaly_map >= found.threshold)
    np.testing.assert_array_equal(found.anomaly_mask, expected.astype(np.uint8))
    assert (found.restoration_sd >= 0).all()
    own = found.restoration == scan.array.astype(np.float32)
    assert own[~brain].all()
    assert (found.restoration_sd[own] == 0).all()


def test_images_lie_on_the_scans_own_grid(result: Detection, scan: Volume) -> None:
    check_images(result, scan)
    truth = scan.array > 0
    brain = result.brain_mask > 0
    assert 2.0 * (brain & truth).sum() / (brain.sum() + truth.sum()) > 0.98
    assert not np.array_equal(result.restoration, scan.array)
    assert result.restoration_sd.max() > 0


def test_figures_are_those_of_the_calibration(result: Detection, detector: Detector) -> None:
    calibration = detector.model.calibration()
    assert result.threshold_percentile == calibration.threshold_percentile == 99.0
    assert result.threshold == detector.model.threshold_value(99.0) == 2.0
    assert result.healthy_scans == 20
    assert 1 / 21 <= result.p_value <= 1.0
    assert result.percentile == pytest.approx(100.0 * (1.0 - result.p_value))
    height = [s.position_mm for s in result.slice_scores]
    np.testing.assert_allclose(height, np.arange(12) * 4.0 - 22.0)
    assert (result.model, result.mode, result.method) == ("tiny", "default", "lsr")
    assert (result.restorations, result.seed, result.device) == (2, 3, "cpu")
    assert any("already brain-extracted" in warning for warning in result.warnings)
    assert {"brain", "encode", "restore", "score", "undo"} <= result.seconds.keys()


def test_figures_go_to_json_under_the_names_of_the_contract(
    result: Detection, detector: Detector
) -> None:
    record = DetectionRecord.of(result, detector.model.calibration())
    written = json.loads(json.dumps(record.to_json("scan.nii"), allow_nan=False))
    contract = {
        *("sample_score", "percentile", "p_value", "threshold", "slice_scores", "model", "mode"),
        *("method", "restorations", "seed", "device", "warnings", "seconds", "version"),
    }
    assert contract <= written.keys()
    assert written["slice_scores"][0].keys() == {"position_mm", "score"}


def test_the_same_seed_gives_the_same_map(
    detector: Detector, scan: Volume, result: Detection
) -> None:
    again = detector.detect(scan, **QUICK)
    np.testing.assert_array_equal(again.anomaly_map, result.anomaly_map)
    assert again.sample_score == result.sample_score


def test_a_scan_that_is_flagged_all_over_is_doubted(
    detector: Detector, scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ModeCalibration.from_json(detector.bundle.calibration["modes"]["default"])
    level = usual.levels[0]
    low = replace(level, voxels=replace(level.voxels, values=level.voxels.values * 1e-3))
    monkeypatch.setattr(Model, "calibration", lambda *_: replace(usual, levels=(low,)))
    found = detector.detect(scan, restorations=1)
    share = 100 * found.anomaly_mask.sum() / found.brain_mask.sum()
    (line,) = [line for line in found.warnings if "above the threshold" in line]
    assert abs(float(line.split("%")[0]) - share) < 3.0
    assert "1% of a healthy one" in line


def test_a_scan_that_the_models_own_statistics_give_away_is_doubted(
    detector: Detector, scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> list[str]:
        found = detector.detect(scan, restorations=1)
        # What is not to be trusted has no percentile, and nothing is flagged.
        distrusted = is_distrusted(found.warnings)
        assert (found.percentile is None, found.p_value is None) == (distrusted, distrusted)
        assert bool(found.anomaly_mask.any()) is not distrusted
        return [line for line in found.warnings if "the scans that the model knows" in line]

    monkeypatch.setattr(quality, "UNLIKELY", 1e3)
    monkeypatch.setattr(quality, "ERROR", 1e3)
    assert said() == []
    monkeypatch.setattr(quality, "UNLIKELY", 0.0)
    monkeypatch.setattr(quality, "ERROR", -1e3)
    (line,) = said()
    assert "of its codes are unlikely, against 60% in healthy scans" in line
    assert "its reconstruction error" in line


def test_another_seed_gives_another_spread_and_by_pixelsnail_another_map(
    detector: Detector, scan: Volume, result: Detection
) -> None:
    other = detector.detect(scan, restorations=2, seed=4)
    assert np.abs(other.restoration_sd - result.restoration_sd).max() > 1e-3
    # What a masked prior expects is not drawn, and of codes the likeliest is shown.
    np.testing.assert_array_equal(other.restoration, result.restoration)
    np.testing.assert_array_equal(other.anomaly_map, result.anomaly_map)
    maps = [
        detector.detect(scan, restorations=2, seed=seed, mode="pixelsnail").anomaly_map
        for seed in (3, 4)
    ]
    assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_a_scan_stored_another_way_gives_the_same_map(
    detector: Detector, scan: Volume, result: Detection
) -> None:
    orientation = ORIENTATIONS[13]
    assert np.linalg.det(orientation) < 0  # left-handed
    stored = stored_as(scan, orientation)
    found = detector.detect(stored, **QUICK)
    check_images(found, stored)
    expected = stored_as(replace(scan, array=result.anomaly_map), orientation)
    np.testing.assert_allclose(found.anomaly_map, expected.array, atol=1e-5)
    assert found.sample_score == pytest.approx(result.sample_score, abs=1e-5)
    assert [s.position_mm for s in found.slice_scores] == [
        s.position_mm for s in result.slice_scores
    ]


def test_a_mirror_image_gives_the_mirrored_map(
    detector: Detector, scan: Volume, result: Detection
) -> None:
    assert (scan.array != scan.array[::-1]).any()
    mirrored = replace(scan, array=scan.array[::-1].copy())
    found = detector.detect(mirrored, **QUICK)
    np.testing.assert_allclose(found.anomaly_map, result.anomaly_map[::-1], atol=1e-5)
    assert found.sample_score == pytest.approx(result.sample_score, abs=1e-5)


@pytest.mark.parametrize("orientation", [ORIENTATIONS[1], ORIENTATIONS[30]])
def test_oblique_anisotropic_scans_of_odd_sizes(
    detector: Detector, orientation: np.ndarray
) -> None:
    spacing = np.abs(orientation.T) @ [3.1, 2.9, 6.5]
    affine = np.eye(4)
    affine[:3, :3] = rotation((12.0, -8.0, 15.0)) @ orientation * spacing
    shape = tuple(int(n) | 1 for n in np.abs(orientation.T) @ [160, 200, 72] / spacing)
    scan = generated_brain(shape, affine)
    scan = replace(scan, array=scan.array.astype(np.int16))
    found = detector.detect(scan, **QUICK)
    check_images(found, scan)
    truth = scan.array > 0
    brain = found.brain_mask > 0
    assert 2.0 * (brain & truth).sum() / (brain.sum() + truth.sum()) > 0.9


def test_paper_mode_sums_the_nll_of_its_slices(detector: Detector, scan: Volume) -> None:
    found = detector.detect(scan, mode="paper", **QUICK)
    check_images(found, scan)
    assert found.mode == "paper"
    assert found.sample_score == pytest.approx(sum(s.score for s in found.slice_scores), rel=1e-4)


def test_a_lower_threshold_marks_more(detector: Detector, scan: Volume, result: Detection) -> None:
    found = detector.detect(scan, threshold=50.0, **QUICK)
    check_images(found, scan)
    assert (found.threshold_percentile, found.threshold) == (50.0, 0.4)
    np.testing.assert_array_equal(found.anomaly_map, result.anomaly_map)
    assert found.anomaly_mask.sum() > result.anomaly_mask.sum()


def test_one_restoration_has_no_spread(detector: Detector, scan: Volume) -> None:
    found = detector.detect(scan, restorations=1)
    assert (found.restoration_sd == 0).all()


def test_a_given_brain_mask_is_used(detector: Detector, scan: Volume) -> None:
    mask = (scan.array > 0) & (np.arange(44) < 22)[:, None, None]
    head = Volume(np.where(scan.array > 0, scan.array, 30.0).astype(np.float32), scan.affine)
    head.array[::7, ::5] += 1.0  # no constant background: a whole head
    found = detector.detect(head, brain_mask=mask.astype(np.uint8), **QUICK)
    check_images(found, head)
    np.testing.assert_array_equal(found.brain_mask > 0, mask)
    assert not any("extracted" in warning for warning in found.warnings[1:])


def test_a_brain_mask_that_does_not_fit_is_refused(detector: Detector, scan: Volume) -> None:
    with pytest.raises(InputError, match="own grid"):
        detector.detect(scan, brain_mask=np.ones((44, 52, 13)))
    with pytest.raises(InputError, match="empty"):
        detector.detect(scan, brain_mask=np.zeros(scan.shape))


def test_brain_beyond_the_models_field_of_view_is_told(detector: Detector) -> None:
    noise = np.random.default_rng(0).normal(100.0, 10.0, (48, 60, 3)).astype(np.float32)
    whole = Volume(noise, np.diag([4.0, 4.0, 4.0, 1.0]))
    found = detector.detect(whole, brain_mask=np.ones(noise.shape), restorations=1)
    check_images(found, whole)
    assert any("28% of the brain lies outside" in warning for warning in found.warnings)


def test_progress_runs_from_0_to_1(detector: Detector, scan: Volume) -> None:
    seen: list[tuple[float, str]] = []
    detector.detect(scan, **QUICK, progress=lambda done, what: seen.append((done, what)))
    done = [share for share, _ in seen]
    assert done[0] == 0.0
    assert done[-1] == 1.0
    assert all(b >= a for a, b in pairwise(done))
    assert len(set(done)) > 8
    assert all(what for _, what in seen)


@pytest.mark.parametrize("call", [1, 3, 10])
def test_cancelling_at_any_time_ends_it(detector: Detector, scan: Volume, call: int) -> None:
    asked = 0

    def is_cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == call

    with pytest.raises(Cancelled):
        detector.detect(scan, **QUICK, is_cancelled=is_cancelled)
    assert asked == call


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "best"},
        {"method": "best"},
        {"method": "nll", "mode": "paper"},
        {"restorations": 0},
        {"threshold": 0.0},
        {"threshold": 100.0},
        {"threshold": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(
    detector: Detector, scan: Volume, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        detector.detect(scan, **options)
    assert "\n" not in str(refusal.value)


def spoiled(change: Callable[[np.ndarray], np.ndarray]) -> Volume:
    """A brain with something wrong."""
    brain = generated_brain((44, 52, 12))
    return Volume(change(brain.array.copy()), brain.affine)


def with_nan(array: np.ndarray) -> np.ndarray:
    """One voxel without a value."""
    array[20, 20, 5] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_nan, "NaN"),
        (np.zeros_like, "every voxel is 0"),
        (lambda a: a[:, :, :1], "not a volume"),
        (lambda a: a[:, :, 5], "not a volume"),
        (lambda a: np.stack([a, a], -1), "not a volume"),
        (lambda a: np.where(a > 0, 1.0, 0.0), "almost no contrast"),
        (lambda a: np.random.default_rng(0).normal(100.0, 5.0, a.shape), "give a brain mask"),
    ],
    ids=["NaN", "constant", "one slice", "2-D", "4-D", "a mask", "a head without a network"],
)
def test_scans_that_cannot_be_used_are_refused_in_one_line(
    detector: Detector, change: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        detector.detect(spoiled(change))
    assert "\n" not in str(refusal.value)


def test_what_is_decoded_already_is_not_decoded_again(detector: Detector, scan: Volume) -> None:
    prepared, _ = detector.prepare(scan)
    networks, reading = detector.model.context(prepared).read()
    codes = reading.codes.copy()
    codes[4, 0, 0] = (codes[4, 0, 0] + 1) % len(networks.vqvae.codebook.keys)
    expected = networks.reconstruct(prepared, codes)
    marked = np.full_like(expected, 7.0)
    found = networks.reconstruct(prepared, codes, known=Decoded(reading.codes, marked))
    np.testing.assert_allclose(found[4], expected[4], atol=1e-5)
    assert (np.delete(found, 4, axis=0) == 7.0).all()


def test_only_the_brains_codes_are_replaced_and_every_restoration_is_its_own(
    detector: Detector, scan: Volume
) -> None:
    prepared, _ = detector.prepare(scan)
    reading = detector.model.context(prepared).read()[1]
    assert reading.brain.any()
    assert not reading.brain.all()
    below = np.arange(len(reading.brain))[:, None, None] < 5
    part = replace(reading, brain=reading.brain & below)
    # All codes of the brain are drawn anew, so that each restoration differs.
    way = LatentSpaceRestoration(ModeSettings(), -1.0, 0.0)
    steps = way.restorations(detector.model.context(prepared, 3, known=Known(part)))
    after_one, _ = next(steps)
    first = after_one.mean.copy()
    averages, is_last = next(steps)
    assert is_last
    assert averages.replaced[part.brain].mean() > 0.5
    assert not averages.replaced[~part.brain].any()
    untouched = decoded(detector, prepared, reading)
    np.testing.assert_allclose(averages.mean[5:], untouched[5:], atol=1e-5)
    np.testing.assert_allclose(averages.sd[5:], 0.0, atol=1e-6)
    assert not np.allclose(averages.mean[:5], untouched[:5])
    assert not np.allclose(averages.mean[:5], first[:5])
    assert averages.sd[:5].max() > 0.0
    no_brain = replace(reading, brain=np.zeros_like(reading.brain))
    *_, (averages, _) = way.restorations(detector.model.context(prepared, 2, known=Known(no_brain)))
    assert not averages.replaced.any()
    np.testing.assert_allclose(averages.mean, untouched, atol=1e-5)


def decoded(
    detector: Detector, prepared: PreparedScan, reading: latent_model.Reading
) -> np.ndarray:
    """The scan's own codes through the bundle's decoder as it was trained, (N, rows, columns)."""
    vqvae = VQVAE(**detector.bundle.config["vqvae"]).eval()
    vqvae.load_state_dict(detector.bundle.tensors("vqvae.safetensors"))
    with torch.inference_mode():
        codes, position = torch.from_numpy(reading.codes), torch.from_numpy(prepared.position)
        return vqvae.decode(codes, position)[:, 0].numpy()


def test_what_was_read_in_an_opened_scan_is_there_for_the_next_method(
    detector: Detector, scan: Volume
) -> None:
    opened = detector.open(scan)
    for mode in ("default", "pixelsnail", "paper"):
        expected = detector.detect(scan, mode=mode, restorations=1)
        found = detector.detect(opened, mode=mode, restorations=1)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        assert found.warnings == expected.warnings
    case = detector.model.context(opened.prepared, known=opened.known)
    assert case.read()[1] is opened.known.reading
    # Tiles of another size are another question.
    (known,) = opened.known.expected
    values = detector.model.calibration().codes
    assert values is not None
    other = replace(known, tile=known.tile + 1)
    assert case.expect(known, values)[1] is not case.expect(other, values)[1]
