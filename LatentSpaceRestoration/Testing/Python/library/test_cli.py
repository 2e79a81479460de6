"""The ``lsr`` command: arguments, exit statuses, messages."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, Lsr, one_line, written
from LatentSpaceRestorationLib import __version__
from LatentSpaceRestorationLib.detector import Detector


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"),
        (["find"], "invalid choice"),
        (["detect", "a.nii"], "-o/--output"),
        (["detect", "-o", "x"], "SCAN"),
        (["detect", "a.nii", "-o", "x", "--mode", "best"], "'best'"),
        (["detect", "a.nii", "-o", "x", "--method", "vae2"], "'vae2'"),
        (["detect", "a.nii", "-o", "x", "--device", "tpu"], "'tpu'"),
        (["detect", "a.nii", "-o", "x", "--restorations", "0"], "0 is not at least 1"),
        (["detect", "a.nii", "-o", "x", "--restorations", "two"], "'two' is not a whole number"),
        (["detect", "a.nii", "-o", "x", "--threshold", "0"], "0 is not between 0 and 100"),
        (["detect", "a.nii", "-o", "x", "--threshold", "100"], "100 is not between"),
        (["detect", "a.nii", "-o", "x", "--threshold", "nan"], "nan is not between"),
        (["detect", "a.nii", "-o", "x", "--threshold", "high"], "'high' is not a number"),
        (["detect", "a.nii", "-o", "x", "--seed", "-1"], "-1 is not between"),
        (["detect", "a.nii", "-o", "x", "--model", "nobody"], "there is no model nobody"),
        (["detect", "a.nii", "b/a.nii.gz", "-o", "x"], "rename one of the two"),
        (["detect", "a.nii", "A.nii", "-o", "x"], "rename one of the two"),
        (["detect", "./a.nii", "a_restoration.nii.gz", "-o", "."], "would replace this scan"),
        (["models", "show"], "NAME_OR_FOLDER"),
        (["models", "show", "nobody"], "there is no model nobody"),
        (["models", "verify", "nobody"], "there is no model nobody"),
    ],
)
def test_unusable_arguments(
    lsr: Lsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = lsr(*arguments)
    assert status == 2
    assert said in one_line(err)
    assert out == ""
    assert written(tmp_path) == set()


def test_a_damaged_model(lsr: Lsr, brain_scan: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "mine"))
    weights = bytearray((model / "prior.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "prior.safetensors").write_bytes(weights)
    status, _, err = lsr("detect", brain_scan, "-o", tmp_path / "out", "--model", model)
    assert status == 2
    assert "prior.safetensors is not as it was made" in one_line(err)
    assert not (tmp_path / "out").exists()
    status, out, err = lsr("models", "verify", tiny_model, model)
    assert status == 2
    assert "files are as they were made" in out
    assert "prior.safetensors" in one_line(err)


@pytest.mark.parametrize("where", ["file/out", "file", "/proc/nowhere/out", "/dev/null/out"])
def test_folders_that_cannot_be_written(
    detect: Lsr, brain_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(Detector, "load", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("in the way")
    status, _, err = detect(brain_scan, "-o", tmp_path / where)
    assert status == 2
    assert where in one_line(err)
    assert written(tmp_path) == {"file"}


def test_a_folder_where_a_file_is_to_be(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    taken = tmp_path / "out" / "brain_anomaly.png"
    taken.mkdir(parents=True)
    status, _, err = detect(brain_scan)
    assert status == 2
    assert str(taken) in one_line(err)
    assert written(tmp_path / "out") == {taken.name}


def test_a_fault_of_the_program_is_one_line(
    detect: Lsr, brain_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(Detector, "detect", broken)
    status, _, err = detect(brain_scan)
    assert status == 1
    assert "RuntimeError: first second" in one_line(err)
    assert not (tmp_path / "out").exists()
    status, _, err = detect(brain_scan, "--debug")
    assert status == 1
    assert "Traceback" in err


def test_debug_shows_where_an_input_was_refused(detect: Lsr, tmp_path: Path) -> None:
    status, _, err = detect(tmp_path / "none.nii", "--debug")
    assert status == 3
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("lsr: error: ")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "LatentSpaceRestorationLib", *map(str, arguments)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "LatentSpaceRestoration")}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_at_a_terminal(brain_scan: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Progress is shown, and Ctrl-C ends it with status 130 and nothing written."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(
            *("detect", brain_scan, "-o", tmp_path / "out", "--model", tiny_model),
            *("--restorations", 20000, "--device", "cpu"),
        ),
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        # A test run in the background of a shell ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    shown, deadline, stopped = "", time.monotonic() + 200, False
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:  # the other end has closed
                break
            if "Restoring" in shown and not stopped:
                process.send_signal(signal.SIGINT)
                stopped = True
        assert stopped, f"the restoration did not begin in time: {shown}"
        assert process.wait(60) == 130, shown
        assert process.stdout is not None
        assert process.stdout.read() == b""
    finally:
        process.kill()
        process.stdout.close() if process.stdout else None
        os.close(ours)
    assert re.search(r"brain\.nii\.gz: +\d+%", shown)
    assert shown.strip().endswith("lsr: error: cancelled")
    assert "Traceback" not in shown
    assert not (tmp_path / "out").exists()


def test_nothing_heavy_is_imported_to_answer_at_once(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from LatentSpaceRestorationLib import cli\n"
        "statuses = [cli.main(line.split()) for line in sys.argv[1:]]\n"
        "print(statuses, 'torch' in sys.modules)\n"
    )
    lines = [
        *("--help", "--version", "detect --help", "models list", "models verify nobody"),
        *("detect a.nii", f"detect a.nii -o {tmp_path}/out --model nobody"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *lines],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0, 2, 2, 2] False"


def test_help_needs_no_numpy() -> None:
    program = (
        "import sys\n"
        "from LatentSpaceRestorationLib import cli\n"
        "assert cli.main(['detect', '--help']) == 0\n"
        "print(sorted({'numpy', 'scipy', 'nibabel', 'torch'} & sys.modules.keys()))\n"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_and_version() -> None:
    done = subprocess.run(
        command("--version"), capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert done.stdout == f"lsr {__version__}\n"


def test_models(
    lsr: Lsr, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "LatentSpaceRestorationLib.bundle.bundle.default_models_folder", lambda: tmp_path
    )
    assert lsr("models") == (0, f"no models in {tmp_path}\n", "")
    assert lsr("models", "verify")[0] == 2
    shutil.copytree(tiny_model, tmp_path / "tiny")
    shutil.copytree(tiny_model, tmp_path / "torn")
    (tmp_path / "torn" / "MODEL_CARD.md").unlink()
    status, out, _ = lsr("models", "list")
    assert status == 0
    whole, torn = out.splitlines()
    assert whole.split()[:3] == ["tiny", "anomaly", "T1"]
    assert "damaged" in torn
    assert "MODEL_CARD.md is missing" in torn
    status, out, _ = lsr("models", "show", "tiny")
    assert status == 0
    assert 'licence: "Apache-2.0"' in out
    assert "A model with random weights" in out
    status, out, err = lsr("models", "verify")
    assert status == 2
    assert out.startswith("tiny: ")
    assert "torn" in one_line(err)
    assert lsr("models", "verify", "tiny")[0] == 0
