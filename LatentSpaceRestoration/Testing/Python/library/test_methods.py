"""Every method of ``lsr detect``: calibrated in one go, the same outputs, and its equations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Lsr, one_line, save_scan, written
from LatentSpaceRestorationLib import methods
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import BundleError, Cancelled
from LatentSpaceRestorationLib.inference.vae_model import Piece, VAEModel
from LatentSpaceRestorationLib.methods import registry
from LatentSpaceRestorationLib.methods.intensity import Intensity
from LatentSpaceRestorationLib.methods.map_restoration import MAPRestoration, total_variation
from LatentSpaceRestorationLib.methods.nll import CodeLikelihood
from LatentSpaceRestorationLib.methods.projection import Projection, projection_energy
from LatentSpaceRestorationLib.methods.registry import entry, kinds, names, of_kind
from LatentSpaceRestorationLib.methods.vae import (
    elbo_gradient,
    gradient,
    kl_divergence,
    latent_noise,
    negative_elbo,
)
from LatentSpaceRestorationLib.methods.vqvae_residual import VQVAEResidual
from LatentSpaceRestorationLib.model import Model
from LatentSpaceRestorationLib.networks.vae import VAE
from LatentSpaceRestorationLib.results.files import ENDINGS
from LatentSpaceRestorationLib.runtime.placement import Placement
from LatentSpaceRestorationLib.scoring.filters import masked_smooth, upsampled
from LatentSpaceRestorationLib.training.calibrate import (
    THRESHOLD_PERCENTILE,
    HealthyScan,
    calibrate,
    to_files,
)
from LatentSpaceRestorationLib.volume import Volume
from test_detector import check_images
from test_vae import images, tiny_vae
from tiny_model import SPACING, generated_brain, write_tiny_vae_model

OTHERS = tuple(method for method in names() if method != "lsr")
#: Methods that restore nothing, and methods whose restorations are one image.
NOTHING = ("nll", "intensity")
DRAWN = ("vae-elbo-gradient", "vae-ensemble")


def calibrated(model: Path, folder: Path) -> Path:
    """A copy of a model with figures of five generated brains for each of its methods."""
    detector = Detector.load(model, "cpu")
    scans = [
        HealthyScan(f"H{s}", detector.prepare(generated_brain((44, 52, 8), seed=s))[0])
        for s in range(5)
    ]
    lines: list[str] = []
    data, places = to_files(*calibrate(detector, scans, restorations=2, report=lines.append))
    assert any("H4" in line for line in lines)
    bundle = detector.bundle
    tensors = {f: bundle.tensors(f) for f in bundle.config["files"] if f.endswith("safetensors")}
    tensors["place.safetensors"] = places
    return write_bundle(folder, {**bundle.config, "name": folder.name}, tensors, data).folder


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A calibrated model of each kind."""
    folder = tmp_path_factory.mktemp("calibrated")
    vae = write_tiny_vae_model(tmp_path_factory.mktemp("raw"))
    return {
        "anomaly": calibrated(tiny_model, folder / "both"),
        "vae": calibrated(vae, folder / "vae"),
    }


@pytest.fixture(scope="module")
def detectors(models: dict[str, Path]) -> dict[str, Detector]:
    """By method."""
    loaded = {kind: Detector.load(model, "cpu") for kind, model in models.items()}
    return {method: loaded[kind] for kind in kinds() for method in of_kind(kind)}


@pytest.fixture(scope="module")
def scan() -> Volume:
    return generated_brain((44, 52, 8), seed=11)


# What every method fulfils


@pytest.mark.parametrize("method", names())
def test_every_method_gives_the_same_outputs(
    detectors: dict[str, Detector], scan: Volume, method: str
) -> None:
    detector = detectors[method]
    done: list[float] = []
    found = detector.detect(
        scan, method=method, restorations=2, seed=1, progress=lambda share, _: done.append(share)
    )
    check_images(found, scan)
    assert (found.method, found.mode, found.healthy_scans) == (method, "default", 5)
    assert 1 / 6 <= found.p_value <= 1.0
    assert len(found.slice_scores) == 8
    assert found.threshold == detector.model.threshold_value(
        THRESHOLD_PERCENTILE, restorations=2, method=method
    )
    share = found.anomaly_mask.sum() / found.brain_mask.sum()
    assert share < 0.2
    if method != "lsr":
        expected = 0 if method in NOTHING else 2 if method in DRAWN else 1
        assert found.restorations == expected
        assert (found.restoration_sd.max() > 0) == (method in DRAWN)
    changed = np.abs(found.restoration - scan.array)[found.brain_mask > 0].max()
    # To and fro, a voxel of 4 mm is as it was, but for what intensities lose by clipping.
    assert (changed > 1.0) or method in NOTHING
    assert not any("budget" in line for line in found.warnings)
    assert all(a <= b for a, b in pairwise(done))
    assert done[-1] == 1.0
    again = detector.detect(scan, method=method, restorations=2, seed=1)
    np.testing.assert_array_equal(again.anomaly_map, found.anomaly_map)
    assert again.sample_score == found.sample_score


@pytest.mark.parametrize("method", OTHERS)
def test_cancelling_is_heard(detectors: dict[str, Detector], scan: Volume, method: str) -> None:
    asked: list[float] = []

    def progress(share: float, _: str) -> None:
        asked.append(share)

    def is_cancelled() -> bool:
        return bool(asked) and asked[-1] >= 0.1

    with pytest.raises(Cancelled):
        detectors[method].detect(
            scan, method=method, restorations=2, progress=progress, is_cancelled=is_cancelled
        )


@pytest.mark.parametrize("method", of_kind("vae"))
def test_the_size_of_pieces_does_not_change_the_map(
    detectors: dict[str, Detector], scan: Volume, method: str
) -> None:
    bundle, detections = detectors[method].bundle, []
    for size in (16, 3):
        networks = VAEModel.load(bundle)
        networks.placement = Placement("cpu", {"slices": size, "brain": 1})
        detector = Detector(Model(bundle, networks), None, 2.0)
        detections.append(detector.detect(scan, method=method, restorations=2))
    found, other = detections
    scale = found.anomaly_map.max()
    np.testing.assert_allclose(other.anomaly_map / scale, found.anomaly_map / scale, atol=1e-4)
    np.testing.assert_allclose(other.restoration, found.restoration, atol=0.05)


def test_a_seed_is_that_of_the_draws(detectors: dict[str, Detector], scan: Volume) -> None:
    many = detectors["vae-ensemble"].detect(scan, method="vae-ensemble", restorations=15)
    assert many.restorations == 4  # no more draws than that
    assert not any("budget" in line for line in many.warnings)
    for method, differs in (("vae-elbo-gradient", True), ("vae", False)):
        one, two = (
            detectors[method].detect(scan, method=method, restorations=1, seed=seed)
            for seed in (0, 1)
        )
        assert np.array_equal(one.anomaly_map, two.anomaly_map) != differs


@pytest.mark.parametrize("method", OTHERS)
def test_the_command_writes_the_same_files(
    lsr: Lsr, models: dict[str, Path], scan: Volume, tmp_path: Path, method: str
) -> None:
    kind = entry(method).kind
    options = ["--model", models[kind], "--method", method, "--restorations", 1]
    file = save_scan(tmp_path / "brain.nii.gz", scan.array, scan.affine)
    results = tmp_path / "out"
    status, out, err = lsr("detect", file, "-o", results, *options, "--device", "cpu", "--json")
    assert (status, err) == (0, "")
    assert written(results) == {f"brain_{ending}" for ending in ENDINGS}
    assert json.loads(out)["method"] == method


def test_what_a_model_cannot_do_is_refused_in_one_line(
    lsr: Lsr, models: dict[str, Path], noise: np.ndarray, tmp_path: Path, tiny_model: Path
) -> None:
    scan = save_scan(tmp_path / "scan.nii.gz", noise)

    def refusal(*options: object) -> str:
        status, out, err = lsr("detect", scan, "-o", tmp_path / "out", *options)
        assert (status, out) == (2, "")
        assert not (tmp_path / "out").exists()
        return one_line(err)

    line = refusal("--model", models["vae"])
    assert "cannot do method 'lsr'" in line
    assert "vae-projection" in line
    line = refusal("--model", models["anomaly"], "--method", "vae")
    assert "lsr, vqvae-residual, nll, intensity" in line
    assert "was not calibrated for method 'nll'" in refusal(
        "--model", tiny_model, "--method", "nll"
    )
    line = refusal("--model", models["anomaly"], "--method", "nll", "--mode", "paper")
    assert "--mode paper is of method lsr" in line
    assert "invalid choice: 'best'" in refusal("--method", "best")


def test_weights_of_another_vae_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    bundle = read_bundle(models["vae"])
    settings = {**bundle.config["vae"], "latents": 7}
    tensors = {"vae.safetensors": bundle.tensors("vae.safetensors")}
    misfit = write_bundle(
        tmp_path / "misfit", {**bundle.config, "name": "misfit", "vae": settings}, tensors
    )
    with pytest.raises(BundleError, match="do not fit its settings"):
        Detector.load(misfit.folder)


# Methods on intensities and codes


def test_maps_of_intensity_and_codes(detectors: dict[str, Detector], scan: Volume) -> None:
    detector = detectors["nll"]
    prepared, _ = detector.prepare(scan)
    context = detector.model.context(prepared)
    (found,) = Intensity().evidence(context)
    expected = masked_smooth(prepared.slices, prepared.mask, 4.0 / SPACING)
    np.testing.assert_array_equal(found.maps["intensity"], expected)
    (found,) = CodeLikelihood().evidence(context)
    fine = upsampled(detector.model.context(prepared).read()[1].nll, prepared.slices.shape)
    expected = masked_smooth(fine, prepared.mask, 4.0 / SPACING)
    np.testing.assert_array_equal(found.maps["nll"], expected)
    (found,) = VQVAEResidual().evidence(context)
    expected = masked_smooth(
        np.abs(prepared.slices - found.restoration), prepared.mask, 4.0 / SPACING
    )
    np.testing.assert_array_equal(found.maps["residual"], expected)


def test_codes_are_upsampled_to_the_middle_of_their_cells() -> None:
    cells = np.random.default_rng(0).normal(size=(2, 4, 3))
    fine = upsampled(cells, (2, 12, 9))
    assert fine.shape == (2, 12, 9)
    np.testing.assert_allclose(fine[:, 1::3, 1::3], cells, atol=1e-6)
    between = (cells[:, 0] * 2 + cells[:, 1]) / 3
    np.testing.assert_allclose(fine[:, 2, 1::3], between, atol=1e-6)
    np.testing.assert_allclose(upsampled(np.ones((1, 2, 2)), (1, 8, 8)), 1.0, atol=1e-6)


# Equations of the VAE's methods


def piece_of(vae: VAE, slices: torch.Tensor, position: torch.Tensor) -> Piece:
    brain = torch.zeros_like(slices, dtype=torch.bool)
    brain[:, :, 2:-2, 2:-2] = True
    return Piece(vae, slices, brain, position, range(len(slices)), lambda _: None)


def finite_differences(
    energy: Callable[[torch.Tensor], torch.Tensor], slices: torch.Tensor, pixels: list[int]
) -> torch.Tensor:
    """(len(pixels),) slopes of the first slice's energy along some of its pixels."""
    found = []
    for pixel in pixels:
        step = torch.zeros_like(slices)
        step[0].view(-1)[pixel] = 1e-4
        found.append((energy(slices + step) - energy(slices - step))[0] / 2e-4)
    return torch.stack(found).detach()


def energies(vae: VAE) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """What gradients are taken of, by method, of three slices."""
    slices, position = (t.double() for t in images())
    noise = latent_noise(0, range(3), 0, vae.latents).double()
    start = slices + 0.3
    piece = piece_of(vae, start, position)
    return {
        "vae-kl-gradient": lambda x: kl_divergence(vae, x, position),
        "vae-elbo-gradient": lambda x: negative_elbo(vae, x, position, noise),
        "vae-projection": lambda x: projection_energy(vae, x, start, position, 0.3)[0],
        "map-restoration": lambda x: MAPRestoration().energy(piece, x),
        "total variation": total_variation,
    }


class DoubleVAE(VAE):
    """Also its posterior and its reconstructions in float64, for finite differences."""

    def posterior(self, slices: torch.Tensor, position: torch.Tensor) -> object:
        from LatentSpaceRestorationLib.networks.vae import Posterior

        features = self.encoder(slices, position).flatten(1)
        return Posterior(*self.to_posterior(features).chunk(2, dim=1))

    def forward(self, slices, position, noise=None):  # type: ignore[no-untyped-def]
        posterior = self.posterior(slices, position)
        return self.decode(posterior.draw(noise.to(slices)), position), posterior

    def reconstruct(self, slices: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return self.decode(self.posterior(slices, position).mean, position)


@pytest.mark.parametrize("name", list(energies(tiny_vae())))
def test_gradients_are_slopes(name: str) -> None:
    vae = tiny_vae(beta=3.0).double()
    vae.__class__ = DoubleVAE
    energy = energies(vae)[name]
    slices = images()[0].double()
    found = gradient(energy, slices)
    assert found.shape == slices.shape
    pixels = [0, 40, 77, 100, 191]
    expected = finite_differences(energy, slices, pixels)
    torch.testing.assert_close(found[0].view(-1)[pixels], expected, rtol=1e-3, atol=1e-6)
    assert float(expected.abs().max()) > 0
    # Each slice has the gradient that it has alone.
    both = energy(slices)
    assert both.shape == (3,)


def test_the_elbo_is_error_and_beta_times_kl() -> None:
    vae = tiny_vae(beta=3.0)
    slices, position = images()
    noise = latent_noise(7, range(4, 7), 2, vae.latents)
    posterior = vae.posterior(slices, position)
    back = vae.decode(posterior.draw(noise), position)
    expected = (slices - back).square().sum((1, 2, 3)) + 3.0 * kl_divergence(vae, slices, position)
    torch.testing.assert_close(negative_elbo(vae, slices, position, noise), expected)


def test_the_elbos_gradient_is_the_mean_over_draws() -> None:
    vae = tiny_vae()
    slices, position = images()
    found, mean, sd = elbo_gradient(piece_of(vae, slices, position), 5, 3)
    each, backs = [], []
    for draw in range(3):
        noise = latent_noise(5, range(3), draw, vae.latents)
        each.append(gradient(lambda x, z=noise: negative_elbo(vae, x, position, z), slices))
        backs.append(vae(slices, position, noise)[0].detach())
    torch.testing.assert_close(found, torch.stack(each).mean(0).abs()[:, 0])
    torch.testing.assert_close(mean, torch.stack(backs).mean(0)[:, 0])
    torch.testing.assert_close(sd, torch.stack(backs).std(0, correction=0)[:, 0])


def test_noise_is_a_function_of_seed_slice_and_draw() -> None:
    noise = latent_noise(3, range(5), 1, 4)
    torch.testing.assert_close(latent_noise(3, range(2, 4), 1, 4), noise[2:4])
    others = (latent_noise(4, range(5), 1, 4), latent_noise(3, range(5), 2, 4))
    assert not any(torch.equal(other, noise) for other in others)
    assert abs(float(latent_noise(0, range(500), 0, 20).std()) - 1.0) < 0.03


def test_total_variation_by_hand() -> None:
    image = torch.zeros(2, 1, 4, 5)
    image[0, 0, 1:3, 1:4] = 2.0  # a block of 2 x 3: ten edges of height 2
    image[1, 0] = torch.arange(5.0)  # a ramp: four steps of 1 in each of four rows
    found = total_variation(image)
    # A kink that is rounded over r takes r - r^2 / 2h from an edge of height h.
    expected = torch.tensor([10 * (2.0 - 0.02 + 0.02**2 / 4), 16 * (1.0 - 0.02 + 0.02**2 / 2)])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["vae-projection", "map-restoration"])
def test_descent_lowers_the_energy_in_the_brain_alone(name: str) -> None:
    vae = tiny_vae()
    slices, position = images()
    piece = piece_of(vae, slices, position)
    if name == "vae-projection":
        way = Projection(steps=8)
        walked, energy = way.project(piece)
        before = projection_energy(vae, slices, slices, position, way.weight)[0]
        after = projection_energy(vae, walked, slices, position, way.weight)[0]
    else:
        restoring = MAPRestoration(steps=8)
        walked, energy = restoring.restore(piece)
        before, after = restoring.energy(piece, slices), restoring.energy(piece, walked)
    torch.testing.assert_close(after, energy, rtol=1e-4, atol=1e-3)
    assert (energy < 0.95 * before).all()
    assert torch.equal(walked[~piece.brain], slices[~piece.brain])
    assert float(walked.abs().max()) <= 3.0
    changed = (walked - slices).abs()
    assert float(changed[piece.brain].mean()) > 0.01
    # A heavy term holds it back.
    if name == "vae-projection":
        held, _ = Projection(steps=8, weight=100.0).project(piece)
    else:
        held, _ = MAPRestoration(steps=8, weight=100.0).restore(piece)
    assert float((held - slices).abs().mean()) < 0.2 * float(changed.mean())


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_of_every_third_slice_what_lies_between_follows(
    detectors: dict[str, Detector], scan: Volume, count: int
) -> None:
    prepared, _ = detectors["vae"].prepare(scan)
    part = replace(
        prepared,
        slices=prepared.slices[:count],
        mask=prepared.mask[:count],
        position=prepared.position[:count],
    )
    networks = detectors["vae"].model.context(part).vae_model()
    seen: list[int] = []

    def numbers(piece: Piece) -> tuple[torch.Tensor]:
        seen.extend(piece.numbers)
        values = torch.tensor([float(n) ** 2 for n in piece.numbers])
        return (values[:, None, None].expand(-1, 2, 2),)

    (found,) = networks.by_pieces(part, numbers, lambda _: None, every=3)
    chosen = sorted({*range(0, count, 3), count - 1})
    assert sorted(seen) == chosen  # pieces may be computed side by side
    expected = np.interp(np.arange(count), chosen, np.square(chosen, dtype=float))
    np.testing.assert_allclose(found[:, 1, 0], expected, rtol=1e-6)


# A new method is one file and one line


def test_a_method_is_added_by_a_file_and_a_line(
    lsr: Lsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """Detected, calibrated and evaluated with, by its line in the registry alone."""
    (tmp_path / "darkness.py").write_text(
        '''
from dataclasses import dataclass
from typing import ClassVar

from LatentSpaceRestorationLib.methods.base import Evidence
from LatentSpaceRestorationLib.scoring.anomaly_map import MapRule


@dataclass(frozen=True)
class Darkness:
    """How dark a voxel is."""

    draws_maps: ClassVar[bool] = False
    rule: MapRule = MapRule.of_high("darkness")

    def evidence(self, context):
        slices = context.prepared.slices
        maps = context.smoothed({"darkness": -slices})
        yield Evidence.of_maps(maps, slices)
'''
    )
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    line = registry.Entry("darkness", "anomaly", "darkness:Darkness", "how dark it is")
    monkeypatch.setattr(registry, "ENTRIES", [*registry.ENTRIES, line])
    model = shutil.copytree(tiny_model, tmp_path / "tiny")
    scans = tmp_path / "scans"
    scans.mkdir()
    for seed in range(5):
        brain = generated_brain((44, 52, 8), seed=seed)
        save_scan(scans / f"h{seed}.nii.gz", brain.array, brain.affine)
    status, _, err = lsr("calibrate", model, scans, "--methods", "darkness", "--device", "cpu")
    assert (status, err) == (0, "")

    scan = generated_brain((44, 52, 8), seed=9)
    dark = np.where(np.indices(scan.shape)[0] < 14, 0.3 * scan.array, scan.array)
    file = save_scan(tmp_path / "scan.nii.gz", dark, scan.affine)
    options = ("--model", model, "--method", "darkness", "--device", "cpu")
    status, out, err = lsr("detect", file, "-o", tmp_path / "out", *options, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["method"] == "darkness"

    healthy = generated_brain((44, 52, 14), seed=9)
    save_scan(tmp_path / "healthy.nii.gz", healthy.array, healthy.affine)
    table = tmp_path / "subjects.tsv"
    table.write_text("subject\tsplit\tt1w\nhealthy\ttune\thealthy.nii.gz\n")
    evaluated = ("evaluate", table, "-o", tmp_path / "ev", *options)
    family = ("--family", "pii", "--replicates", 5)
    assert lsr(*evaluated, *family)[0] == 0
    assert "darkness" in (tmp_path / "ev" / "table.md").read_text(encoding="utf-8")
