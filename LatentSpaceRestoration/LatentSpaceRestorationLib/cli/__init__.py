"""The command line ``lsr``."""

from .main import main

__all__ = ["main"]
