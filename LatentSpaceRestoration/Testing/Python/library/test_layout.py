"""How the tree lies, and the lists that must name all of it; import-linter holds the walls."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from functools import cache

import grimp
from conftest import ROOT

SOURCE = ROOT / "LatentSpaceRestoration"
LIBRARY = SOURCE / "LatentSpaceRestorationLib"
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


def test_no_chain_of_imports_is_long_and_few_modules_lie_loose() -> None:
    """How far down one has to read to know what a module rests on; torch counts for nothing."""
    graph = grimp.build_graph("LatentSpaceRestorationLib", exclude_type_checking_imports=True)

    @cache
    def floors(module: str) -> int:
        return 1 + max(map(floors, graph.find_modules_directly_imported_by(module)), default=0)

    modules = graph.modules - {"LatentSpaceRestorationLib.__main__"}
    assert max(map(floors, modules)) <= 13
    assert len(list(LIBRARY.glob("*.py"))) <= 12


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
    resources = {f"LatentSpaceRestorationLib.{name}" for name in ("models", "viewer")}
    assert named - resources == {".".join(folder.parts) for folder in there}
    where = project["tool"]["setuptools"]["package-dir"]
    assert all((ROOT / where[name]).is_dir() for name in resources)


def test_icons_have_the_size_that_slicer_wants() -> None:
    from PIL import Image

    icons = SOURCE / "Resources" / "Icons"
    for path in (ROOT / "LSRExtension.png", icons / "LatentSpaceRestoration.png"):
        with Image.open(path) as icon:
            assert icon.size == (128, 128)
