"""Results of single cases on disk, so that an evaluation that was broken off goes on.

Each is one small file beside a picture, written whole or not at all, and used again only if it was
made with the same scan, settings, model and program.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError
from ..io.files import reason
from .metrics.histograms import Histogram
from .metrics.measures import Measured, Regions

#: Parts of the library that no measured figure depends on.
_BESIDE = (
    *("training", "cohort", "results", "cli", "bundle/card.py", "io/dicom_headers.py"),
    *("evaluation/presentation", "evaluation/metrics/figures.py", "evaluation/runs.py"),
    *("evaluation/store.py", "evaluation/synthetic/sources.py"),
)
#: Parts that figures of one kind of model alone depend on, so that a change to how the one works
#: leaves what was measured of the other.
_OF_KIND = {
    "anomaly": (
        *(f"methods/{name}.py" for name in ("intensity", "lsr", "masked", "nll", "vqvae_residual")),
        *("sampling", "calibration/code_values.py"),
        *(f"networks/{name}.py" for name in ("masked", "pixelsnail", "vqvae")),
    ),
    "vae": (
        *(f"methods/{name}.py" for name in ("descent", "map_restoration", "projection", "vae")),
        *("inference/vae_model.py", "networks/vae.py"),
    ),
}


def key_of(kind: str, **settings: Any) -> str:
    """A digest of everything that a result depends on, the program included.

    Args:
        kind: of the model.
        settings: of the case and the method.
    """
    text = json.dumps({**settings, "program": _program(kind)}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


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


@cache
def _program(kind: str) -> str:
    """A digest of the library's code as far as results depend on it; comments do not count."""
    beside = (*_BESIDE, *(name for k, names in _OF_KIND.items() if k != kind for name in names))
    library = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library).as_posix()
        if name.startswith(beside):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_text(body[0]):
                del body[0]
        digest.update(f"{name}\0{ast.dump(tree)}".encode())
    return digest.hexdigest()


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
