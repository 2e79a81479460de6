"""Properties of a scan that may give an anomaly away: smoothed maps in model space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.inference.averages import Averages
from LatentSpaceRestorationLib.inference.readings import ReadingPlan
from LatentSpaceRestorationLib.methods.lsr import LatentSpaceRestoration, paper_filter
from LatentSpaceRestorationLib.methods.masked import MaskedRestoration
from LatentSpaceRestorationLib.methods.settings import PAPER, ModeSettings
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.scoring.filters import upsampled, without_wide_mean

#: Sides of the tiles that the masked prior is tried with, in codes.
TILES = (4, 6)
#: Maps of which only high values are unusual.
ONE_SIDED = frozenset(
    (
        *("nll", "residual", "residual-near", "residual-one-view", "residual-local"),
        *(f"{kind}-tile{t}" for kind in ("nll", "nll-local", "absolute") for t in TILES),
        *("own-residual", "own-nll"),
    )
)


@dataclass(frozen=True)
class Sample:
    """A case in model space.

    Attributes:
        mask: (N, rows, columns) bool, brain.
        position: (N,) of the slices.
        label: (N, rows, columns) bool, what was put in.
        slices: (N, rows, columns) float32, the scan.
        maps: (N, rows, columns) float32, by name.
    """

    mask: np.ndarray
    position: np.ndarray
    label: np.ndarray
    slices: np.ndarray
    maps: dict[str, np.ndarray]

    def save(self, file: Path) -> None:
        """Write the brain's voxels as float16."""
        brain = {f"map {n}": m[self.mask].astype(np.float16) for n, m in self.maps.items()}
        slices = self.slices.astype(np.float16)
        part = file.with_suffix(".part.npz")
        np.savez(
            part, mask=self.mask, position=self.position, label=self.label, slices=slices, **brain
        )
        part.replace(file)

    @classmethod
    def load(cls, file: Path) -> Sample:
        """What :meth:`save` wrote."""
        with np.load(file) as data:
            mask = data["mask"]
            maps = {}
            for key in data.files:
                if key.startswith("map "):
                    maps[key[4:]] = np.zeros(mask.shape, np.float32)
                    maps[key[4:]][mask] = data[key]
            slices = data["slices"].astype(np.float32)
            return cls(mask, data["position"], data["label"], slices, maps)


def properties(detector: Detector, prepared: PreparedScan, seed: int = 0) -> dict[str, np.ndarray]:
    """All maps of a scan, (N, rows, columns) float32 each.

    Args:
        detector: a model with both priors, calibrated for its modes.
        prepared: the scan.
        seed: of restorations.
    """
    x, case = prepared.slices, detector.model.context(prepared, 1, seed)
    networks, reading = case.read()
    values = detector.model.calibration().codes
    assert values is not None
    back = networks.reconstruct(prepared, reading.codes)
    raw = {
        "intensity": x,
        "nll": upsampled(reading.nll, x.shape),
        "residual-one-view": np.abs(x - back),
    }
    for tile in TILES:
        _, expected = case.expect(ReadingPlan(tile), values)
        raw["residual"] = expected.residual  # the same whatever the tiles
        raw[f"nll-tile{tile}"] = upsampled(expected.nll, x.shape)
        raw[f"difference-tile{tile}"] = x - expected.image
        raw[f"absolute-tile{tile}"] = np.abs(x - expected.image)
        raw[f"reconstruction-tile{tile}"] = back - expected.image
    smooth = case.smoothed(raw)
    default = ModeSettings.of(detector.bundle.config, "default")
    own = MaskedRestoration(default, 0.0, values)
    maps = own.maps(case, case.expect(default.plan, values)[1])
    smooth |= {f"own-{name}": found for name, found in maps.items()}
    spacing = case.spacing_mm

    def local(name: str, sigma_mm: float, limit: float) -> np.ndarray:
        near = case.smoothed({name: raw[name]}, sigma_mm)[name]
        return without_wide_mean(near, prepared.mask, 20.0 / spacing, limit)

    for tile in TILES:
        smooth[f"local-tile{tile}"] = local(f"difference-tile{tile}", 5.0, 0.5)
        smooth[f"local-near-tile{tile}"] = local(f"difference-tile{tile}", 3.0, 0.5)
        smooth[f"local-wide-tile{tile}"] = local(f"difference-tile{tile}", 8.0, 0.5)
        smooth[f"nll-local-tile{tile}"] = local(f"nll-tile{tile}", 4.0, 4.0)
    smooth["residual-near"] = case.smoothed({"": raw["residual"]}, 2.5)[""]
    smooth["residual-local"] = local("residual", 4.0, 0.3)
    settings = ModeSettings.of(detector.bundle.config, "pixelsnail")
    threshold = detector.model.calibration("pixelsnail").restore_threshold
    smooth |= case.smoothed({"restored": x - _restored(detector, prepared, settings, threshold)})
    threshold = detector.model.calibration("paper").restore_threshold
    paper = np.abs(x - _restored(detector, prepared, PAPER, threshold))
    smooth["paper"] = np.where(prepared.mask, paper_filter(paper), 0.0).astype(np.float32)
    return smooth


def _restored(
    detector: Detector, prepared: PreparedScan, settings: ModeSettings, threshold: float
) -> np.ndarray:
    way = LatentSpaceRestoration(settings, threshold, threshold)
    averages: Averages
    *_, (averages, _) = way.restorations(detector.model.context(prepared, 1))
    return averages.mean.astype(np.float32)
