"""Loading a model, and a device to run it on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import BundleError
from LatentSpaceRestorationLib.model import Model
from LatentSpaceRestorationLib.runtime.device import choose_device
from LatentSpaceRestorationLib.volume import Volume
from tiny_model import generated_brain, write_tiny_brain_model, write_tiny_model


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> Detector:
    """The tiny model, without a brain-extraction model even where one is installed."""
    bundle = read_bundle(tiny_model)
    return Detector(Model.load(bundle), None, 2.0)


@pytest.fixture(scope="module")
def scan() -> Volume:
    """Twelve slices of a brain without a head, 4 mm along the patient's axes."""
    return generated_brain((44, 52, 12))


def test_a_model_is_found_by_its_name_or_folder(tiny_model: Path, detector: Detector) -> None:
    by_name = Detector.load("tiny", search=[tiny_model.parent])
    assert by_name.bundle.folder == tiny_model
    assert by_name.device in ("cpu", "cuda", "mps")
    assert (by_name.grid.rows, by_name.grid.columns, by_name.grid.spacing_mm) == (52, 40, 4.0)
    with pytest.raises(BundleError, match="there is no model"):
        Detector.load("no-such-model")


def test_an_unknown_device_is_refused_and_a_missing_one_replaced(
    tiny_model: Path, scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="not 'tpu'"):
        Detector.load(tiny_model, "tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = Detector.load(tiny_model, "cuda")
    assert loaded.device == "cpu"
    found = loaded.detect(scan, restorations=1)
    assert found.device == "cpu"
    assert any("cuda is not available here" in warning for warning in found.warnings)


def test_a_device_that_is_listed_but_fails_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "ones", broken)
    for wanted in ("auto", "cuda"):
        device, warnings = choose_device(wanted)
        assert device == "cpu"
        assert warnings == (
            "cuda does not work here (no kernel image is available); the CPU was used",
        )
    assert choose_device("cpu") == ("cpu", ())


def test_a_model_for_something_else_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_brain_model(tmp_path)
    with pytest.raises(BundleError, match="does not find anomalies"):
        Detector.load(folder)


def rewritten(source: Path, folder: Path, config: dict, calibration: dict | None = None) -> Path:
    """A copy of a model with other settings or calibration."""
    bundle = read_bundle(source)
    settings = {**bundle.config, "name": folder.name, **config}
    weights = {f: bundle.tensors(f) for f in bundle.config["files"] if f.endswith("safetensors")}
    given = bundle.calibration if calibration is None else calibration
    return write_bundle(folder, settings, weights, given).folder


def test_weights_that_do_not_fit_their_settings_are_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    for part, change in (("vqvae", {"codes": 8}), ("prior", {"channels": 16})):
        settings = {part: {**read_bundle(tiny_model).config[part], **change}}
        with pytest.raises(BundleError, match="do not fit its settings") as refusal:
            Detector.load(rewritten(tiny_model, tmp_path / part, settings))
        assert "\n" not in str(refusal.value)


def test_a_model_that_was_not_calibrated_says_so_at_once(
    tiny_model: Path, tmp_path: Path, scan: Volume
) -> None:
    loaded = Detector.load(rewritten(tiny_model, tmp_path / "raw", {}, {}))
    steps: list[str] = []
    with pytest.raises(BundleError, match="was not calibrated for mode 'default'"):
        loaded.detect(scan, progress=lambda _, what: steps.append(what))
    assert steps == []


def test_a_brain_model_may_be_missing_where_none_is_needed_but_not_damaged(
    tmp_path: Path, scan: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "LatentSpaceRestorationLib.bundle.bundle.default_models_folder", lambda: tmp_path
    )
    folder = write_tiny_model(tmp_path)
    found = Detector.load(folder, search=[tmp_path]).detect(scan, restorations=1)
    assert not any("brain-extraction" in warning for warning in found.warnings)
    brain = write_tiny_brain_model(tmp_path)
    rewritten(brain, brain, {"unet": {"channels": [4, 8, 8]}}, {})
    with pytest.raises(BundleError, match="brain-extraction"):
        Detector.load(folder, search=[tmp_path])
