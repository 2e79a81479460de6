"""The pages: pictures and links are there, recipes run; and the entry for Slicer's index."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import in_slicer
import pytest
from conftest import ROOT

PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "MOOD" / "README.md")
]
#: What Slicer's schema of an entry, slicer-extension-catalog-entry-schema-v1.0.2, knows.
ENTRY = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<img src="([^"]+)"', text)
    inside = [target for target in targets if "://" not in target]
    for target in inside:
        file, _, section = target.partition("#")
        there = ROOT / page if not file else (ROOT / page).parent / file
        assert there.exists(), target
        if section:
            text = there.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
            assert section in {re.sub(r"\W+", "-", title.lower()).strip("-") for title in titles}


def test_pictures_are_shown_where_they_help() -> None:
    pictures = {path.name for path in (ROOT / "docs" / "pictures").glob("*.png")}
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert {name for name in pictures if f"pictures/{name}" not in text} == set()
    assert len(pictures) >= 8


def test_the_entry_for_slicers_index() -> None:
    entry = json.loads((ROOT / "LatentSpaceRestoration.json").read_text(encoding="utf-8"))
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert all(isinstance(value, ENTRY[key]) for key, value in entry.items())
    assert 1 <= entry["tier"] <= 5
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f'EXTENSION_CATEGORY "{entry["category"]}"' in cmake
    assert f'EXTENSION_DEPENDS "{" ".join(entry["build_dependencies"])}"' in cmake
    assert "project(LatentSpaceRestoration)" in cmake, "the entry is named after it"


def recipes() -> list[str]:
    pages = (ROOT / "README.md", ROOT / "docs" / "slicer.md", ROOT / "docs" / "command-line.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_recipes_are_python() -> None:
    assert len(recipes()) == 4
    for code in recipes():
        compile(code, "README.md", "exec")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(in_slicer.why_no_host()), reason="the stand-in host cannot run")
def test_recipes_for_slicer_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    console = next(code for code in recipes() if 'getNode("MRHead")' in code)
    headless = next(code for code in recipes() if "sys.argv[2]" in code)
    sample = ROOT / "LatentSpaceRestoration/Resources/SampleData/GeneratedBrain.nii.gz"
    (tmp_path / "detect.py").write_text(headless, encoding="utf-8")
    load = f"import slicer\nslicer.util.loadVolume({str(sample)!r}, {{'name': 'MRHead'}})\n"
    (tmp_path / "console.py").write_text(load + console, encoding="utf-8")
    host = [sys.executable, str(in_slicer.HOST), "--no-splash", "--no-main-window"]
    host += ["--additional-module-paths", str(in_slicer.MODULE_FOLDER), "--python-script"]
    for script, arguments in (
        ("detect.py", [str(sample), str(tmp_path / "out.mrb")]),
        ("console.py", []),
    ):
        run = subprocess.run(
            [*host, str(tmp_path / script), *arguments],
            capture_output=True,
            text=True,
            env=in_slicer.host_environment(),
            check=False,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        assert re.search(r"percentile 95|95\.2", run.stdout), run.stdout
    assert (tmp_path / "out.mrb").stat().st_size > 100_000
