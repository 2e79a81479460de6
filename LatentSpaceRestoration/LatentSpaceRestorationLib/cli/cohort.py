"""``lsr cohort``: many scans, on this machine or on many."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LSRError
from .arguments import UNUSABLE_INPUT, add_options, options_of
from .terminal import tell

if TYPE_CHECKING:
    from ..cohort.engine import Engine
    from ..cohort.run import Plan
    from ..cohort.scores import ScoreRow
    from ..options import RunOptions

#: Without a terminal, progress is told this often, in seconds.
_SECONDS_BETWEEN_LINES = 60.0


def add_cohort(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lsr cohort``."""
    parser.description = (
        "Does for every scan what lsr detect does, and writes RUN_FOLDER as a BIDS data set of "
        "derivatives, with a row for each scan in scores.tsv. A run that was broken off goes on "
        "when it is started again; a scan that fails is a row with its reason."
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN_FOLDER", help="made if it is missing")
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, folder of images, BIDS data set, DICOM folder (each series is a scan), table "
        "(.tsv, .csv with the columns subject, t1w and, if there are, brainmask), or a glob of "
        "these in quotation marks",
    )
    add_options(parser)
    add(
        "--masks",
        action="store_true",
        help="use brain masks that lie beside the scans or in a data set's derivatives; those of a "
        "table are used anyway",
    )
    add(
        "--jobs",
        type=_jobs,
        metavar="N",
        help="worker processes; default: one a GPU, or as cores and memory allow; 0: none, one "
        "scan after the other in this process",
    )
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster that is there, such as tcp://host:8786; its workers must see the "
        "same files",
    )
    parser.set_defaults(command=cohort)


def cohort(options: argparse.Namespace) -> int:
    """Run the command; the exit status is 0, or 3 if scans failed."""
    from ..cohort.run import prepared, run
    from ..results.report.cohort import write_cohort_report
    from ..runtime.interruption import stop_requests

    engine = _engine(options)
    with prepared(
        options.folder, options.inputs, _portable(options_of(options)), with_masks=options.masks
    ) as plan:
        if plan.kept:
            tell(f"{len(plan.kept)} of {len(plan.scans)} scans were done before and are kept")
        with stop_requests() as is_cancelled, closing(run(plan, engine, is_cancelled)) as rows:
            failed = _through(rows, _progress_bar(plan))
    total = len(plan.scans)
    print(f"{total - failed} of {total} scans are done: {plan.folder / 'scores.tsv'}")
    print(f"To be looked at: {write_cohort_report(plan.folder)}")
    return UNUSABLE_INPUT if failed else 0


def _portable(options: RunOptions) -> RunOptions:
    """The same, with a model that is found from wherever a worker runs."""
    from ..bundle.bundle import portable

    return replace(options, model=portable(options.model))


def _engine(options: argparse.Namespace) -> Engine:
    from ..cohort import cluster
    from ..cohort.engine import InTurn, OnCluster

    if options.scheduler is not None and options.jobs is not None:
        raise LSRError("--jobs is of a cluster on this machine, not of the one of --scheduler")
    if options.jobs == 0:
        return InTurn()
    cluster.check_extra()
    if options.scheduler is not None:
        return OnCluster(partial(cluster.existing, options.scheduler))
    return OnCluster(partial(cluster.local, options.jobs, options.device))


def _jobs(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 0 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1024")
    return value


def _progress_bar(plan: Plan) -> Any:
    """A bar with rate and time left; None without tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    seen = sys.stderr.isatty()
    return tqdm(
        total=len(plan.scans),
        initial=len(plan.kept),
        desc="cohort",
        unit="scan",
        dynamic_ncols=seen,
        mininterval=0.5 if seen else _SECONDS_BETWEEN_LINES,
        smoothing=0.05,
    )


def _through(rows: Iterable[ScoreRow], bar: Any) -> int:
    """Take rows as they come, show how far it is and what failed; gives how many failed."""
    from ..cohort.scores import FAILED

    failed = 0
    try:
        for row in rows:
            if row.status == FAILED:
                failed += 1
                if bar is not None:
                    bar.clear()
                tell(f"lsr: error: {row.id}: {row.reason}")
            if bar is not None:
                bar.update()
    finally:
        if bar is not None:
            bar.close()
    return failed
