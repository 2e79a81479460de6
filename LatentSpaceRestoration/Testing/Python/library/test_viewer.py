"""The page of a scan in a real browser: what is seen lies where it is, and every control works."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_files import PATIENT, write_series
from headless import browser, complaints, live
from LatentSpaceRestorationLib.calibration.quantiles import Quantiles
from LatentSpaceRestorationLib.detect_file import detect_file
from LatentSpaceRestorationLib.errors import DISTRUST, InputError
from LatentSpaceRestorationLib.io.images import write_volume
from LatentSpaceRestorationLib.results.picture import grey_range
from LatentSpaceRestorationLib.results.report.scan import scan_report
from LatentSpaceRestorationLib.results.report.viewer import _content, resource, viewer
from LatentSpaceRestorationLib.volume import Volume
from PIL import Image
from scan_grids import rotation
from stub_detector import StubDetector

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = rotation((12.0, -9.0, 15.0)) * 2.0
OBLIQUE[:3, 3] = (-50.0, -75.0, -40.0)
GRIDS = {
    "RAS": np.array([[2.0, 0, 0, -60], [0, 2, 0, -70], [0, 0, 2, -50], [0, 0, 0, 1]]),
    "LPS": np.array([[-2.0, 0, 0, 60], [0, -2, 0, 70], [0, 0, 2, -50], [0, 0, 0, 1]]),
    "PSR": np.array([[0, 0, 2.0, -60], [-2, 0, 0, 70], [0, 2, 0, -50], [0, 0, 0, 1]]),
    "oblique": OBLIQUE,
    "thick": np.array([[1.0, 0, 0, -60], [0, 1.5, 0, -70], [0, 0, 5, -50], [0, 0, 0, 1]]),
    "fine": np.array([[0.6, 0, 0, -60], [0, 2, 0, -70], [0, 0, 2, -50], [0, 0, 0, 1]]),
}
SPOT, RADIUS = np.array([22.0, 28.0, 16.0]), 9.0


def scan_on(affine: np.ndarray) -> Volume:
    """A brain of 100 with a brighter spot on the right, in front, above, highest in its middle.

    Where the spot is, the stub's map is above 100, and half of that where the brain is 150.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    turned = np.abs(affine[:3, :3] / spacing).argmax(axis=0)
    shape = tuple(np.round(np.array([120, 140, 100])[turned] / spacing).astype(int))
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    centre = (np.array(shape) - 1) / 2 @ affine[:3, :3].T + affine[:3, 3]
    brain = np.square((points - centre) / [50.0, 60.0, 42.0]).sum(axis=-1) < 1
    from_spot = np.linalg.norm(points - SPOT, axis=-1)
    spot = np.where(from_spot < RADIUS, 220.0 - 2.0 * from_spot, 0.0)
    return Volume(np.where(brain, 100.0 + spot, 0.0).astype(np.float32), affine)


@dataclass(frozen=True)
class Written:
    """A page, and what the files beside it say."""

    page: Path
    result: Any

    @property
    def hottest(self) -> np.ndarray:
        """RAS in mm of the highest voxel of the map's file."""
        image = nibabel.load(self.result.files["anomaly-map.nii.gz"])
        values = np.asarray(image.dataobj)
        voxel = np.unravel_index(values.argmax(), values.shape)
        place: np.ndarray = nibabel.affines.apply_affine(image.affine, voxel)
        return place


def written(folder: Path, affine: np.ndarray, **stub: Any) -> Written:
    folder.mkdir(parents=True, exist_ok=True)
    scan = folder / "scan.nii.gz"
    write_volume(scan, scan_on(affine))
    detector: Any = StubDetector()
    for name, value in stub.items():
        setattr(detector, name, value)
    result = detect_file(detector, scan, folder / "out", extras=[scan_report()])
    return Written(result.files["anomaly.html"], result)


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser() as found:
        # Nothing is reached from here on.
        found.execute_cdp_cmd("Network.enable", {})
        found.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
        )
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory.mktemp("page"), GRIDS["RAS"])


def pixels(window: Any) -> np.ndarray:
    """The planes as they are seen: (rows, columns, 3)."""
    shot = window.find_element("id", "planes").screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def hot(seen: np.ndarray) -> np.ndarray:
    """Where a picture has the colours of the map: all else is grey, black, or bluish."""
    mask: np.ndarray = seen[..., 0] - seen[..., 2] > 60
    return mask


def bare(window: Any) -> None:
    """Take what is drawn over the planes away."""
    window.execute_script(
        "viewer.opts.crosshairWidth = 0; viewer.opts.isOrientationTextVisible = false;"
        "viewer.drawScene();"
    )


def put(window: Any, control: str, value: object) -> None:
    """Move a control as a person does."""
    window.execute_script(
        "const control = document.getElementById(arguments[0]); control.value = arguments[1];"
        "control.dispatchEvent(new Event('input', {bubbles: true}));"
        "control.dispatchEvent(new Event('change', {bubbles: true}));",
        control,
        value,
    )


def place(window: Any) -> np.ndarray:
    """RAS in mm of the crosshair."""
    told = window.find_element("id", "viewer").get_attribute("data-mm")
    return np.array([float(mm) for mm in told.split()])


@pytest.mark.parametrize("grid", GRIDS)
def test_the_hot_spot_is_seen_where_the_file_has_it(grid: str, window: Any, tmp_path: Path) -> None:
    case = written(tmp_path, GRIDS[grid])
    live(window, case.page)
    voxel = np.linalg.norm(GRIDS[grid][:3, :3], axis=0).max()
    assert np.linalg.norm(case.hottest - SPOT) < voxel
    # The page opens at the most anomalous place.
    assert np.linalg.norm(place(window) - SPOT) < voxel + 1
    put(window, "opacity", 1)
    bare(window)
    window.find_element("id", "planes").send_keys("o")  # no outline
    seen = hot(pixels(window))
    ratio = window.execute_script("return viewer.uiData.dpr || window.devicePixelRatio")
    tiles = window.execute_script(
        "return viewer.screenSlices.map(tile => [tile.axCorSag, ...tile.leftTopWidthHeight])"
    )
    assert sorted(tile[0] for tile in tiles) == [0, 1, 2]
    for _, *corner in tiles:
        left, top, width, height = (round(side / ratio) for side in corner)
        rows, columns = np.nonzero(seen[top : top + height, left : left + width])
        assert rows.size > 50
        middle = [float(columns.mean() + left + 0.5), float(rows.mean() + top + 0.5)]
        clicked = window.execute_script(
            "const at = arguments[0].map(x => x * arguments[1]);"
            "return [...viewer.frac2mm(viewer.canvasPos2frac(at), 0, true)].slice(0, 3)",
            middle,
            ratio,
        )
        assert np.linalg.norm(np.array(clicked) - SPOT) < voxel + 0.5, (grid, clicked)
        # As wide as it is in the head.
        mm_a_pixel = window.execute_script(
            "const tile = viewer.screenSlices[0];"
            "return Math.abs(tile.fovMM[0]) / tile.leftTopWidthHeight[2] * arguments[0]",
            ratio,
        )
        assert np.sqrt(rows.size / np.pi) * mm_a_pixel == pytest.approx(RADIUS, abs=voxel)


def test_it_opens_from_the_disk_alone(page: Written, window: Any) -> None:
    live(window, page.page)
    assert window.execute_script("return performance.getEntriesByType('resource').length") == 0
    text = page.page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:;")
    assert "unsafe-eval" not in policy[1]
    assert "connect-src" not in policy[1]
    assert policy[1].count("'sha256-") == 3
    seen = pixels(window)
    assert (seen.max(axis=2) > 40).mean() > 0.1
    assert not window.find_element("css selector", "figure.still").is_displayed()


def test_the_threshold_cuts_the_outline_and_tells_what_is_flagged(
    page: Written, window: Any
) -> None:
    live(window, page.page)
    detection, mm3 = page.result.detection, page.result.volume.voxel_volume_ml
    told = window.find_element("id", "percentile")
    assert told.text == f"50: {detection.anomaly_mask.sum() * mm3:.1f} ml"
    put(window, "opacity", 0)
    bare(window)

    def outline() -> int:
        return int((np.abs(pixels(window) - [64, 224, 255]).sum(axis=2) < 60).sum())

    before = outline()
    assert before > 60
    last = int(window.find_element("id", "threshold").get_attribute("max"))
    put(window, "threshold", last)
    # The map's value is its own percentile in the stub; the last step is 99.99.
    flagged = (detection.anomaly_map >= np.float32(99.99)).sum() * mm3
    assert told.text == f"99.99: {flagged:.1f} ml"
    window.find_element("id", "planes").send_keys("o")
    assert outline() == 0
    window.find_element("id", "planes").send_keys("o")
    assert outline() > 60


def test_regions_and_slices_lead_to_their_places(page: Written, window: Any) -> None:
    live(window, page.page)
    (region,) = page.result.record.regions
    window.find_element("id", "reset").click()
    canvas = window.find_element("id", "planes")
    for _ in range(5):
        canvas.send_keys("\ue00e")  # page up
    assert place(window)[2] > SPOT[2] + 7
    button = window.find_element("css selector", "#regions button.goto")
    assert button.text == region.position()
    button.click()
    assert np.abs(place(window) - region.position_mm).max() < 1.01
    chart = window.find_element("css selector", ".profile")
    first, last = (float(chart.get_attribute(f"data-{end}")) for end in ("first", "last"))
    window.execute_script(
        "const box = arguments[0].getBoundingClientRect(), {left, right} = arguments[0].dataset;"
        "const middle = (Number(left) + Number(right)) / 2 / arguments[0].viewBox.baseVal.width;"
        "arguments[0].dispatchEvent(new PointerEvent('pointerdown',"
        "  {clientX: box.left + middle * box.width, clientY: box.top + 20}));",
        chart,
    )
    assert place(window)[2] == pytest.approx((first + last) / 2, abs=2.01)
    assert np.abs(place(window)[:2] - region.position_mm[:2]).max() < 1.01
    height = float(chart.get_attribute("aria-valuenow"))
    chart.send_keys("\ue014")  # arrow to the right: up
    assert 0.5 < float(chart.get_attribute("aria-valuenow")) - height < 3.1


def test_keys_move_and_show_the_restoration(page: Written, window: Any) -> None:
    live(window, page.page)
    canvas = window.find_element("id", "planes")
    start = place(window)
    for key, move in {"\ue012": (2, 0, 0), "\ue013": (0, 2, 0), "\ue00f": (0, 0, -2)}.items():
        before = place(window)
        canvas.send_keys(key)
        assert place(window) - before == pytest.approx(move, abs=0.02)
    window.find_element("id", "reset").click()
    assert place(window) == pytest.approx(start, abs=0.02)
    bare(window)
    canvas.send_keys("m")
    assert window.find_element("id", "opacity").get_property("value") == "0"
    scan = pixels(window)
    assert not hot(scan).any()
    canvas.send_keys("r")
    assert window.find_element("id", "fade").get_property("value") == "1"
    # The restoration has the brain's 100 where the spot was white, and nothing else changed.
    darker = (scan - pixels(window)).max(axis=2) > 40
    assert 100 < darker.sum() < 0.05 * darker.size
    canvas.send_keys("r")
    assert (pixels(window) == scan).mean() > 0.999
    flicker = window.find_element("id", "flicker")
    canvas.send_keys(" ")
    assert flicker.get_attribute("aria-pressed") == "true"
    flicker.click()
    assert flicker.get_attribute("aria-pressed") == "false"
    put(window, "opacity", 1)
    inferno = pixels(window)
    put(window, "colours", "viridis")
    assert np.abs(pixels(window) - inferno).max() > 60


def test_without_webgl_there_are_pictures(page: Written, window: Any) -> None:
    without = "HTMLCanvasElement.prototype.getContext = () => null"
    script = window.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": without})
    try:
        live(window, page.page)
        assert "it has no WebGL 2" in window.find_element("id", "noviewer").text
        assert not window.find_element("id", "planes").is_displayed()
        strips = window.find_elements("css selector", ".still .strip")
        assert [strip.is_displayed() for strip in strips] == [True] * 3
        assert not window.find_element("css selector", "button.goto").is_enabled()
    finally:
        window.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_what_is_not_to_be_trusted_is_not_outlined(window: Any, tmp_path: Path) -> None:
    case = written(tmp_path, GRIDS["RAS"], warnings=(f"so it is; {DISTRUST}",))
    live(window, case.page)
    assert window.find_element("id", "percentile").text == "none, see the note"
    assert not window.find_element("id", "threshold").is_enabled()
    assert "which is not to be trusted" in window.find_element("id", "place").text
    text = case.page.read_text(encoding="utf-8")
    assert "Nothing is flagged, since the map is not to be trusted." in text
    assert "of a healthy" not in text
    put(window, "opacity", 0)
    bare(window)
    blue = pixels(window)
    assert not (np.abs(blue - [64, 224, 255]).sum(axis=2) < 60).any()


def test_every_control_has_a_name(page: Written, window: Any) -> None:
    live(window, page.page)
    for control in window.find_elements("css selector", "#viewer input, #viewer select"):
        assert window.execute_script("return arguments[0].labels.length", control) == 1, control
    names = [node["name"]["value"] for node in accessible(window) if named(node, "slider")]
    assert {name.split()[0] for name in names} == {"Outline", "Map", "Scan", "slice"}


def accessible(window: Any) -> list[dict[str, Any]]:
    """What a screen reader is told of the page."""
    nodes: list[dict[str, Any]] = window.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return nodes


def named(node: dict[str, Any], role: str) -> bool:
    return bool(node.get("role", {}).get("value") == role and node.get("name"))


def test_pictures_take_over_where_webgl_is_taken_away(page: Written, window: Any) -> None:
    live(window, page.page)
    window.execute_script("viewer.gl.getExtension('WEBGL_lose_context').loseContext()")
    window.execute_async_script("setTimeout(arguments[0], 200)")
    assert window.find_element("css selector", ".still .strip").is_displayed()
    assert "WebGL was taken away" in window.find_element("id", "noviewer").text
    complaints(window)  # the browser tells of it


def test_paper_gets_the_pictures(page: Written, window: Any) -> None:
    live(window, page.page)
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert window.find_element("css selector", ".still .strip").is_displayed()
        assert not window.find_element("id", "planes").is_displayed()
    finally:
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_nothing_leaves_a_small_screen(page: Written, window: Any) -> None:
    window.set_window_size(500, 900)
    try:
        live(window, page.page)
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert window.execute_script(wide) <= 0
        planes = window.find_element("id", "planes").rect
        assert planes["width"] == pytest.approx(planes["height"], abs=1)
        assert hot(pixels(window)).any()
    finally:
        window.set_window_size(1280, 900)


def test_thresholds_are_exact_in_eight_bits() -> None:
    volume = scan_on(GRIDS["RAS"])
    detector: Any = StubDetector()
    detection = detector.detect(volume, threshold=93.7)
    content = _content(volume, detection, Quantiles(np.array([0.0, 100]), np.array([0.0, 100])))
    steps = content["thresholds"]
    assert steps[content["chosen"]]["percentile"] == 93.7
    assert len(content["values"]) <= 256
    assert all(np.diff([step["code"] for step in steps]) > 0)
    for step in steps:
        cut = np.float32(step["percentile"])
        assert content["values"][step["code"]] == pytest.approx(cut, abs=1e-4)
        ml = (detection.anomaly_map >= cut).sum() * volume.voxel_volume_ml
        assert step["ml"] == pytest.approx(ml)


def test_a_thin_lesion_of_a_fine_scan_is_outlined() -> None:
    affine = np.diag([0.4, 2.0, 2.0, 1.0])
    array = np.full((60, 30, 30), 100.0, np.float32)
    array[29, 10:20, 10:20] = 200.0
    array[-1] = 180.0  # at the end of the grid, which two do not divide
    volume = Volume(array, affine)
    detector: Any = StubDetector()
    detection = detector.detect(volume)
    content = _content(volume, detection, Quantiles(np.array([0.0, 100]), np.array([0.0, 100])))
    chosen = content["thresholds"][content["chosen"]]
    codes = np.frombuffer(gzip.decompress(base64.b64decode(content["map"])), np.uint8)
    shown = (codes.reshape((30, 30, 30), order="F") >= chosen["code"]).sum(axis=(1, 2))
    assert shown[14] == 100
    assert shown[-1] == 900
    assert chosen["ml"] == pytest.approx((detection.anomaly_mask > 0).sum() * 0.0016)


def test_nothing_anomalous_opens_in_the_middle_of_the_brain() -> None:
    volume = Volume(np.full((20, 20, 20), 100.0, np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    detector: Any = StubDetector()
    healthy = Quantiles(np.array([0.0, 100]), np.array([0.0, 100]))
    assert _content(volume, detector.detect(volume), healthy)["peak"] == [19.0, 19.0, 19.0]


def test_padding_far_below_the_brain_leaves_its_contrast() -> None:
    scan = scan_on(GRIDS["RAS"])
    brain = scan.array > 0
    padded = np.where(brain, scan.array, -32768.0)
    low, high = grey_range(padded, brain)
    assert low > 50 - (high - 100)
    assert grey_range(scan.array, brain)[0] == 0.0


def test_a_threshold_that_nothing_reaches() -> None:
    volume = scan_on(GRIDS["RAS"])
    detector: Any = StubDetector()
    detection = replace(detector.detect(volume), threshold=float("inf"))
    content = _content(volume, detection, Quantiles(np.array([0.0, 100]), np.array([0.0, 100])))
    chosen = content["thresholds"][content["chosen"]]
    assert chosen["ml"] == 0.0
    assert chosen["code"] >= len(content["values"])
    json.dumps(content, allow_nan=False)


def test_a_scan_that_is_not_there(tmp_path: Path) -> None:
    detector: Any = StubDetector()
    missing = tmp_path / "missing.nii.gz"
    with pytest.raises(InputError, match=r"missing\.nii\.gz: "):
        detect_file(detector, missing, tmp_path / "out", extras=[scan_report(True)])


def test_a_page_tells_whose_scan_it_is_only_if_asked(tmp_path: Path) -> None:
    volume = scan_on(GRIDS["RAS"])
    series = write_series(tmp_path / "head", volume.array.astype(np.int16), GRIDS["RAS"])
    (tmp_path / "head" / "notes.txt").write_text("Jane")
    detector: Any = StubDetector()
    texts = {}
    for identified in (False, True):
        folder = tmp_path / f"out-{identified}"
        extras = [scan_report(identified)]
        result = detect_file(detector, tmp_path / "head", folder, extras=extras)
        text = result.files["anomaly.html"].read_text(encoding="utf-8")
        for name in ("niivue.umd.js", "viewer.js"):
            text = text.replace(resource(name), "")
        texts[identified] = re.sub(r"[A-Za-z0-9+/=]{200,}", "", text)
    assert "<h1><bdi>head</bdi></h1>" in texts[False]
    assert f"SHA-256 of the scan’s {len(series)} files’ SHA-256" in texts[False]
    secrets = [*PATIENT.values(), str(tmp_path)]
    secrets.remove(PATIENT["PatientSex"])
    for secret in secrets:
        assert str(secret) not in texts[False], secret
    for key in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber"):
        assert str(PATIENT[key]) in texts[True], key
    assert str(tmp_path / "head") in texts[True]


def test_volumes_have_no_names_and_dates() -> None:
    volume = scan_on(GRIDS["RAS"])
    detector: Any = StubDetector()
    healthy = Quantiles(np.array([0.0, 100]), np.array([0.0, 100]))
    first = viewer(volume, detector.detect(volume), healthy)
    # Nothing in it hangs on when it was made.
    assert first.html == viewer(volume, detector.detect(volume), healthy).html


def test_the_viewer_is_the_one_that_is_written_down() -> None:
    folder = Path(__file__).resolve().parents[3] / "Resources" / "Viewer"
    record = json.loads((folder / "niivue.json").read_text(encoding="utf-8"))
    script = (folder / "niivue.umd.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == record["sha256"]
    assert record["licence"] == "BSD-2-Clause"
    assert (folder / "NIIVUE-LICENSE.txt").read_text("utf-8").startswith("BSD 2-Clause License")
