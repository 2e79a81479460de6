"""What workers do in tests of cohorts: they import it by its name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from LatentSpaceRestorationLib.cohort.scores import ScoreRow
from LatentSpaceRestorationLib.cohort.task import Job, look


def marked_look(job: Job) -> ScoreRow:
    """Do a scan as always, but say before in a file which process begins it."""
    marks = job.folder / "marks"
    marks.mkdir(exist_ok=True)
    (marks / f"{job.scan.name}.{os.getpid()}").touch()
    return look(job)


def poison(job: tuple[str, int]) -> str:
    """Give the job back, or end the process that was asked."""
    folder, number = job
    if number == 3:
        (Path(folder) / f"ended.{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"did {number}"
