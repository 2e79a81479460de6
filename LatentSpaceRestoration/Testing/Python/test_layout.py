"""The walls between the parts, and the lists that must name all of them."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "LatentSpaceRestoration"
LIBRARY = SOURCE / "LatentSpaceRestorationLib"
MODULES = sorted(LIBRARY.rglob("*.py"))
#: What Slicer must be able to import without torch.
LIGHT = (
    "",
    ".bundle.bundle",
    ".calibration.levels",
    ".cli",
    ".detection",
    ".detector",
    ".io",
    ".preprocessing.brain_extraction",
    ".preprocessing.pipeline",
    ".results.files",
    ".results.picture",
    ".results.regions",
    ".scoring.anomaly_map",
    ".volume",
)


def imported(path: Path) -> set[str]:
    """Top-level names of all packages that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_the_library_knows_nothing_of_slicer(path: Path) -> None:
    assert not imported(path) & {"slicer", "vtk", "qt", "ctk", "PySide6", "MRMLCorePython"}


def test_no_file_is_long() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
        if "Testing" not in path.parts
    }
    assert {name: lines for name, lines in lengths.items() if lines > 420} == {}


def test_torch_is_not_needed_to_open_the_panel() -> None:
    """A finder that refuses torch stands in for a Python without it."""
    program = (
        "import sys, importlib\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'safetensors'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"sys.path.insert(0, {str(SOURCE)!r})\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module('LatentSpaceRestorationLib' + name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    there = {path.parent.relative_to(SOURCE) for path in LIBRARY.rglob("__init__.py")}
    named = set(project["tool"]["setuptools"]["packages"])
    models = "LatentSpaceRestorationLib.models"
    assert named - {models} == {".".join(folder.parts) for folder in there}
    assert (ROOT / project["tool"]["setuptools"]["package-dir"][models]).is_dir()


def test_icons_have_the_size_that_slicer_wants() -> None:
    from PIL import Image

    icons = SOURCE / "Resources" / "Icons"
    for path in (ROOT / "LSRExtension.png", icons / "LatentSpaceRestoration.png"):
        with Image.open(path) as icon:
            assert icon.size == (128, 128)
