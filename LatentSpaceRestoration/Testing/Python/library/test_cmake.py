"""The lists in the CMake files name exactly the files that ship."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[4]
MODULE = ROOT / "LatentSpaceRestoration"
#: Python packages of the module.
PACKAGES = ("LatentSpaceRestorationLib", "LatentSpaceRestorationSlicer")

#: Stands for Slicer's macros: fails for a file that is not there, as they do, and prints the rest.
MACROS = """
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS "${CMAKE_CURRENT_LIST_DIR}/${file}")
      message(FATAL_ERROR "no file ${file}")
    endif()
  endforeach()
  list(LENGTH MY_SCRIPTS scripts)
  message(STATUS "module ${MY_NAME} of ${scripts} scripts")
endmacro()
macro(slicer_add_python_unittest)
endmacro()
macro(add_subdirectory)
endmacro()
set(BUILD_TESTING ON)
include("@LIST@")
"""


def listed(variable: str) -> list[str]:
    """The entries of a list in the module's CMakeLists.txt."""
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(rf"set\({variable}\n(.*?)\)", text, flags=re.DOTALL)
    assert found, f"no list {variable}"
    return found[1].split()


def shipped_scripts() -> list[str]:
    """Every Python file of the module, but for tests and developers' scripts."""
    files = [*MODULE.glob("*.py")]
    for package in PACKAGES:
        files += (MODULE / package).rglob("*.py")
    return sorted(path.relative_to(MODULE).as_posix() for path in files)


def shipped_resources() -> list[str]:
    """Every file in Resources, but for scripts and what is hidden."""
    files = (path for path in (MODULE / "Resources").rglob("*") if path.is_file())
    names = [path.relative_to(MODULE) for path in files if path.suffix not in (".py", ".pyc")]
    return sorted(
        name.as_posix() for name in names if not any(p.startswith(".") for p in name.parts)
    )


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [("MODULE_PYTHON_SCRIPTS", shipped_scripts), ("MODULE_PYTHON_RESOURCES", shipped_resources)],
)
def test_lists_equal_the_tree(variable: str, wanted) -> None:
    expected = wanted()
    hint = f"LatentSpaceRestoration/CMakeLists.txt should have:\nset({variable}\n  "
    assert listed(variable) == expected, hint + "\n  ".join(expected) + "\n  )"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cmake_reads_the_list(tmp_path: Path) -> None:
    script = tmp_path / "check.cmake"
    script.write_text(MACROS.replace("@LIST@", str(MODULE / "CMakeLists.txt")))
    run = subprocess.run(["cmake", "-P", str(script)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"of {len(shipped_scripts())} scripts" in run.stdout


def test_extension_states_what_slicer_asks_for() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    values = dict(re.findall(r'set\((EXTENSION_\w+) "(.*?)"\)', text))
    assert re.search(r"project\(LatentSpaceRestoration\)", text)
    assert values["EXTENSION_DEPENDS"] == "PyTorch"
    assert values["EXTENSION_DESCRIPTION"]
    assert values["EXTENSION_CATEGORY"]


@pytest.mark.parametrize("file", ["requirements.txt", "cohort-requirements.txt"])
def test_requirements_are_the_projects_own_without_torch(file: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = {
        item.name: item.specifier for item in map(Requirement, declared["project"]["dependencies"])
    }
    lines = (MODULE / "Resources" / file).read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert wanted
    for item in wanted:
        assert item.name != "torch"
        assert {spec.operator for spec in item.specifier} == {">="}
        assert project[item.name] == item.specifier
