"""What a worker does: one scan, from its file to its results and its row.

The model is loaded when the first scan needs it and stays for the next: once a process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Cancelled, LSRError, OutputError
from ..options import RunOptions
from ..runtime.progress import IsCancelled, Progress
from . import records
from .inputs import CohortScan
from .options import digest_of
from .scores import ScoreRow

if TYPE_CHECKING:
    from ..detector import Detector

#: A process looks at one scan at a time, also where it is asked from several threads: a detector
#: belongs to one detection, and so does the memory.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Job:
    """A scan to be done.

    Attributes:
        folder: of the run; absolute.
        made_with: digest of the options where the run was started.
    """

    scan: CohortScan
    folder: Path
    options: RunOptions
    made_with: str


def look(
    job: Job, progress: Progress | None = None, is_cancelled: IsCancelled | None = None
) -> ScoreRow:
    """Do a scan, unless that was done, and keep its row.

    Whatever is wrong with it ends in the row. Doing it again, or twice at the same time, gives the
    same files and the same row.

    Args:
        progress, is_cancelled: as for ``Detector.detect``.

    Raises:
        Cancelled: ``is_cancelled`` said so.
    """
    try:
        with _ONE_AT_A_TIME:
            return _look(job, progress, is_cancelled)
    except Cancelled:
        raise
    except LSRError as error:
        return failed(job, str(error))
    except MemoryError:
        return failed(job, f"{job.scan.file}: does not fit into memory; resample it")
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return failed(job, f"{job.scan.file}: a fault of the program ({why}); report it")


def failed(job: Job, why: str) -> ScoreRow:
    """The row of a scan that could not be done; it is kept if that can be."""
    row = ScoreRow.of_failure(job.scan, why, job.options)
    with contextlib.suppress(OutputError):  # it is in the table anyway
        records.save(job.folder, job.scan, row)
    return row


def _look(job: Job, progress: Progress | None, is_cancelled: IsCancelled | None) -> ScoreRow:
    from ..detect_file import detect_file
    from ..results.files import FIGURES
    from ..results.report.scan import scan_report

    scan, options = job.scan, job.options
    key = records.key_of(scan, job.made_with)
    known = records.done(job.folder, scan, key)
    if known is not None:
        return known
    detector = _detector(options, job.made_with)
    started = time.perf_counter()
    result = detect_file(
        detector,
        scan.file,
        job.folder / scan.place.folder,
        options,
        brain_mask=scan.mask,
        progress=progress,
        is_cancelled=is_cancelled,
        name=scan.place.stem,
        series=scan.series,
        extras=[scan_report()],
    )
    row = ScoreRow.of_record(
        scan,
        result.record,
        time.perf_counter() - started,
        result.files[FIGURES].relative_to(job.folder).as_posix(),
    )
    records.save(job.folder, scan, row, key)
    return row


@lru_cache(maxsize=1)
def _detector(options: RunOptions, made_with: str) -> Detector:
    from ..detector import Detector

    detector = Detector.load(options.model, options.device, precision=options.precision)
    if digest_of(options, detector) != made_with:
        raise LSRError(
            f"model {options.model} or the program is another one on this machine than where the "
            "run was started; install the same"
        )
    return detector
