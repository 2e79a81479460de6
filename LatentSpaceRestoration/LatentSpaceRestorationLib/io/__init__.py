"""Volumes and files, in and out. What is named here is imported when it is first asked for."""

from __future__ import annotations

from typing import Any

__all__ = ["read_mask", "read_volume", "write_volume"]


def __getattr__(name: str) -> Any:
    # Not at once: Slicer reads its volumes itself, and does not have nibabel.
    if name in __all__:
        from . import images

        return getattr(images, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
