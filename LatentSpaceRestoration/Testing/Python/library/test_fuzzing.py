"""Damaged and hostile files and arguments: each is used, or refused in one line.

``LSR_FUZZ=2000 pytest .../test_fuzzing.py`` (or ``make fuzz``) tries that many of each, other ones
every time.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib import cli
from LatentSpaceRestorationLib.bundle.bundle import Bundle, read_bundle
from LatentSpaceRestorationLib.calibration.levels import ModeCalibration
from LatentSpaceRestorationLib.datasets.read import read_subjects
from LatentSpaceRestorationLib.errors import BundleError, InputError
from LatentSpaceRestorationLib.io.images import read_volume

TRIES = int(os.environ.get("LSR_FUZZ", "0"))


def tries(few: int) -> settings:
    """A few examples, always the same; or as many new ones as are asked for."""
    return settings(
        max_examples=TRIES or few,
        derandomize=not TRIES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def one_line_of(error: Exception) -> str:
    line = str(error)
    assert line
    assert "\n" not in line
    return line


def refused(error: Exception, path: Path) -> None:
    line = one_line_of(error)
    assert line.startswith(f"{path}: "), line
    assert ";" in line, "says what to do"


#: Where a file is changed, and to what; or where it ends.
changes = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 255)), min_size=1, max_size=6)
ends = st.one_of(st.none(), st.floats(0.0, 1.0))


def changed(data: bytes, where: list[tuple[float, int]], end: float | None, head: int) -> bytes:
    """Bytes with some changed, most of them in the head."""
    content = bytearray(data)
    for number, (place, value) in enumerate(where):
        span = min(head, len(content)) if number % 2 == 0 else len(content)
        content[int(place * (span - 1))] = value
    return bytes(content if end is None else content[: int(end * len(content))])


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file of each format, by its ending."""
    folder = tmp_path_factory.mktemp("good")
    array = np.random.default_rng(0).normal(100.0, 20.0, (6, 5, 7)).astype(np.int16)
    for ending in (".nii", ".nii.gz", ".mgz"):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([2, 2, 2, 1.0])), folder / f"a{ending}")
    nibabel.save(nibabel.Nifti2Image(array, np.eye(4)), folder / "two.nii")
    found = {ending: (folder / f"a{ending}").read_bytes() for ending in (".nii", ".mgz")}
    found["2.nii"] = (folder / "two.nii").read_bytes()
    with contextlib.suppress(ImportError):
        import SimpleITK

        image = SimpleITK.GetImageFromArray(array)
        for ending in (".nrrd", ".mha"):
            SimpleITK.WriteImage(image, str(folder / f"a{ending}"))
            found[ending] = (folder / f"a{ending}").read_bytes()
    return found


@tries(150)
@given(st.integers(0, 4), changes, ends, st.booleans())
def test_files_of_scans(
    seeds: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    which: int,
    where: list[tuple[float, int]],
    end: float | None,
    packed: bool,
) -> None:
    ending = sorted(seeds)[which % len(seeds)]
    head = {".nii": 352, "2.nii": 544}.get(ending, 300)
    data = seeds[ending]
    if ending == ".mgz":  # inside its packing, where the header is
        data = gzip.compress(changed(gzip.decompress(data), where, end, head))
    else:
        data = changed(data, where, end, head)
    if packed and ending.endswith(".nii"):
        data, ending = gzip.compress(data), f"{ending}.gz"
    path = tmp_path_factory.getbasetemp() / f"fuzzed{ending}"
    path.write_bytes(data)
    try:
        volume = read_volume(path)
    except InputError as error:
        refused(error, path)
    else:
        assert np.isfinite(volume.array).all()
        assert volume.array.ndim == 3
        assert volume.array.dtype == np.float32
        assert np.isfinite(volume.affine).all()


def json_values(finite: bool) -> st.SearchStrategy[Any]:
    """What may stand in a JSON file."""
    numbers = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    if not finite:
        numbers |= st.floats()
    return st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    )


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one's own, to be spoilt."""
    return Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("fuzz") / "tiny"))


def load(folder: Path) -> Bundle | None:
    """The model as far as it can be had; None, and a line, if it is refused."""
    try:
        bundle = read_bundle(folder)
        from LatentSpaceRestorationLib.detector import Detector

        detector = Detector.load(folder, "cpu")
        for mode in ("default", "paper"):
            detector.model.calibration(mode).at(7)
    except BundleError as error:
        one_line_of(error)
        return None
    return bundle


@tries(60)
@given(st.data())
def test_settings_of_models(model: Path, tiny_model: Path, data: st.DataObject) -> None:
    config: dict[str, Any] = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 2))):
        target = config
        key = data.draw(st.sampled_from(sorted(config)))
        if isinstance(config[key], dict) and config[key] and data.draw(st.booleans()):
            target = config[key]
            key = data.draw(st.sampled_from(sorted(target)))
        target[key] = data.draw(json_values(finite=False))
    (model / "model.json").write_text(json.dumps(config))
    load(model)


@tries(60)
@given(changes, ends, st.sampled_from(["model.json", "calibration.json", "place.safetensors"]))
def test_files_of_models(
    model: Path,
    tiny_model: Path,
    where: list[tuple[float, int]],
    end: float | None,
    file: str,
) -> None:
    """The hashes are those of the spoilt files: whoever means harm can compute them."""
    config = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))
    data = changed((tiny_model / file).read_bytes(), where, end, 300)
    (model / file).write_bytes(data)
    if file != "model.json":
        config["files"][file] = sha256(data).hexdigest()
        (model / "model.json").write_text(json.dumps(config))
    try:
        load(model)
    finally:
        shutil.copy(tiny_model / file, model / file)


@tries(100)
@given(json_values(finite=True))
def test_calibrations(content: Any) -> None:
    for entry in (content, {"levels": [content]}, {"levels": content, "restore_threshold": 1}):
        try:
            ModeCalibration.from_json(entry)
        except BundleError as error:
            one_line_of(error)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A DICOM series of four slices."""
    pytest.importorskip("SimpleITK")
    pytest.importorskip("pydicom")
    from dicom_files import write_series

    folder = tmp_path_factory.mktemp("series")
    stored = np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16)
    write_series(folder, stored, np.diag([-2.0, -2.0, 3.0, 1.0]))
    return sorted(folder.iterdir())


#: Tags of where slices lie, how many images they have, and how their numbers are to be read.
keywords = st.sampled_from(
    ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "Rows"]
    + ["RescaleIntercept", "NumberOfFrames", "EchoNumbers", "ImageType", "SeriesNumber"]
    + ["PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation"]
)
odd_values = st.one_of(
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.6g}"),
    st.lists(st.integers(-9, 9).map(str), max_size=7),
    st.integers(0, 65535),
    st.text(max_size=8),
)


@tries(40)
@given(st.lists(st.tuples(st.integers(0, 3), keywords, odd_values), max_size=4), changes, ends)
def test_headers_of_dicom_series(
    slices: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
    tags: list[tuple[int, str, Any]],
    where: list[tuple[float, int]],
    end: float | None,
) -> None:
    from pydicom import config, dcmread

    folder = tmp_path_factory.getbasetemp() / "fuzzed-series"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(slices[0].parent, folder)
    config.settings.writing_validation_mode = config.IGNORE
    for number, keyword, value in tags:
        file = folder / slices[number].name
        with contextlib.suppress(Exception):  # what pydicom does not write is no file
            header = dcmread(file)
            setattr(header, keyword, value)
            header.save_as(file)
    if len(tags) < 2:
        file = folder / slices[0].name
        file.write_bytes(changed(file.read_bytes(), where, end, 1400))
    try:
        found = read_volume(folder)
    except InputError as error:
        refused(error, folder)
        return
    assert np.isfinite(found.array).all()
    assert np.isfinite(found.affine).all()


@tries(100)
@given(st.binary(max_size=200), changes, ends)
def test_tables_of_subjects(
    tmp_path_factory: pytest.TempPathFactory,
    tail: bytes,
    where: list[tuple[float, int]],
    end: float | None,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-bids"
    (folder / "sub-01" / "anat").mkdir(parents=True, exist_ok=True)
    (folder / "sub-01" / "anat" / "sub-01_T1w.nii.gz").write_bytes(b"")
    (folder / "dataset_description.json").write_bytes(tail)
    good = b"subject\tparticipant_id\tt1w\tsplit\tsession\n1\tsub-01\ta.nii\ttrain\tn/a\n"
    for name in ("participants.tsv", "table.tsv", "table.csv"):
        (folder / name).write_bytes(changed(good, where, end, 60) + tail)
    for source in (folder, folder / "table.tsv", folder / "table.csv"):
        for strict in (False, True):
            try:
                read_subjects(source, strict=strict)
            except InputError as error:
                one_line_of(error)


words = st.one_of(
    st.sampled_from(
        ["detect", "models", "verify", "show", "list", "-o", "--model", "nobody", "--json", "-h"]
        + ["--threshold", "--seed", "1e9", "-1", "nan", "--mode", "paper", "--debug", "--method"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=12),
)


@tries(150)
@given(
    st.sampled_from(["detect", "models", "evaluate", "calibrate", "train", "-o", "--version", "x"]),
    st.lists(words, max_size=7),
)
def test_arguments(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    first: str,
    further: list[str],
) -> None:
    before = Path.cwd()
    os.chdir(tmp_path_factory.getbasetemp())
    try:
        # The last word counts, so that no model is loaded.
        status = cli.main([first, *further, *(["--model=nobody"] if first == "detect" else [])])
    finally:
        os.chdir(before)
    _, err = capsys.readouterr()
    assert status in (0, 2, 3)
    if status and "--debug" not in further:
        assert all(line.startswith("lsr: error: ") for line in err.splitlines())
