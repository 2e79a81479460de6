"""Volumes and files, in and out."""

from .images import read_mask, read_volume, write_volume

__all__ = ["read_mask", "read_volume", "write_volume"]
