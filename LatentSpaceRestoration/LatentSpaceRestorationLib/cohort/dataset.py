"""The run's folder as a BIDS data set of derivatives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import OutputError
from .scores import write_columns, write_text

DESCRIPTION = "dataset_description.json"
_PROGRAM = "latent-space-restoration"


def check_folder(folder: Path) -> None:
    """Refuse a folder that is another data set, such as the scans' own.

    Raises:
        OutputError: naming the folder.
    """
    file = folder / DESCRIPTION
    if not file.exists():
        return
    try:
        made_by = json.loads(file.read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
    except (OSError, ValueError, LookupError, TypeError):
        made_by = ""
    if made_by != _PROGRAM:
        raise OutputError(
            f"{folder}: is another data set; give the results a folder of their own (the run's "
            "folder comes first, then the scans)"
        )


def describe(folder: Path, inputs: Iterable[Path]) -> None:
    """Write ``dataset_description.json``, and what the columns of ``scores.tsv`` are.

    Args:
        inputs: what the scans were taken from; BIDS data sets among them are named as sources.

    Raises:
        OutputError: they cannot be written.
    """
    sources = [path.resolve() for path in inputs if (path / DESCRIPTION).is_file()]
    text: dict[str, Any] = {
        "Name": "Anomalies of brain scans, by Latent Space Restoration",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": _PROGRAM,
                "Version": __version__,
                "Description": "lsr cohort. For research use. Not for diagnosis.",
            }
        ],
    }
    if sources:
        text["SourceDatasets"] = [{"URL": source.as_uri()} for source in sources]
    write_text(folder / DESCRIPTION, json.dumps(text, indent=2, ensure_ascii=False) + "\n")
    write_columns(folder)
