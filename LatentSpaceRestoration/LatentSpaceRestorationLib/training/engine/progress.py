"""How far a training is, read in the lines that ``lsr train`` and ``lsr calibrate`` print."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What is done, in this order; slices are encoded again, as other copies, for the last network.
STAGES = ("prepare", "vqvae", "encode", "prior", "masked", "calibrate")
_STEP = re.compile(r"step (\d+)/(\d+) of (\w+)  (.+? left)\b")
_PREPARED = re.compile(r"preparing \w+: (\d+) of (\d+)")
_ENCODED = re.compile(r"encoded copy (\d+) of (\d+)")
_READ = re.compile(r"read .+ \((\d+) of (\d+)\)")


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        stage: one of ``STAGES``.
        done, total: steps, copies or scans of the stage.
        left: time left of the stage, in words; empty if it is not known.
    """

    stage: str
    done: int
    total: int
    left: str = ""


def progress_in(line: str) -> TrainingProgress | None:
    """What a line says of the progress; None if it says nothing of it."""
    found = _STEP.match(line)
    if found and found[3] in STAGES:
        return TrainingProgress(found[3], int(found[1]), int(found[2]), found[4])
    for pattern, stage in (
        (_PREPARED, "prepare"),
        (_ENCODED, "encode"),
        (_READ, "calibrate"),
    ):
        found = pattern.match(line)
        if found:
            return TrainingProgress(stage, int(found[1]), int(found[2]))
    return None
