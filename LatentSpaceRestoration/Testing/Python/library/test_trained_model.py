"""The models that ship, on a real brain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.bundle.bundle import default_models_folder, read_bundle
from LatentSpaceRestorationLib.detection import Detection
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy
from LatentSpaceRestorationLib.evaluation.synthetic.painted_lesion import load_template
from LatentSpaceRestorationLib.evaluation.synthetic.spheres import uniform_sphere
from LatentSpaceRestorationLib.inference.latent_model import LatentModel
from LatentSpaceRestorationLib.io.images import read_volume
from LatentSpaceRestorationLib.model import Model
from LatentSpaceRestorationLib.runtime.placement import SIZES, Placement
from LatentSpaceRestorationLib.sampling.restore import nll, restore
from native_grid import to_native
from shared_data import tune_subjects


def test_the_shipped_models_are_whole_small_and_documented() -> None:
    size = 0
    for name in ("brain-t1", "brain-t1-vae", "brain-extraction"):
        bundle = read_bundle(default_models_folder() / name)
        size += bundle.size
        for words in ("CC BY-SA 3.0", "IXI", "Not for diagnosis"):
            assert words in bundle.card()
    assert size <= 40e6


def test_calibration_scans_are_not_training_scans() -> None:
    bundle = read_bundle(default_models_folder() / "brain-t1")
    assert len(bundle.calibration["scans"]) == 20
    assert not set(bundle.calibration["scans"]) & set(bundle.config["training"]["subjects"])
    assert {"default", "paper"} <= set(bundle.calibration["modes"])


def test_the_template_is_laid_as_the_brains_that_were_learned_lie() -> None:
    # What is rough in it leads 40 degrees astray.
    _, laid = Detector.load(device="cpu").prepare(load_template())
    assert laid.is_aligned
    nod = np.degrees(np.arccos((np.trace(laid.turn[:3, :3]) - 1.0) / 2.0))
    assert 2.0 < nod < 15.0


@pytest.fixture(scope="module")
def sphere() -> tuple[Detection, np.ndarray, np.ndarray]:
    """What is found in the template with a sphere painted in, the sphere, and the brain."""
    scan = load_template()
    brain = scan.array > 0
    centre = np.array([30.0, -20.0, 30.0])
    array = uniform_sphere(Healthy(scan, brain), centre, 14.0, -2.0, 0)
    painted, label = replace(scan, array=array), array != scan.array
    return Detector.load(device="cpu").detect(painted, restorations=2), label, brain


def test_a_painted_sphere_is_the_hottest_place(
    sphere: tuple[Detection, np.ndarray, np.ndarray],
) -> None:
    found, label, _ = sphere
    assert label[np.unravel_index(found.anomaly_map.argmax(), label.shape)]


def test_a_painted_sphere_is_as_hot_as_any_place(
    sphere: tuple[Detection, np.ndarray, np.ndarray],
) -> None:
    found, label, brain = sphere
    assert found.anomaly_map[label].max() > 0.9 * found.anomaly_map.max()
    assert found.anomaly_map[label].mean() > 4 * found.anomaly_map[brain & ~label].mean()


@pytest.mark.slow
def test_the_loop_and_the_fast_samplers_agree_on_the_trained_model() -> None:
    detector = Detector.load(device="cpu")
    prepared, _ = detector.prepare(load_template())
    networks = LatentModel.load(detector.bundle)
    reading = networks.read(prepared)
    middle = len(prepared.slices) // 2
    pick = [middle - 12, middle, middle + 12]
    codes = torch.from_numpy(reading.codes[pick])
    position = torch.from_numpy(prepared.position[pick])
    likelihood = nll(networks.prior, codes, position)
    np.testing.assert_allclose(likelihood.numpy(), reading.nll[pick], atol=1e-4)
    threshold = float(np.percentile(reading.nll[reading.brain], 80))
    limits = np.where(reading.brain[pick], threshold, np.inf)
    results = {
        sampler: restore(
            networks.prior,
            codes,
            position,
            thresholds=limits,
            restorations=2,
            seed=3,
            slice_ids=pick,
            sampler=sampler,
        )
        for sampler in ("loop", "skip-ahead", "cached")
    }
    assert (results["loop"] != codes[:, None]).any(dim=3).any(dim=2).all(), "nothing resampled"
    assert torch.equal(results["loop"], results["skip-ahead"])
    assert torch.equal(results["loop"], results["cached"])


@pytest.mark.slow
def test_threads_and_pieces_do_not_change_a_real_scans_map() -> None:
    scan = load_template()
    threads = torch.get_num_threads()
    found = []
    try:
        for number, size in ((2, None), (1, None), (2, 37)):
            torch.set_num_threads(number)
            detector = Detector.load(device="cpu")
            if size is not None:
                networks = LatentModel.load(detector.bundle)
                networks.placement = Placement("cpu", dict.fromkeys(SIZES, size))
                detector = Detector(Model(detector.bundle, networks), None, 2.0)
            found.append(detector.detect(scan, restorations=3))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[1].anomaly_map, found[0].anomaly_map)
    assert found[1].sample_score == found[0].sample_score
    for other in found[1:]:
        np.testing.assert_allclose(other.anomaly_map, found[0].anomaly_map, atol=1e-5)
        np.testing.assert_array_equal(other.brain_mask, found[0].brain_mask)
        assert other.sample_score == pytest.approx(found[0].sample_score, abs=1e-5)


@pytest.mark.slow
def test_brain_extraction_overlaps_the_given_masks() -> None:
    detector = Detector.load(device="cpu")
    scores = []
    for subject in tune_subjects():
        scan = read_volume(subject.scan)
        assert subject.mask is not None
        given = read_volume(subject.mask).array > 0
        prepared, _ = detector.prepare(scan)
        found = to_native(prepared, prepared.mask.astype(np.float32)) >= 0.5
        scores.append(2.0 * (found & given).sum() / (found.sum() + given.sum()))
    assert np.median(scores) >= 0.97
    assert min(scores) >= 0.94
