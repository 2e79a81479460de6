"""``scores.tsv``: a row a scan, always whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..datasets.subjects import NOTHING
from ..io.files import printable, written_whole
from ..options import RunOptions
from ..results.record import DetectionRecord

if TYPE_CHECKING:
    from .inputs import CohortScan

TABLE, COLUMNS = "scores.tsv", "scores.json"
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class ScoreRow:
    """What is known of a scan; ``None`` of one that failed.

    Attributes:
        id: its name, which no other has.
        file: absolute path of the image, or of the folder of its DICOM series.
        status: ``DONE`` or ``FAILED``.
        score: how unusual the scan is; higher is more.
        percentile: share of healthy scans that score lower.
        p: chance that a healthy scan scores as high.
        flagged_ml: volume of the mask.
        warnings: what the user should know.
        reason: why it failed, in one line.
        seconds: from reading the scan to writing its results, without loading the model.
        model, version, method, mode, restorations, seed, threshold_percentile, device: how.
        site: where the scan was made, as the cohort's table says; empty if it does not.
        result: path of the scan's figures, relative to the run's folder, with ``/``; its other
            results lie beside it.
    """

    id: str
    file: str
    status: str
    score: float | None = None
    percentile: float | None = None
    p: float | None = None
    flagged_ml: float | None = None
    warnings: tuple[str, ...] = ()
    reason: str = ""
    seconds: float | None = None
    model: str = ""
    version: str = __version__
    method: str = ""
    mode: str = ""
    restorations: int | None = None
    seed: int | None = None
    threshold_percentile: float | None = None
    device: str = ""
    site: str = ""
    result: str = ""

    @classmethod
    def of_record(
        cls, scan: CohortScan, record: DetectionRecord, seconds: float, result: str
    ) -> ScoreRow:
        """The row of a scan that was done."""
        same = ("percentile", "model", "version", "method", "mode", "restorations", "seed")
        return cls(
            id=scan.name,
            file=str(scan.file),
            status=DONE,
            score=record.sample_score,
            p=record.p_value,
            flagged_ml=record.flagged_ml,
            warnings=record.warnings,
            seconds=round(seconds, 2),
            site=scan.site,
            result=result,
            **{key: getattr(record, key) for key in (*same, "threshold_percentile", "device")},
        )

    @classmethod
    def of_failure(cls, scan: CohortScan, why: str, options: RunOptions) -> ScoreRow:
        """The row of a scan that could not be done."""
        return cls(
            id=scan.name,
            file=str(scan.file),
            status=FAILED,
            reason=" ".join(why.split()),
            model=Path(options.model).name,
            method=options.method,
            mode=options.mode,
            seed=options.seed,
            site=scan.site,
        )

    def renamed(self, scan: CohortScan) -> ScoreRow:
        """The same under the name and path that the scan has now."""
        return replace(self, id=scan.name, file=str(scan.file), site=scan.site)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ScoreRow:
        """A row from what ``asdict`` gave, through JSON.

        Raises:
            TypeError: of another version, with other columns.
        """
        return cls(**{**values, "warnings": tuple(values["warnings"])})


#: What the columns are, as BIDS wants it told beside a table.
_DESCRIPTIONS = {
    "id": "the scan's name",
    "file": "the scan",
    "status": "done, or failed for the reason given",
    "score": "how unusual the scan is; higher is more",
    "percentile": "share of the model's healthy scans that score lower, in percent",
    "p": "chance that a healthy scan scores as high, as far as the healthy scans can tell",
    "flagged_ml": "volume above the threshold, in ml",
    "warnings": "what to know, separated by |",
    "reason": "why the scan failed, and what to do",
    "seconds": "from reading the scan to writing its results",
    "model": "name of the model",
    "version": "of the program",
    "method": "of the model",
    "mode": "of the method",
    "restorations": "how many were made",
    "seed": "of the restorations",
    "threshold_percentile": "of healthy brain voxels, at which the mask is cut",
    "device": "that the networks ran on",
    "site": "where the scan was made, as the table of the cohort says",
    "result": "figures of the scan; its images, picture and page lie beside them",
}


def write_scores(folder: Path, rows: Iterable[ScoreRow]) -> None:
    """Write ``scores.tsv``, whole: beside its place first, then renamed.

    Raises:
        OutputError: it cannot be written; what was there is left.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
    writer.writerow(_DESCRIPTIONS)
    for row in rows:
        writer.writerow([_cell(getattr(row, column)) for column in _DESCRIPTIONS])
    write_text(folder / TABLE, text.getvalue())


def write_columns(folder: Path) -> None:
    """Write ``scores.json``, which says what the columns are.

    Raises:
        OutputError: it cannot be written.
    """
    what = {column: {"Description": words} for column, words in _DESCRIPTIONS.items()}
    write_text(folder / COLUMNS, json.dumps(what, indent=2) + "\n")


def read_scores(folder: Path) -> list[dict[str, str]]:
    """The rows of ``scores.tsv`` as text, by column; what is not there is ``n/a``."""
    with (folder / TABLE).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def write_text(file: Path, text: str) -> None:
    """Write a text file, all or nothing.

    Raises:
        OutputError: it cannot be written; what was there is left.
    """
    remedy = "make room, or choose another folder, and start again: what is done is kept"
    with written_whole(file, remedy) as beside:
        beside.write_text(text, encoding="utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        value = " | ".join(value)
    text = "" if value is None else repr(value) if isinstance(value, float) else str(value)
    return printable(" ".join(text.split())) or NOTHING
