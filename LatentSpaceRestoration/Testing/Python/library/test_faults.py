"""What goes wrong around a detection: one line says it, and nothing is left half done."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import ROOT, Lsr, one_line, save_scan, written
from LatentSpaceRestorationLib.detect_file import detect_file
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import InputError, OutputError
from LatentSpaceRestorationLib.results.files import ENDINGS
from stub_detector import StubDetector

FILES = {f"scan_{ending}" for ending in ENDINGS}


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan that the stand-in for a detector can use."""
    array = np.zeros((12, 14, 10), np.float32)
    array[2:-2, 2:-2, 2:-2] = 100.0
    array[5:7, 5:7, 4:6] = 180.0
    return save_scan(tmp_path / "scan.nii.gz", array)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def check_whole(folder: Path) -> None:
    """Every result in a folder can be read to its end."""
    for file in folder.iterdir():
        if file.name.endswith(".nii.gz"):
            assert np.isfinite(nibabel.load(file).get_fdata()).all()
        elif file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".png":
            assert file.read_bytes().endswith(b"IEND\xaeB`\x82")


def test_a_disk_that_fills_up_while_images_are_written(
    scan: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = nibabel.Nifti1Image.to_filename

    def write(self: nibabel.Nifti1Image, file: Path) -> None:
        if "restoration" in str(file):
            Path(file).write_bytes(b"half an image")
            raise OSError(28, "No space left on device")
        real(self, file)

    monkeypatch.setattr(nibabel.Nifti1Image, "to_filename", write)
    with pytest.raises(OutputError) as failure:
        detect_file(StubDetector(), scan, out)
    line = str(failure.value)
    assert line.startswith(f"{out}: the results of scan.nii.gz cannot be written (No space left")
    assert "/.lsr-" not in line, "a hidden file is named"
    assert "\n" not in line
    assert written(out) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the system")
def test_a_real_limit_on_what_is_written(scan: Path, out: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            detect_file(StubDetector(), scan, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert written(out) == set()


def test_a_scan_that_is_deleted_or_replaced_meanwhile(scan: Path, out: Path) -> None:
    affine = nibabel.load(scan).affine

    def replace(number: int) -> None:
        save_scan(scan, np.zeros((3, 4, 5), np.float32))

    def delete(number: int) -> None:
        scan.unlink(missing_ok=True)

    for change in (replace, delete):
        save_scan(scan, np.pad(np.full((8, 9, 6), 100.0, np.float32), 2), affine)
        detector = StubDetector()
        detector.before_step = change
        detect_file(detector, scan, out)
        assert written(out) == FILES
        assert nibabel.load(out / "scan_anomaly-map.nii.gz").shape == (12, 13, 10)
        shutil.rmtree(out)
        out.mkdir()
    with pytest.raises(InputError, match="there is no such file"):
        detect_file(detector, scan, out)


def test_an_output_folder_that_is_deleted_meanwhile(scan: Path, out: Path) -> None:
    detector = StubDetector()
    detector.before_step = lambda number: shutil.rmtree(out, ignore_errors=True)
    detect_file(detector, scan, out)
    assert written(out) == FILES


def test_several_runs_at_once_into_one_folder(scan: Path, out: Path) -> None:
    faults: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(3):
                detect_file(StubDetector(), scan, out)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert written(out) == FILES
    check_whole(out)


#: Runs a detection, and is killed when it has put so many files into their places.
KILLED = """
import os, signal, sys
from pathlib import Path
scan, out, after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
from LatentSpaceRestorationLib.detect_file import detect_file
from stub_detector import StubDetector
real, placed = os.replace, 0
def replace(source, target):
    global placed
    if Path(target).parent == out:
        if placed == after:
            os.kill(os.getpid(), signal.SIGKILL)
        placed += 1
    real(source, target)
os.replace = replace
detect_file(StubDetector(), scan, out)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("after", [0, 3])
def test_a_killed_process_leaves_no_half_written_result(scan: Path, out: Path, after: int) -> None:
    paths = (
        ROOT / "LatentSpaceRestoration",
        ROOT / "LatentSpaceRestoration" / "Testing" / "Python" / "support",
    )
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(scan), str(out), str(after)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    results = {name for name in written(out) if not name.startswith(".lsr-")}
    assert len(results) == after
    assert results <= FILES
    check_whole(out)
    # And the next run is as if nothing had been.
    detect_file(StubDetector(), scan, out)
    assert {name for name in written(out) if not name.startswith(".lsr-")} == FILES


def test_memory_that_runs_out(
    detect: Lsr, brain_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Detector, "detect", full)
    status, _, err = detect(brain_scan)
    assert status == 3
    assert "does not fit into memory; resample it" in one_line(err)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_or_a_device_is_not_waited_for(detect: Lsr, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii.gz")
    for path in (tmp_path / "pipe.nii.gz", Path("/dev/zero")):
        status, _, err = detect(path)
        assert status == 3
        assert "is not a file; give an image file" in one_line(err)


def test_names_that_no_file_can_have(detect: Lsr, tmp_path: Path) -> None:
    for name in ("x" * 5000 + ".nii", "x" * 5000):
        status, _, err = detect(tmp_path / name)
        assert status == 3
        assert "at most; rename the scan" in one_line(err)
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    status, _, err = detect(tmp_path / "loop.nii")
    assert status == 3
    one_line(err)


def test_more_voxels_than_can_be_worked_on(detect: Lsr, tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((20_000, 20_000, 20_000))
    header.set_data_dtype(np.int16)
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(4))
    status, _, err = detect(tmp_path / "huge.nii")
    assert status == 3
    assert "20000 x 20000 x 20000 voxels are more than can be worked on" in one_line(err)


def test_a_header_in_metres_or_with_a_spacing_out_of_this_world(
    detect: Lsr, brain_scan: Path, tmp_path: Path
) -> None:
    source = nibabel.load(brain_scan)
    array = np.asarray(source.dataobj)
    for factor, words in (
        (1e-3, "(0.004 x 0.004 x 0.004) is in mm"),
        (100.0, "mm large; mend the spacing in the header"),
    ):
        affine = source.affine @ np.diag([factor, factor, factor, 1.0])
        status, _, err = detect(save_scan(tmp_path / "scan.nii.gz", array, affine))
        assert status == 3
        assert words in one_line(err)


@pytest.mark.slow
def test_many_detections_in_one_process_keep_no_memory(tiny_model: Path) -> None:
    """200 of them; what the first ones allocate for good does not count."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc")
    from tiny_model import generated_brain

    def resident_mb() -> float:
        gc.collect()
        return (
            int(statm.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        )

    detector = Detector.load(tiny_model, "cpu")
    scans = [generated_brain((44, 52, 12), seed=seed) for seed in range(4)]
    sizes = []
    for number in range(200):
        detector.detect(scans[number % 4], restorations=1 + number % 3, seed=number)
        if number % 20 == 19:
            sizes.append(resident_mb())
    assert sizes[-1] - sizes[1] < 20.0, sizes
