"""A run over a cohort: what is there, what is left, and the table of what was found."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError
from ..options import RunOptions
from ..results.files import results_folder
from ..runtime.progress import IsCancelled
from . import records
from .dataset import check_folder, describe
from .engine import Engine
from .inputs import CohortScan, find_scans
from .options import check_options, digest_of
from .scores import FAILED, ScoreRow, write_scores
from .task import Job, failed, look

#: The table is written anew no more often than this.
_SECONDS_BETWEEN_TABLES = 2.0
_HASHING_THREADS = 4


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        folder: of the run; absolute.
        inputs: as given.
        scans: all of the cohort, in the order of the inputs.
        kept: rows of those that were done before, by name.
        others: rows that stand in the folder of scans which are not of this cohort.
        jobs: those that are left.
    """

    folder: Path
    inputs: tuple[Path, ...]
    scans: tuple[CohortScan, ...]
    kept: dict[str, ScoreRow]
    others: tuple[ScoreRow, ...]
    jobs: tuple[Job, ...]


@contextmanager
def prepared(
    folder: str | Path,
    inputs: Sequence[str | Path],
    options: RunOptions,
    *,
    with_masks: bool = False,
) -> Iterator[Plan]:
    """Find the scans and what was done of them, and make the run's folder ready.

    A folder that was made for the run is removed on leaving, if nothing was written.

    Args:
        folder: of the run; made if it is missing.
        inputs, with_masks: see ``inputs.find_scans``.
        options: of every detection.

    Raises:
        InputError: there are no scans.
        BundleError: the model is unknown, damaged, or cannot do what is asked.
        OutputError: the folder cannot be written, or holds something else.
    """
    from ..detector import Detector

    folder = Path(folder).absolute()
    check_folder(folder)
    scans = find_scans(inputs, leave_out=folder, with_masks=with_masks)
    detector = Detector.load(options.model, "cpu")
    check_options(options, detector)
    made_with = digest_of(options, detector)
    del detector  # the workers load their own
    with results_folder(folder):
        yield _plan(folder, inputs, scans, options, made_with)


def run(
    plan: Plan, engine: Engine, is_cancelled: IsCancelled | None = None
) -> Generator[ScoreRow, None, None]:
    """Do what is left, and write ``scores.tsv`` as rows come and at the end, whatever happens.

    Args:
        engine: gives the workers.
        is_cancelled: asked often; True ends the run.

    Yields:
        the row of each scan that was left, as it is done.

    Raises:
        OutputError: ``scores.tsv`` cannot be written.
        Cancelled: ``is_cancelled`` said so; what is done is kept.
        LSRError: the engine cannot work.
    """
    rows, written = dict(plan.kept), 0.0
    try:
        with closing(engine.results(look, plan.jobs, is_cancelled)) as results:
            for job, result in results:
                row = result if isinstance(result, ScoreRow) else failed(job, result.reason)
                rows[row.id] = row
                if time.monotonic() - written > _SECONDS_BETWEEN_TABLES:
                    with suppress(OutputError):  # there may be room at the end
                        _write(plan, rows)
                    written = time.monotonic()
                yield row
    finally:
        if rows:
            _write(plan, rows)


def _write(plan: Plan, rows: dict[str, ScoreRow]) -> None:
    """Write what is known: the cohort's scans in their order, and after them the others."""
    describe(plan.folder, plan.inputs)
    own = [rows[scan.name] for scan in plan.scans if scan.name in rows]
    write_scores(plan.folder, [*own, *plan.others])


def _plan(
    folder: Path,
    inputs: Sequence[str | Path],
    scans: Sequence[CohortScan],
    options: RunOptions,
    made_with: str,
) -> Plan:
    def known(scan: CohortScan) -> ScoreRow | None:
        if not records.is_recorded(folder, scan):
            return None
        try:
            row = records.done(folder, scan, records.key_of(scan, made_with))
        except InputError:
            return None  # the worker says what is wrong
        if row is None:
            _refuse_another(folder, scan)
        return row

    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        rows = list(pool.map(known, scans))
    # A scan that was moved or renamed since is shown as it is called now.
    kept = {scan.name: row.renamed(scan) for scan, row in zip(scans, rows, strict=True) if row}
    stems = {scan.place.stem for scan in scans}
    return Plan(
        folder,
        tuple(map(Path, inputs)),
        tuple(scans),
        kept,
        tuple(row for stem, row in records.all_rows(folder) if stem not in stems),
        tuple(Job(scan, folder, options, made_with) for scan in scans if scan.name not in kept),
    )


def _refuse_another(folder: Path, scan: CohortScan) -> None:
    """Refuse to replace the results of another scan that only has the same name."""
    known = records.load(folder, scan)
    if known is None or known[1].status == FAILED:
        return
    before = Path(known[1].file)
    if before != scan.file and before.exists():
        raise OutputError(
            f"{scan.file}: its results would replace those of {before} in {folder}; use another "
            "folder, or name both scans in one run"
        )
