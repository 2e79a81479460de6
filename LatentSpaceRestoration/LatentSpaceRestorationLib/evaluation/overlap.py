"""How well two masks agree."""

from __future__ import annotations
