"""Names for scans, and places for their results as of BIDS derivatives."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io.images import scan_name

#: A scan that is named as BIDS asks; what stands between session and suffix is kept as it is.
_BIDS = re.compile(r"(sub-[a-z0-9+]+)_(?:(ses-[a-z0-9+]+)_)?(?:[a-z]+-[a-z0-9+]+_)*t1w", re.I)
_SUFFIX = "T1w"


@dataclass(frozen=True)
class ResultPlace:
    """Where a scan's results go.

    Attributes:
        folder: relative to the run's, with ``/``: ``sub-01/ses-1/anat``.
        stem: what their names begin with: ``sub-01_ses-1_T1w``. No other scan has it.
    """

    folder: str
    stem: str


def tell_apart(named: Sequence[tuple[str, Path]]) -> list[str]:
    """Names of which no two are alike, upper or lower case.

    Args:
        named: the name that each scan would have, and its file.

    Returns:
        the same names where they are alone; where not, with the folders that tell them apart
        before them (``a_T1`` and ``b_T1`` for ``a/T1.nii`` and ``b/T1.nii``), or with a digest of
        the path behind them.
    """
    names = [name for name, _ in named]
    for again in (_with_folders, _with_digest):
        count = _counted(names)
        alike = [i for i, name in enumerate(names) if count[name.casefold()] > 1]
        for name in {names[i].casefold() for i in alike}:
            which = [i for i in alike if names[i].casefold() == name]
            files = [named[i][1] for i in which]
            for i, new in zip(which, again([names[i] for i in which], files), strict=True):
                names[i] = new
    return names


def places(named: Sequence[tuple[str, Path]]) -> list[ResultPlace]:
    """Places for results: of BIDS scans by their own labels, of others by their names.

    Args:
        named: names, no two alike, and files.
    """
    stems = [scan_name(file) for _, file in named]
    alike = _counted(stems)
    matches = [_BIDS.fullmatch(stem) if alike[stem.casefold()] == 1 else None for stem in stems]
    plain = [
        stem if match else f"sub-{_label(name)}_{_SUFFIX}"
        for (name, _), stem, match in zip(named, stems, matches, strict=True)
    ]
    alike = _counted(plain)
    found = []
    for (name, _), stem, match in zip(named, plain, matches, strict=True):
        if match:
            session = f"{match[2]}/" if match[2] else ""
            found.append(ResultPlace(f"{match[1]}/{session}anat", stem))
        else:
            own = _label(name) + (_digest(name) if alike[stem.casefold()] > 1 else "")
            found.append(ResultPlace(f"sub-{own}/anat", f"sub-{own}_{_SUFFIX}"))
    return found


def _label(name: str) -> str:
    """A name as a label of BIDS, which are letters and digits."""
    bare = re.sub(rf"^sub-|[-_]?{_SUFFIX}$", "", name)
    return re.sub(r"[^A-Za-z0-9]", "", bare) or "scan"


def _counted(names: Sequence[str]) -> Counter[str]:
    return Counter(name.casefold() for name in names)


def _with_folders(names: Sequence[str], files: Sequence[Path]) -> list[str]:
    above = os.path.commonpath([file.parent for file in files])
    parts = [file.parent.relative_to(above).parts for file in files]
    return ["_".join([*own, name]) for own, name in zip(parts, names, strict=True)]


def _with_digest(names: Sequence[str], files: Sequence[Path]) -> list[str]:
    return [f"{name}_{_digest(str(file))}" for name, file in zip(names, files, strict=True)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
