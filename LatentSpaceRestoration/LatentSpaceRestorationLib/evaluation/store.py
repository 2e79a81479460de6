"""Results of single cases on disk, so that an evaluation that was broken off goes on.

Each is one small file beside a picture, written whole or not at all, and used again only if it was
made with the same scan, settings, model and program.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from ..errors import OutputError
from ..io.files import reason
from .metrics.histograms import Histogram
from .metrics.measures import Measured, Regions


def save(path: Path, key: str, measured: Measured, picture: bytes) -> None:
    """Write a result to ``path`` (.npz) and its picture beside it (.webp).

    Raises:
        OutputError: the folder cannot be written or is full; what was there is left.
    """
    voxels, regions = measured.voxels, measured.regions
    text = json.dumps({"key": key, "numbers": measured.numbers, "first": regions.first})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".lsr-", dir=path.parent) as folder:
            drawn, new = Path(folder) / "picture", Path(folder) / "result.npz"
            drawn.write_bytes(picture)
            np.savez_compressed(
                new,
                text=np.array(text),
                keys=voxels.keys,
                normal=voxels.normal,
                anomalous=voxels.anomalous,
                false=regions.false,
                found=regions.found,
            )
            # The figures go last: where they are, the picture is.
            os.replace(drawn, path.with_suffix(".webp"))
            os.replace(new, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({reason(error)}); make room, or choose another folder, "
            "and start again: what is done is kept"
        ) from error


def load(path: Path, key: str) -> Measured | None:
    """A result that was saved; None if there is none, it is damaged, or its key is another."""
    found = read(path) if path.with_suffix(".webp").is_file() else None
    return found[1] if found is not None and found[0] == key else None


def read(path: Path) -> tuple[str, Measured] | None:
    """The key and the result of a file (.npz); None if there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as data:
            text = json.loads(str(data["text"]))
            voxels = Histogram(data["keys"], data["normal"], data["anomalous"])
            regions = Regions(int(text["first"]), data["false"], data["found"])
            return str(text["key"]), Measured(dict(text["numbers"]), voxels, regions)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None  # cut short or changed: it is made again
