"""Pages of results: what they say, that they are one file each, and that they work in a browser."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from headless import browser, opened
from LatentSpaceRestorationLib.detect_file import detect_file
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.io.images import write_volume
from LatentSpaceRestorationLib.results.record import DetectionRecord
from LatentSpaceRestorationLib.results.report import cohort
from LatentSpaceRestorationLib.results.report.cohort import write_cohort_report
from LatentSpaceRestorationLib.results.report.scan import scan_page, scan_report
from LatentSpaceRestorationLib.volume import Volume
from stub_detector import StubDetector

#: Names and texts that would do harm if they were taken for HTML.
HOSTILE = 'x"><img src=y onerror="document.title=\'owned\'">.nii.gz'
SCRIPT = "</td></table><script>document.title='owned'</script>\u202e"
SCORES = {"calm": 30.0, HOSTILE.removesuffix(".nii.gz"): 90.0, "wild": 120.0}


def scan_with(spot: float) -> Volume:
    """A brain of 100 with a spot, on the right in front, that is so much brighter."""
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = (-66.0, -78.0, -54.0)
    points = np.moveaxis(np.indices((23, 27, 19)), 0, -1) @ affine[:3, :3] + affine[:3, 3]
    brain = np.square(points / [60.0, 72.0, 48.0]).sum(axis=-1) < 1
    inside = np.square(points - [25.0, 30.0, 6.0]).sum(axis=-1) < 13.0**2
    return Volume(np.where(brain, 100.0 + spot * inside, 0.0).astype(np.float32), affine)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three scans that worked and one that did not, with its page."""
    folder = tmp_path_factory.mktemp("cohort") / "run"
    rows: list[dict[str, object]] = []
    for number, (name, spot) in enumerate(SCORES.items()):
        scan = folder.parent / f"{name}.nii.gz"
        write_volume(scan, scan_with(spot))
        detector: Any = StubDetector()
        detector.warnings = (f"doubted: {SCRIPT}",) if number == 1 else ()
        where = folder / "results" / str(number)
        where.mkdir(parents=True)
        result = detect_file(detector, scan, where, extras=[scan_report()])
        figures = result.figures
        rows.append(
            {
                "id": name,
                "file": scan,
                "status": "done",
                "score": figures["sample_score"],
                "p": figures["p_value"] if number < 2 else 1 / 21,
                "percentile": figures["percentile"],
                "warnings": " | ".join(figures["warnings"]) or "n/a",
                "seconds": 3,
                "model": figures["model"],
                "result": result.files["anomaly.json"].relative_to(folder),
            }
        )
    rows.append({"id": "gone", "file": "gone.nii", "status": "failed", "reason": f"no! {SCRIPT}"})
    with (folder / "scores.tsv").open("w", newline="", encoding="utf-8") as stream:
        names = [*rows[0], "reason"]
        writer = csv.DictWriter(
            stream, names, "n/a", delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writeheader()
        writer.writerows(rows)
    assert write_cohort_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser() as found:
        yield found


def pages(run: Path) -> list[Path]:
    found = sorted(run.rglob("*.html"))
    assert len(found) == 4
    return found


def test_pages_are_one_file_each_and_escape_what_they_are_given(run: Path) -> None:
    for page in pages(run):
        text = page.read_text(encoding="utf-8")
        assert "://" not in text
        assert "<img" not in text
        assert text.count("<script>") == 1
        for link in re.findall(r'(?:href|src|action)="([^"]*)"', text):
            assert link.startswith(("#", "./results/")), link
        for url in re.findall(r"url\(([^)]*)\)", text):
            assert url.startswith("data:image/webp;base64,")
        assert "Research use, not for diagnosis" in text
        assert "default-src 'none'" in text


def test_figures_tell_the_regions_and_the_healthy_scores(run: Path) -> None:
    figures = json.loads((run / "results" / "2" / "wild_anomaly.json").read_text(encoding="utf-8"))
    mask = nibabel.load(run / "results" / "2" / "wild_anomaly-mask.nii.gz")
    (region,) = figures["regions"]
    assert figures["flagged_ml"] == pytest.approx(np.asarray(mask.dataobj).sum() * 0.216)
    assert region["volume_ml"] == figures["flagged_ml"]
    assert region["place"] == "right, front, upper"
    assert (region["peak"], region["mean"]) == (120.0, 120.0)
    assert np.linalg.norm(np.subtract(region["position_mm"], [25, 30, 6])) < 14
    assert len(figures["healthy_scores"]) == figures["healthy_scans"] == 20


def test_a_page_of_a_scan_says_what_was_found(run: Path) -> None:
    text = (run / "results" / "2" / "wild_anomaly.html").read_text(encoding="utf-8")
    flagged = json.loads((run / "results" / "2" / "wild_anomaly.json").read_text(encoding="utf-8"))[
        "flagged_ml"
    ]
    assert "<b>Score 120</b>: more unusual than 19 of 20 healthy scans" in text
    assert f"{flagged:.1f} ml are flagged" in text
    assert "right, front, upper" in text
    assert text.count('class="healthy"') == 20
    assert text.count('class="mark"') == 1
    doubted = (run / "results" / "1" / f"{HOSTILE[:-7]}_anomaly.html").read_text(encoding="utf-8")
    assert "⚠ doubted: &lt;/td&gt;" in doubted


def column(window: Any, number: int) -> list[str]:
    rows = window.find_elements("css selector", "#ranking tbody tr")
    return [row.find_elements("tag name", "td")[number].text for row in rows if row.is_displayed()]


def test_the_ranking_is_sorted_by_mouse_and_by_keyboard(run: Path, window: Any) -> None:
    opened(window, run / "report.html")
    assert window.title == "Anomalies in run"
    hostile = HOSTILE.removesuffix(".nii.gz")
    assert column(window, 2) == ["wild", hostile, "calm"]
    heads = {h.text: h for h in window.find_elements("css selector", "#ranking th button")}
    heads["Score"].click()
    assert column(window, 3) == ["120", "90.0", "30.0"]
    heads["Score"].click()
    assert column(window, 3) == ["30.0", "90.0", "120"]
    head = heads["Score"].find_element("xpath", "..")
    assert head.get_attribute("aria-sort") == "ascending"
    window.execute_script("arguments[0].focus()", heads["Scan"])
    window.switch_to.active_element.send_keys("\ue007")  # Enter
    assert column(window, 2) == ["calm", "wild", hostile]
    assert head.get_attribute("aria-sort") is None
    window.switch_to.active_element.send_keys(" ")
    assert column(window, 2) == [hostile, "wild", "calm"]
    heads["Warnings"].click()
    assert column(window, 8) == ["⚠ 1", "", ""]
    window.find_element("css selector", "input[type=search]").send_keys("CAL")
    assert column(window, 2) == ["calm"]
    assert window.title == "Anomalies in run"


def test_links_lead_to_the_cases_and_their_pages(run: Path, window: Any) -> None:
    opened(window, run / "report.html")
    window.find_element("link text", "calm").click()
    assert window.current_url.endswith("#case-3")
    articles = window.find_elements("css selector", "article h3 bdi")
    assert [article.text for article in articles] == [
        "wild",
        HOSTILE.removesuffix(".nii.gz"),
        "calm",
    ]
    assert len(window.find_elements("css selector", "circle.mark")) == 3
    assert len(window.find_elements("css selector", "circle.healthy")) == 20
    window.find_elements("css selector", "svg a")[1].send_keys("\ue007")
    assert window.current_url.endswith("#case-2")
    assert "2 of 3 have p at most" not in window.page_source
    assert "1 of 3 have p at most 0.05" in window.page_source
    failed = window.find_elements("css selector", "#failed + div td")
    assert failed[2].text.startswith("no! </td></table><script>")
    window.find_element("css selector", "#case-2").find_element("link text", "report").click()
    assert window.title.endswith(".nii.gz")
    assert window.get_log("browser") == []
    assert "doubted" in window.find_element("css selector", "ul.warnings").text


def test_pictures_are_shown_in_light_and_dark(run: Path, window: Any, tmp_path: Path) -> None:
    grey = {}
    for scheme in ("light", "dark"):
        opened(window, run / "results" / "2" / "wild_anomaly.html", scheme)
        colour = "return getComputedStyle(document.body).backgroundColor"
        grey[scheme] = sum(map(int, re.findall(r"\d+", window.execute_script(colour))[:3]))
    assert grey["light"] > 700
    assert grey["dark"] < 100
    shown = window.execute_async_script(
        "const done = arguments[0], picture = new Image();"
        "const strip = document.querySelector('.strip');"
        "picture.onload = () => done([picture.naturalWidth, picture.naturalHeight]);"
        "picture.onerror = () => done('not shown');"
        "picture.src = getComputedStyle(strip).backgroundImage.slice(5, -2);"
    )
    assert shown == [1224, 300]
    assert len(window.find_elements("css selector", ".strip")) == 3
    # Nothing is hidden beyond the right edge, on a small screen either.
    window.set_window_size(500, 900)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    try:
        assert window.execute_script(wide) <= 0
        opened(window, run / "report.html")
        assert window.execute_script(wide) <= 0
    finally:
        window.set_window_size(1280, 900)


def test_only_the_most_unusual_have_pictures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "MOST_PICTURES", 1)
    text = write_cohort_report(run).read_text(encoding="utf-8")
    assert text.count("<article") == 1
    assert text.count("data:image/webp") == 1
    assert "The first 1 of 3." in text
    monkeypatch.undo()
    write_cohort_report(run)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("id\tscore\na\t1.5\nb\t2.5\n", "2 scans: 2 analysed"),
        ("file\tscore\tresults\nx/a.nii.gz\t1.5\tnowhere\n", "<bdi>a</bdi>"),
        ("id\tstatus\treason\na\tfailed\ttoo small\n", "too small"),
        ("id\tscore\tresult\na\t1.5\tbad_anomaly.json\n", "1 scans: 1 analysed"),
        ("id\tscore\na\tnan\n", "0 analysed"),
        ("", "0 scans"),
    ],
)
def test_tables_that_lack_much(tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "scores.tsv").write_text(table, encoding="utf-8")
    (tmp_path / "bad_anomaly.json").write_text('{"sample_score": [', encoding="utf-8")
    assert says in write_cohort_report(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores\.tsv: cannot be read"):
        write_cohort_report(tmp_path)


def test_figures_of_any_kind_make_a_page(tmp_path: Path) -> None:
    odd = {
        "sample_score": "high",
        "percentile": [1],
        "warnings": "none",
        "seconds": {"a": None},
        "regions": [None, {"place": 3, "position_mm": [1, 2]}],
        "slice_scores": [{"position_mm": 1}, 4],
        "healthy_scores": [1, "x", None],
        "model": {"a": "<b>"},
    }
    text = scan_page("odd\x00\ud800", odd, tmp_path / "none.png")
    assert "No score is known" in text
    assert "odd��" in text
    text.encode()
    assert DetectionRecord.from_json(odd).regions is not None
