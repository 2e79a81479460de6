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
from headless import browser, complaints, opened
from LatentSpaceRestorationLib.detect_file import detect_file
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.io.images import write_volume
from LatentSpaceRestorationLib.results.picture import draw
from LatentSpaceRestorationLib.results.record import DetectionRecord
from LatentSpaceRestorationLib.results.report import cohort
from LatentSpaceRestorationLib.results.report.cohort import write_cohort_report
from LatentSpaceRestorationLib.results.report.scan import scan_page, scan_report
from LatentSpaceRestorationLib.results.report.viewer import resource
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
                "site": ("Ulm", "Bern", "Ulm")[number],
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
        scripts = 1
        for name in ("niivue.umd.js", "viewer.js"):
            scripts += resource(name) in text
            text = text.replace(resource(name), "")
        assert scripts == (1 if page.name == "report.html" else 3)
        assert "://" not in text
        assert "<img" not in text
        assert text.count("<script>") == scripts
        for link in re.findall(r'(?:href|src|action)="([^"]*)"', text):
            assert link.startswith(("#", "./results/")), link
            assert "#case" not in link
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
    assert region["signs"] == [{"sign": "brighter", "share": 1.0}]
    assert (region["intensity"], region["expected_intensity"]) == (220.0, 100.0)
    record = DetectionRecord.from_json(figures)
    assert record.regions is not None
    assert record.regions[0].to_json() == region
    assert len(figures["healthy_scores"]) == figures["healthy_scans"] == 20


def test_a_page_of_a_scan_says_what_was_found(run: Path) -> None:
    text = (run / "results" / "2" / "wild_anomaly.html").read_text(encoding="utf-8")
    flagged = json.loads((run / "results" / "2" / "wild_anomaly.json").read_text(encoding="utf-8"))[
        "flagged_ml"
    ]
    assert "<b>Score 120</b>: more unusual than 19 of 20 healthy scans" in text
    assert f"{flagged:.1f} ml are flagged" in text
    assert "right, front, upper" in text
    assert "brighter than expected (220, expected 100)" in text
    assert text.count('class="healthy"') == 20
    assert text.count('class="mark"') == 1
    doubted = (run / "results" / "1" / f"{HOSTILE[:-7]}_anomaly.html").read_text(encoding="utf-8")
    assert "⚠ doubted: &lt;/td&gt;" in doubted


def column(window: Any, title: str) -> list[str]:
    """What is shown in a column of the ranking."""
    heads = [head.text for head in window.find_elements("css selector", "#ranking th")]
    rows = window.find_elements("css selector", "#ranking tbody tr")
    at = heads.index(title)
    return [row.find_elements("tag name", "td")[at].text for row in rows if row.is_displayed()]


def test_the_ranking_is_sorted_by_mouse_and_by_keyboard(run: Path, window: Any) -> None:
    opened(window, run / "report.html")
    assert window.title == "Anomalies in run"
    hostile = HOSTILE.removesuffix(".nii.gz")
    assert column(window, "Scan") == ["wild", hostile, "calm"]
    heads = {h.text: h for h in window.find_elements("css selector", "#ranking th button")}
    heads["Score"].click()
    assert column(window, "Score") == ["120", "90.0", "30.0"]
    heads["Score"].click()
    assert column(window, "Score") == ["30.0", "90.0", "120"]
    head = heads["Score"].find_element("xpath", "..")
    assert head.get_attribute("aria-sort") == "ascending"
    window.execute_script("arguments[0].focus()", heads["Scan"])
    window.switch_to.active_element.send_keys("\ue007")  # Enter
    assert column(window, "Scan") == ["calm", "wild", hostile]
    assert head.get_attribute("aria-sort") is None
    window.switch_to.active_element.send_keys(" ")
    assert column(window, "Scan") == [hostile, "wild", "calm"]
    heads["Notes"].click()
    assert [note.split("\n")[0] for note in column(window, "Notes")] == ["⚠ 1", "", ""]
    assert window.title == "Anomalies in run"


def test_the_ranking_is_filtered(run: Path, window: Any) -> None:
    opened(window, run / "report.html")
    hostile = HOSTILE.removesuffix(".nii.gz")
    fields = {
        label.text.split("\n")[0].strip(): label
        for label in window.find_elements("css selector", ".filters label")
    }
    count = window.find_element("css selector", ".filters output")
    assert count.text == "3 of 3"

    def shown(label: str, typed: str, field: str = "input") -> list[str]:
        found = fields[label].find_element("tag name", field)
        found.send_keys(typed)
        scans = column(window, "Scan")
        assert count.text == f"{len(scans)} of 3"
        if field == "input":
            found.send_keys(*["\ue003"] * len(typed))  # Backspace
        return scans

    assert shown("With the words", "CAL") == ["calm"]
    assert shown("With the words", "doubted") == [hostile]
    assert shown("Score at least", "89.5") == ["wild", hostile]
    assert shown("Percentile at least", "95") == []
    assert column(window, "Scan") == ["wild", hostile, "calm"]
    fields["with notes"].click()
    assert column(window, "Scan") == [hostile]
    fields["with notes"].click()
    (site,) = (label for label in fields if label.startswith("Site"))
    assert shown(site, "Ulm", "select") == ["calm", "wild"][::-1]


def test_links_lead_to_the_pages_of_the_scans(run: Path, window: Any) -> None:
    opened(window, run / "report.html")
    assert len(window.find_elements("css selector", "circle.mark")) == 3
    assert len(window.find_elements("css selector", "circle.healthy")) == 20
    window.find_elements("css selector", "svg a")[1].send_keys("\ue007")
    assert window.current_url.endswith("#scan-2")
    row = window.find_element("css selector", "#scan-2")
    assert HOSTILE.removesuffix(".nii.gz") in row.text
    assert "1 of 3 have p at most 0.05" in window.page_source
    failed = window.find_elements("css selector", "#failed + div td")
    assert failed[1].text.startswith("no! </td></table><script>")
    notes = row.find_element("tag name", "details")
    notes.find_element("tag name", "summary").click()
    assert "doubted: </td></table><script>" in notes.text
    row.find_element("tag name", "a").click()
    assert window.title == HOSTILE.removesuffix(".nii.gz")
    assert complaints(window) == []
    assert "doubted" in window.find_element("css selector", "ul.warnings").text


def test_pictures_are_shown_in_light_and_dark(run: Path, window: Any) -> None:
    for page in (run / "results" / "2" / "wild_anomaly.html", run / "report.html"):
        grey = {}
        for scheme in ("light", "dark"):
            opened(window, page, scheme)
            colour = "return getComputedStyle(document.body).backgroundColor"
            grey[scheme] = sum(map(int, re.findall(r"\d+", window.execute_script(colour))[:3]))
        assert grey["light"] > 700
        assert grey["dark"] < 100
    small = window.find_elements("css selector", "#ranking .small")
    assert len(small) == 3
    shown = window.execute_async_script(
        "const done = arguments[1], picture = new Image();"
        "picture.onload = () => done([picture.naturalWidth, picture.naturalHeight]);"
        "picture.onerror = () => done('not shown');"
        "picture.src = getComputedStyle(arguments[0]).backgroundImage.slice(5, -2);",
        small[0],
    )
    assert shown == [144, 144]
    # Nothing is hidden beyond the right edge, on a small screen either.
    window.set_window_size(500, 900)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    try:
        assert window.execute_script(wide) <= 0
    finally:
        window.set_window_size(1280, 900)


def test_a_thousand_scans_are_sorted_and_filtered_at_once(tmp_path: Path, window: Any) -> None:
    lines = ["id\tfile\tscore\tpercentile\tp\twarnings\tsite"]
    lines += [
        f"s{n}\ts{n}.nii\t{n * 7919 % 1000}\t50\t0.5\tn/a\t{'Ulm' if n % 2 else 'Bern'}"
        for n in range(1000)
    ]
    (tmp_path / "scores.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    opened(window, write_cohort_report(tmp_path))
    took = window.execute_script(
        "const begun = performance.now();"
        "[...document.querySelectorAll('#ranking th button')].at(-1).click();"
        "const search = document.querySelector('input[type=search]');"
        "search.value = 's99'; search.dispatchEvent(new Event('input', {bubbles: true}));"
        "document.body.getBoundingClientRect(); return performance.now() - begun"
    )
    count = window.find_element("css selector", ".filters output").text
    assert count == "11 of 1000"  # s99, s990 to s999
    # Beside drawing the page once, on the same machine.
    drawn = window.execute_script(
        "const begun = performance.now(); document.body.innerHTML += '';"
        "document.body.getBoundingClientRect(); return performance.now() - begun"
    )
    assert took < 3 * drawn + 200


def test_only_the_most_unusual_have_pictures(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "MOST_PICTURES", 1)
    text = write_cohort_report(run).read_text(encoding="utf-8")
    assert text.count("data:image/webp") == 1
    monkeypatch.undo()
    assert write_cohort_report(run).read_text(encoding="utf-8").count("data:image/webp") == 3


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


def test_the_page_of_a_cohort_has_no_paths(tmp_path: Path) -> None:
    rows = ["id\tfile\tstatus\tscore\treason"]
    file = "/study/Doe, Jane/a.nii"
    rows += [f"a\t{file}\tfailed\t\t{file}: has no voxels; export it again"]
    rows += ["b\t/study/Doe, Jane/b.nii\tdone\t3.5\tn/a"]
    (tmp_path / "scores.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    text = write_cohort_report(tmp_path).read_text(encoding="utf-8")
    assert "Doe" not in text
    assert "a.nii: has no voxels; export it again" in text


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores\.tsv: cannot be read"):
        write_cohort_report(tmp_path)


def test_figures_of_any_kind_make_a_page() -> None:
    odd = {
        "sample_score": "high",
        "percentile": [1],
        "warnings": "none",
        "seconds": {"a": None},
        "regions": [None, {"place": 3, "position_mm": [1, 2], "signs": [4, {"share": "x"}]}],
        "slice_scores": [{"position_mm": 1}, 4],
        "healthy_scores": [1, "x", None],
        "model": {"a": "<b>"},
    }
    record = DetectionRecord.from_json(odd)
    volume = scan_with(50.0)
    detector: Any = StubDetector()
    detection = detector.detect(volume)
    healthy = detector.calibration().at(15).voxels
    still = draw(volume, detection)
    text = scan_page("odd\x00\ud800", volume, detection, record, healthy, still, {})
    assert "No score is known" in text
    assert "odd��" in text
    assert record.regions is not None
