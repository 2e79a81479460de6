"""Half precision where the hardware has it: the same codes, nearly the same map, and said so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Lsr, save_scan
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.detect_file import detect_file
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.options import RunOptions
from LatentSpaceRestorationLib.runtime import device, placement
from LatentSpaceRestorationLib.runtime.placement import Placement
from tiny_model import generated_brain


def test_codes_are_the_same_and_maps_nearly_so(tiny_model: Path) -> None:
    scan = generated_brain((44, 52, 40))
    codes, maps = [], []
    for precision in ("float32", "bfloat16"):
        detector = Detector.load(tiny_model, "cpu", precision=precision)
        opened = detector.open(scan)
        found = detector.detect(opened, restorations=3)
        assert found.precision == precision
        (expected,) = opened.known.expected.values()
        codes.append(expected.decoded.codes)
        maps.append(found.anomaly_map)
    np.testing.assert_array_equal(*codes)
    full, half = maps
    assert not np.array_equal(full, half)
    assert np.abs(full - half).max() < 0.1 * full.max()
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.999


def test_the_machine_decides_unless_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "fastest_precision", lambda device: torch.bfloat16)
    assert Placement("cpu", {}, "auto").precision == "bfloat16"
    assert Placement("cpu", {}, "float32").precision == "float32"
    assert Placement("cpu", {}).precision == "float32"
    monkeypatch.setattr(placement, "fastest_precision", lambda device: torch.float32)
    assert Placement("cpu", {}, "auto").precision == "float32"
    assert Placement("cpu", {}, "bfloat16").precision == "bfloat16"
    with Placement("cpu", {}, "bfloat16").arithmetic():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with Placement("cpu", {}, "auto").arithmetic():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_processor_has_bfloat16_if_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "Path", lambda _: flags)
    assert device.fastest_precision("cpu") == torch.float32
    flags.write_text("flags : fpu sse avx512f avx512_bf16 amx_bf16\n", encoding="utf-8")
    assert device.fastest_precision("cpu") == torch.bfloat16
    assert device.fastest_precision("mps") == torch.float32


def test_results_and_calibrations_say_it(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    assert detect(brain_scan, "--precision", "bfloat16")[0] == 0
    figures = json.loads((tmp_path / "out" / "brain_anomaly.json").read_text(encoding="utf-8"))
    assert figures["precision"] == "bfloat16"
    assert RunOptions().precision == "auto"
    shipped = Path(__file__).parents[3] / "Resources" / "Models" / "brain-t1"
    assert read_bundle(shipped).calibration["precision"] == "float32"


def test_small_integers_give_what_floats_give(tiny_model: Path, tmp_path: Path) -> None:
    """Half of the memory, and nothing else."""
    scan = generated_brain((44, 52, 40))
    whole = np.round(scan.array * 100.0)
    detector = Detector.load(tiny_model, "cpu")
    found = {}
    for kind in ("int16", "float32"):
        file = save_scan(tmp_path / f"{kind}.nii.gz", whole.astype(kind), scan.affine)
        found[kind] = detect_file(detector, file, tmp_path / kind, restorations=2)
        assert found[kind].volume.array.dtype == kind
    one, other = (found[kind].detection for kind in ("int16", "float32"))
    assert one.sample_score == other.sample_score
    for name in ("anomaly_map", "restoration", "restoration_sd"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
