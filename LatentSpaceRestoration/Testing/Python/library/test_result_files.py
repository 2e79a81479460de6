"""The files of a result: what is written, and that it is all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import Lsr, one_line, save_scan, written
from LatentSpaceRestorationLib import __version__, estimator
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import DISTRUST
from LatentSpaceRestorationLib.options import RunOptions

ENDINGS = {
    "anomaly-map.nii.gz",
    "anomaly-mask.nii.gz",
    "restoration.nii.gz",
    "restoration-sd.nii.gz",
    "anomaly.png",
    "anomaly.json",
}
KEYS = {
    *("sample_score", "percentile", "p_value", "threshold", "slice_scores", "model", "mode"),
    *("method", "restorations", "seed", "device", "warnings", "seconds", "version"),
}


def test_files_geometry_and_figures(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    status, out, err = detect(brain_scan)
    assert status == 0
    assert err == ""
    assert written(tmp_path / "out") == {f"brain_{ending}" for ending in ENDINGS}
    source = nibabel.load(brain_scan)
    images = {}
    for ending in sorted(ENDINGS):
        if ending.endswith(".nii.gz"):
            image = nibabel.load(tmp_path / "out" / f"brain_{ending}")
            assert image.shape == source.shape
            np.testing.assert_array_equal(image.affine, source.affine)
            images[ending] = np.asarray(image.dataobj)
    heat, mask = images["anomaly-map.nii.gz"], images["anomaly-mask.nii.gz"]
    assert heat.dtype == np.float32
    assert mask.dtype == np.uint8
    figures = json.loads((tmp_path / "out" / "brain_anomaly.json").read_text(encoding="utf-8"))
    assert figures.keys() >= KEYS
    np.testing.assert_array_equal(mask, (heat >= figures["threshold"]) & (heat > 0))
    assert all(row.keys() == {"position_mm", "score"} for row in figures["slice_scores"])
    assert figures["model"] == "tiny"
    assert figures["restorations"] == 1
    assert figures["version"] == __version__
    assert figures["scan"] == "brain.nii.gz"
    assert f"score {figures['sample_score']:.4g}" in out
    assert str(tmp_path / "out" / "brain_anomaly.png") in out
    assert (tmp_path / "out" / "brain_anomaly.png").read_bytes().startswith(b"\x89PNG")


def test_a_map_that_is_not_to_be_trusted_flags_nothing_and_has_no_percentile(
    detect: Lsr, brain_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubt = f"this is no brain: look at it; {DISTRUST}"
    monkeypatch.setattr(estimator, "doubts_of_model", lambda *_: (doubt,))
    status, out, _ = detect(brain_scan, "--threshold", 50)
    assert status == 0
    mask = nibabel.load(tmp_path / "out" / "brain_anomaly-mask.nii.gz")
    assert not np.asarray(mask.dataobj).any()
    assert np.asarray(nibabel.load(tmp_path / "out" / "brain_anomaly-map.nii.gz").dataobj).any()
    figures = json.loads((tmp_path / "out" / "brain_anomaly.json").read_text(encoding="utf-8"))
    for key in ("percentile", "p_value", "flagged_ml", "regions"):
        assert figures[key] is None, key
    assert doubt in figures["warnings"]
    assert figures["sample_score"] > 0.0
    assert "no percentile, since the map is not to be trusted" in out
    assert "flagged: nothing, as the note says" in out
    # Of the edge of a scan alone it is not said that nothing can be trusted.
    monkeypatch.setattr(estimator, "doubts_of_model", lambda *_: (f"x; near it {DISTRUST}",))
    assert detect(brain_scan, "--threshold", 50)[0] == 0
    figures = json.loads((tmp_path / "out" / "brain_anomaly.json").read_text(encoding="utf-8"))
    assert figures["flagged_ml"] > 0.0
    assert figures["percentile"] is not None


def test_options_reach_the_detector(
    detect: Lsr, brain_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def spy(self: Detector, volume: object, options: RunOptions, **others: object) -> None:
        given.update(asdict(options), **others)
        raise KeyboardInterrupt

    monkeypatch.setattr(Detector, "detect", spy)
    options = ["--mode", "paper", "--threshold", 97.5, "--seed", 7, "--restorations", 3]
    detect(brain_scan, *options)
    expected = {"mode": "paper", "method": "lsr", "threshold": 97.5, "seed": 7, "restorations": 3}
    assert given.items() >= expected.items()
    assert given["brain_mask"] is None


def test_json_lines_are_the_files(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    other = shutil.copy(brain_scan, tmp_path / "other.nii.gz")
    status, out, err = detect(brain_scan, other, "--json")
    assert status == 0
    assert err == ""
    for line, name in zip(out.splitlines(), ("brain", "other"), strict=True):
        assert json.loads(line) == json.loads(
            (tmp_path / "out" / f"{name}_anomaly.json").read_text(encoding="utf-8")
        )


def test_same_seed_same_files(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert detect(brain_scan, "-o", tmp_path / folder, "--seed", 3)[0] == 0
    for ending in ENDINGS - {"anomaly.json"}:
        name = f"brain_{ending}"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_brain_mask_is_where_the_map_is(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    source = nibabel.load(brain_scan)
    inside = np.asarray(source.dataobj) > 0
    inside[:26] = False
    mask = save_scan(tmp_path / "mask.nii.gz", inside.astype(np.uint8), source.affine)
    assert detect(brain_scan, "--brain-mask", mask)[0] == 0
    heat = nibabel.load(tmp_path / "out" / "brain_anomaly-map.nii.gz").get_fdata()
    assert not heat[:25].any()
    assert heat[27:].any()


def test_a_trailing_axis_is_kept(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    source = nibabel.load(brain_scan)
    scan = save_scan(tmp_path / "four.nii", np.asarray(source.dataobj)[..., None], source.affine)
    assert detect(scan)[0] == 0
    assert nibabel.load(tmp_path / "out" / "four_anomaly-map.nii.gz").shape == (*source.shape, 1)


def test_earlier_results_are_replaced(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "brain_anomaly.json").write_text("old")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert detect(brain_scan)[0] == 0
    json.loads((tmp_path / "out" / "brain_anomaly.json").read_text(encoding="utf-8"))
    assert written(tmp_path / "out") == {f"brain_{e}" for e in ENDINGS} | {"notes.txt"}


# Inputs that cannot be used


def make_bad(kind: str, scan: Path, folder: Path) -> Path:
    source = nibabel.load(scan)
    array = np.asarray(source.dataobj).copy()
    if kind == "missing":
        return folder / "bad.nii.gz"
    if kind == "not an image":
        (folder / "bad.nii.gz").write_bytes(b"no image")
        return folder / "bad.nii.gz"
    if kind == "cut short":
        (folder / "bad.nii.gz").write_bytes(scan.read_bytes()[:5000])
        return folder / "bad.nii.gz"
    changed = {
        "4-D": np.stack([array, array], -1),
        "one slice": array[..., :1],
        "constant": np.full_like(array, 3.0),
        "NaN": np.where(array == array.max(), np.nan, array),
        "infinite": np.where(array == array.max(), np.inf, array),
        "no brain": np.where(np.indices(array.shape).sum(axis=0) < 12, array + 50, 0),
    }[kind]
    return save_scan(folder / "bad.nii.gz", changed.astype(np.float32), source.affine)


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "not an image", "cut short", "4-D", "one slice", "constant", "NaN"),
        *("infinite", "no brain"),
    ],
)
def test_unusable_scans(detect: Lsr, brain_scan: Path, tmp_path: Path, kind: str) -> None:
    bad = make_bad(kind, brain_scan, tmp_path)
    status, out, err = detect(bad)
    assert status == 3
    assert str(bad) in one_line(err)
    assert ";" in err, "says what to do"
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_the_other_scans_are_still_done(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.nii").write_text("no image")
    status, _, err = detect(tmp_path / "none.nii", brain_scan, tmp_path / "bad.nii")
    assert status == 3
    lines = err.splitlines()
    assert len(lines) == 2
    assert "none.nii" in lines[0]
    assert "bad.nii" in lines[1]
    assert written(tmp_path / "out") == {f"brain_{ending}" for ending in ENDINGS}


def test_a_mask_of_another_grid(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    mask = save_scan(tmp_path / "mask.nii.gz", np.ones((5, 6, 7), np.uint8))
    status, _, err = detect(brain_scan, "--brain-mask", mask)
    assert status == 3
    assert str(mask) in one_line(err)
    assert "5 x 6 x 7" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_full_disk_leaves_all_as_it_was(
    detect: Lsr, brain_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Placing a file fails after this many were placed."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "brain_restoration.nii.gz").write_text("old")
    real, count = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal count
        if Path(target).parent == out:
            count += 1
            if count == after + 1:
                raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("os.replace", replace)
    status, _, err = detect(brain_scan)
    assert status == 2
    assert "No space left on device" in one_line(err)
    assert written(out) == {"brain_restoration.nii.gz"}
    assert (out / "brain_restoration.nii.gz").read_text(encoding="utf-8") == "old"


# What a detection reads and writes

EVENTS: list[tuple[str, tuple[object, ...]]] | None = None


def remember(event: str, arguments: tuple[object, ...]) -> None:
    if EVENTS is not None and event in ("open", "socket.connect", "socket.getaddrinfo"):
        EVENTS.append((event, arguments))


def test_nothing_is_asked_of_the_network_and_no_other_file_touched(
    detect: Lsr, brain_scan: Path, tiny_model: Path, tmp_path: Path
) -> None:
    global EVENTS
    mine = Path(shutil.copy(brain_scan, tmp_path / "brain.nii.gz"))
    shutil.copy(brain_scan, tmp_path / "other.nii.gz")
    sys.addaudithook(remember)  # for good, but it listens only here
    EVENTS = []
    try:
        assert detect(mine)[0] == 0
    finally:
        events, EVENTS = EVENTS, None
    assert [name for name, _ in events if name.startswith("socket.")] == []
    out = tmp_path / "out"
    for _, (path, _, flags) in events:
        if not isinstance(path, str | bytes | os.PathLike) or not isinstance(flags, int):
            continue
        file = Path(os.fsdecode(path))
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and file.suffix != ".pyc" and not file.is_relative_to("/dev"):
            assert file.is_relative_to(out), f"{file} was written"
        elif file.is_relative_to(tmp_path):
            assert file == mine or file.is_relative_to(out), f"{file} was read"
    assert json.loads((out / "brain_anomaly.json").read_text(encoding="utf-8"))["notice"] == (
        "For research use. Not for diagnosis."
    )
