"""Many scans from files, and their scores as a table in the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer import vtkMRMLTableNode
from slicer.i18n import tr as _

from .installation import MissingPackagesError, missingPackages
from .models import searchFolders

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.cohort.engine import Engine
    from LatentSpaceRestorationLib.cohort.scores import ScoreRow
    from LatentSpaceRestorationLib.options import RunOptions

#: Columns of the table node, with what they are called; those of numbers are sorted as such.
_NUMBERS = ("score", "percentile", "p", "flagged_ml", "seconds")
_TEXTS = ("status", "warnings", "reason", "model", "version", "file", "result")


@dataclass(frozen=True)
class CohortResult:
    """What ``detectCohort`` gives.

    Attributes:
        rows: of all scans, in the order of the inputs, those done before included.
        table: the same in the scene.
        folder: of the run, with ``scores.tsv`` and the results of each scan.
    """

    rows: tuple[ScoreRow, ...]
    table: vtkMRMLTableNode
    folder: Path


def checkPackages(requirements: Path, onCluster: bool) -> None:
    """Raise ``MissingPackagesError`` unless what reads and writes files is installed.

    Args:
        requirements: of a run in this process.
        onCluster: whether Dask is needed as well.
    """
    missing = missingPackages(requirements)
    if onCluster:
        missing += [name for name in ("distributed", "cryptography") if not _isInstalled(name)]
    if missing:
        raise MissingPackagesError(
            _(
                "Python packages are missing: {packages}. They are installed from here by"
                " slicer.util.pip_install({quoted})"
            ).format(packages=", ".join(missing), quoted=repr(missing))
        )


def runCohort(
    folder: str | Path,
    inputs: Sequence[str | Path],
    options: RunOptions,
    jobs: int,
    scheduler: str | None,
    progress: Callable[[float, str], None] | None,
    isCancelled: Callable[[], bool] | None,
) -> CohortResult:
    """Do what is left of a cohort and add the table; see ``logic.detectCohort``."""
    from LatentSpaceRestorationLib.cohort.run import prepared, run

    with prepared(folder, inputs, options) as plan:
        rows, total, left = dict(plan.kept), len(plan.scans), len(plan.jobs)

        def report(fraction: float, message: str) -> None:
            if progress is not None:
                progress((total - left + fraction * left) / total, message)

        engine = _engine(jobs, scheduler, options.device, report)
        with closing(run(plan, engine, isCancelled)) as coming:
            for row in coming:
                rows[row.id] = row
                text = _("{done} of {total} scans").format(done=len(rows), total=total)
                report((len(rows) - total + left) / left, text)
        found = tuple(rows[scan.name] for scan in plan.scans)
        return CohortResult(found, _addTable(found), plan.folder)


def findModel(model: str) -> str:
    """A model that is installed, or that the user added, as it is found from anywhere."""
    from LatentSpaceRestorationLib.bundle.bundle import find_bundle, portable

    return portable(find_bundle(model, searchFolders()))


def _engine(
    jobs: int, scheduler: str | None, device: str, progress: Callable[[float, str], None]
) -> Engine:
    from LatentSpaceRestorationLib.cohort import cluster
    from LatentSpaceRestorationLib.cohort.engine import InTurn, OnCluster

    if scheduler is not None:
        return OnCluster(partial(cluster.existing, scheduler))
    if jobs > 0:
        return OnCluster(partial(cluster.local, jobs, device))
    return InTurn(progress)


def _addTable(rows: Sequence[ScoreRow]) -> vtkMRMLTableNode:
    """A table node named ``scores``: a row a scan; a number that is not there is NaN."""
    name = slicer.mrmlScene.GenerateUniqueName("scores")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table = vtk.vtkTable()
    for column in ("id", *_NUMBERS, *_TEXTS):
        array = vtk.vtkDoubleArray() if column in _NUMBERS else vtk.vtkStringArray()
        array.SetName(column)
        for row in rows:
            array.InsertNextValue(_cell(getattr(row, column), column in _NUMBERS))
        table.AddColumn(array)
    node.SetAndObserveTable(table)
    return node


def _cell(value: Any, isNumber: bool) -> float | str:
    if isNumber:
        return float("nan") if value is None else float(value)
    return "\n".join(value) if isinstance(value, tuple) else str(value)


def _isInstalled(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
