"""What Slicer's index of extensions asks of a repository, and one address all over.

The rules are those of the index's own check of a submission; what needs its network is left out.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
NAME = "LatentSpaceRestoration"
#: Of the index: a checkout with all of its history.
LARGEST_MB = 100.0
#: Keys that its schema, 1.0.2, asks for and knows.
REQUIRED = {"$schema", "category", "scm_url"}
KNOWN = REQUIRED | {
    *("scm_revision", "scm_type", "build_dependencies", "dicom_support_rule"),
    *("build_subdirectory", "enabled", "tier"),
}


def address() -> str:
    """Where the repository is, or will be with another owner."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Repository"])


def entry() -> dict[str, Any]:
    """What is handed in to the index."""
    text = (ROOT / f"{NAME}.json").read_bytes()
    assert b"\r" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def of_cmake(variable: str) -> str:
    """A variable of the top-level CMakeLists.txt, as the index looks for it."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.findall(rf'set\s*\({variable}\s*"([^"]+)"[ ]*\)', text, re.IGNORECASE)
    assert found, f"no {variable}"
    return str(found[0])


def test_the_entry_is_one_of_the_index() -> None:
    found = entry()
    assert found.keys() >= REQUIRED
    assert found.keys() <= KNOWN
    assert found["category"] == of_cmake("EXTENSION_CATEGORY") == "Segmentation"
    assert found["build_dependencies"] == of_cmake("EXTENSION_DEPENDS").split()
    assert found["scm_type"] == "git"
    assert 1 <= found["tier"] <= 5
    # A repository's name begins with Slicer, an extension's does not.
    assert re.fullmatch(r"https://[\w.-]+/[\w-]+/Slicer[\w-]*\.git", found["scm_url"])
    assert not NAME.lower().startswith("slicer")
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.findall(r"project\s*\(\s*([^\s\)]+)", cmake) == [NAME]
    assert (ROOT / "LICENSE.txt").is_file()


def test_the_address_is_the_same_all_over() -> None:
    raw = address().replace("https://github.com/", "https://raw.githubusercontent.com/")
    branch = f"{raw}/{entry()['scm_revision']}/"
    assert entry()["scm_url"] == f"{address()}.git"
    assert of_cmake("EXTENSION_HOMEPAGE") == address()
    pictures = [of_cmake("EXTENSION_ICONURL"), *of_cmake("EXTENSION_SCREENSHOTURLS").split()]
    assert len(pictures) > 2
    for picture in pictures:
        assert picture.startswith(branch)
        assert (ROOT / picture.removeprefix(branch)).read_bytes().startswith(b"\x89PNG")


def test_the_repository_has_an_address() -> None:
    entry_file = (ROOT / NAME / f"{NAME}.py").read_text(encoding="utf-8")
    (linked,) = re.findall(r'^HOMEPAGE = "(.*)"$', entry_file, re.MULTILINE)
    if "/OWNER/" in address():
        assert linked == "", "a link that leads nowhere"
        pytest.skip("it has none yet: pyproject.toml says what to replace when it has")
    assert address().startswith("https://")
    assert linked == address()


def test_a_checkout_is_small_enough_with_its_history(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--no-local", ROOT, clone], check=True)
    size = sum(file.stat().st_size for file in clone.rglob("*") if file.is_file()) / 2**20
    assert size < LARGEST_MB, f"{size:.1f} MB; the index takes {LARGEST_MB:.0f}"
