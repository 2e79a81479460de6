"""Latent Space Restoration: what is unusual in a brain scan, and what it would look like healthy.

Everything here runs without 3D Slicer, and imports torch only when a network is needed.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public names and the module that each comes from, loaded when first asked for.
_EXPORTS = {
    "Detection": "detector",
    "Detector": "detector",
    "Volume": "volume",
    "read_volume": "io",
    "write_volume": "io",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
