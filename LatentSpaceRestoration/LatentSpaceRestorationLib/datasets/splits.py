"""How scans are shared out between training, choosing, calibration and test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from .subjects import SPLITS, Subject, read_table, write_table

#: Fewer calibration scans than this are refused by ``lsr calibrate``.
_FEWEST_CALIBRATE = 5


@dataclass(frozen=True)
class Splits:
    """How persons are shared out where the source does not say.

    At least five go to ``calibrate`` (at most half of all) and one to ``tune``; ``train`` gets what
    is left.

    Attributes:
        calibrate, tune: shares of all persons.
        seed: of the draw.
        file: table of subjects in which a draw is kept: whoever stands in it stays where they are.
    """

    calibrate: float = 0.2
    tune: float = 0.1
    seed: int = 0
    file: Path | None = None


def share_out(
    source: str, subjects: list[Subject], splits: Splits, report: Callable[[str], None]
) -> list[Subject]:
    """Give each person without a set one, and keep the draw."""
    given = {s.owner: s.split for s in subjects if s.split}
    if splits.file is not None and splits.file.is_file():
        given = {s.owner: s.split for s in read_table(splits.file)} | given
    people = {s.owner for s in subjects}
    chosen = draw({p: given.get(p, "") for p in people}, splits)
    if chosen is None:
        raise InputError(
            f"{source}: {len(people)} persons are too few to train, tune and calibrate on; give at "
            "least 3, better 100"
        )
    shared = [replace(s, split=chosen[s.owner]) for s in subjects]
    if splits.file is not None:
        write_table(splits.file, shared)
    if all(given.get(person) for person in people):
        return shared
    counts = Counter(chosen.values())
    words = ", ".join(f"{counts[name]} {name}" for name in SPLITS if counts[name])
    kept = f"; they stay as they are in {splits.file}" if splits.file is not None else ""
    report(f"the sets were drawn by person with seed {splits.seed}: {words}{kept}")
    return shared


def draw(given: Mapping[str, str], splits: Splits) -> dict[str, str] | None:
    """Sets for persons.

    Args:
        given: the set of each person, empty where there is none yet.
        splits: shares and seed.

    Returns:
        the set of each person; None if nobody is left to train on.
    """
    number = sum(split in ("", "train", "calibrate", "tune") for split in given.values())
    wanted = {
        "calibrate": max(min(_FEWEST_CALIBRATE, number // 2), round(splits.calibrate * number)),
        "tune": max(1, round(splits.tune * number)),
    }
    counts = Counter(given.values())
    # By hash: who is where does not depend on who else is there, as far as numbers allow.
    order = sorted(given, key=lambda p: hashlib.sha256(f"{splits.seed}:{p}".encode()).digest())
    chosen = dict(given)
    for person in order:
        if not chosen[person]:
            lacking = [name for name, count in wanted.items() if counts[name] < count]
            chosen[person] = lacking[0] if lacking else "train"
            counts[chosen[person]] += 1
    return chosen if counts["train"] else None
