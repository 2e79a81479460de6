"""Signs: what gives an anomaly away, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sign:
    """One way in which tissue is unlike healthy tissue.

    Attributes:
        name: in files.
        words: for a person.
    """

    name: str
    words: str


#: In images of signs each has its number, counted from 1; 0 is none.
SIGNS = (
    Sign("darker", "darker than expected"),
    Sign("brighter", "brighter than expected"),
    Sign("texture", "unusual texture"),
    Sign("structure", "unlikely structure"),
)
