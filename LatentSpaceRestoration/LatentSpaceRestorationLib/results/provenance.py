"""What a result depends on: a digest by which results of an earlier run are known again."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from ..methods.registry import ENTRIES

#: Parts of the library that no measured figure depends on.
_BESIDE = (
    *("training", "cohort", "results", "cli", "bundle/card.py", "io/dicom_headers.py"),
    *("evaluation/presentation", "evaluation/metrics/figures.py", "evaluation/runs.py"),
    *("evaluation/store.py", "evaluation/synthetic/sources.py"),
)
#: Parts beside its methods that figures of one kind of model alone depend on, so that a change to
#: how the one works leaves what was measured of the other.
_OF_KIND = {
    "anomaly": (
        *("sampling", "calibration/code_values.py", "methods/masked.py", "methods/settings.py"),
        *(f"networks/{name}.py" for name in ("masked", "pixelsnail", "vqvae")),
    ),
    "vae": ("inference/vae_model.py", "methods/descent.py", "networks/vae.py"),
}


def key_of(kind: str, **settings: Any) -> str:
    """A digest of everything that a result depends on, the program included.

    Args:
        kind: of the model.
        settings: of the case and the method.
    """
    text = json.dumps({**settings, "program": _program(kind)}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def parts_of_kind(kind: str) -> tuple[str, ...]:
    """Files and folders of the library that figures of one kind of model alone depend on."""
    methods = {f"methods/{entry.file}.py" for entry in ENTRIES if entry.kind == kind}
    return (*sorted(methods), *_OF_KIND.get(kind, ()))


@cache
def _program(kind: str) -> str:
    """A digest of the library's code as far as results depend on it; comments do not count."""
    others = {entry.kind for entry in ENTRIES} - {kind}
    beside = (*_BESIDE, *(part for other in others for part in parts_of_kind(other)))
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
