"""Where tests that need Slicer run: in Slicer itself, or else on the stand-in host.

A test module calls ``begin()`` before it imports ``slicer``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import unittest
from pathlib import Path

TESTING = Path(__file__).resolve().parents[2]
#: The folder that Slicer gets as ``--additional-module-paths``.
MODULE_FOLDER = TESTING.parent
HOST = TESTING / "Host" / "slicer_host.py"
# What tests share lies beside them; in Slicer nothing else says so.
if (_support := str(TESTING / "Python" / "support")) not in sys.path:
    sys.path.append(_support)


def begin() -> None:
    """Make ``slicer`` usable, with the module loaded and three slice views.

    Raises:
        unittest.SkipTest: neither Slicer nor what the stand-in host needs is here.
    """
    slicer = sys.modules.get("slicer")
    if slicer is not None and hasattr(slicer, "app"):
        return
    reason = why_no_host()
    if reason:
        raise unittest.SkipTest(reason)
    if str(HOST.parent) not in sys.path:
        sys.path.insert(0, str(HOST.parent))
    from standins import application

    app = application.start(main_window=True, testing=True)
    app.moduleManager().load(MODULE_FOLDER)
    app.start_up()


def on_host() -> bool:
    """Whether this is the stand-in host."""
    return "standins" in sys.modules


def why_no_host() -> str:
    """What keeps the stand-in host from running; empty if nothing does."""
    for package, module in (("slicer-core", "slicer_core"), ("PySide6-Essentials", "PySide6")):
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed (pip install slicer-core PySide6-Essentials)"
    if sys.version_info < (3, 12):
        from PySide6 import QtCore

        probe = QtCore.QObject()
        before = sys.getrefcount(None)
        for _ in range(100):
            probe.property("none")
        if sys.getrefcount(None) < before - 50:
            # 6.12 takes None for immortal, as it is from Python 3.12 on, and ends in a crash.
            return f"PySide6 {QtCore.__version__} does not work with Python 3.11; install 6.11"
    return ""


def output_folder() -> Path:
    """Where pictures are kept: ``test-output`` in a checkout, else a temporary folder."""
    root = MODULE_FOLDER.parent
    folder = root / "test-output" if (root / "pyproject.toml").is_file() else None
    folder = folder or Path(tempfile.gettempdir()) / "LatentSpaceRestoration-test-output"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def host_environment() -> dict[str, str]:
    """The environment for a host in another process."""
    return {**os.environ, "QT_QPA_PLATFORM": "offscreen", "OMP_NUM_THREADS": "1"}
