"""A training in other processes, watched through the file that they write to."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.training.engine.progress import TrainingProgress
    from LatentSpaceRestorationLib.training.job import TrainingJob

#: Status of ``lsr`` that was stopped; it has kept what it made.
_CANCELLED = 130
_ERROR = "lsr: error: "
_POLL_SECONDS = 0.05


class State(Enum):
    """Where a training stands."""

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


def pythonOfSlicer() -> str:
    """The Python interpreter that has Slicer's packages.

    Raises:
        FileNotFoundError: Slicer has put none on the path.
    """
    found = shutil.which("PythonSlicer")  # sys.executable is Slicer itself
    if found is None:
        raise FileNotFoundError(_("PythonSlicer was not found; train with lsr on a console."))
    return found


def _signal(process: subprocess.Popen[bytes], name: str) -> None:
    """Send a signal to a process and to all that it has started."""
    if os.name == "nt":  # there a process cannot be asked
        tree = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(tree, check=False, capture_output=True)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, getattr(signal, name))


class TrainingProcess:
    """Trains a model and calibrates it, one process after the other.

    What they print is kept in a file beside the settings, so that nothing waits for being read and
    everything can be read afterwards.

    Args:
        own: what is asked for.

    Attributes:
        state: changes in ``poll`` alone.
        progress: what the last line that tells of it says; None at first.
        error: what went wrong, in one line; empty if nothing did.
    """

    def __init__(self, own: TrainingJob) -> None:
        self.own = own
        self.state = State.STOPPED
        self.progress: TrainingProgress | None = None
        self.error = ""
        self._commands: list[tuple[str, ...]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: IO[str] | None = None
        self._isStopping = False
        self._rest = ""

    @property
    def log(self) -> Path:
        """What the processes print."""
        return self.own.folder / f"{self.own.name}.log"

    def start(self) -> None:
        """Write the settings and start; a training that was stopped goes on.

        Raises:
            LatentSpaceRestorationLib.errors.LSRError: what is asked for cannot be.
            OSError: no process can be started.
        """
        self.own.write_settings()
        if self._works():
            raise RuntimeError(
                _("A training works in {folder} already; wait for its end or stop it.").format(
                    folder=self.own.work
                )
            )
        self.log.write_bytes(b"")
        self._reader = self.log.open(encoding="utf-8", errors="replace")
        self._commands = list(self.own.commands())
        self._launch()
        self.state = State.RUNNING

    def poll(self) -> State:
        """Look at what happened since; starts the next process when one has ended well."""
        if self._process is None:
            return self.state
        ended = self._process.poll()  # first: what it printed before its end is then all there
        self._read()
        # The launcher may end before what it has launched.
        if ended is None or self._works():
            return self.state
        self._process = None
        if self._isStopping or ended == _CANCELLED:
            self._end(State.STOPPED)
        elif ended != 0:
            self.error = self.error or _("it ended with status {status}; see {file}").format(
                status=ended, file=self.log
            )
            self._end(State.FAILED)
        elif self._commands:
            self._launch()
        else:
            self._end(State.DONE)
        return self.state

    def stop(self) -> None:
        """Ask it to end; it keeps what it has made, and ``start`` goes on from there.

        On Windows a process cannot be asked: the last checkpoint, of at most two minutes before,
        is what is kept.
        """
        self._isStopping = True
        if self._process is not None:
            _signal(self._process, "SIGTERM")

    def end(self, seconds: float = 10.0) -> None:
        """Stop, and wait for the end; then it is ended as it is."""
        process = self._process
        if process is None:
            return
        self.stop()
        last = time.monotonic() + seconds
        while (process.poll() is None or self._works()) and time.monotonic() < last:
            time.sleep(_POLL_SECONDS)
        if process.poll() is None or self._works():
            _signal(process, "SIGKILL")
            process.wait()
            while self._works():  # until the system has let go of what they held
                time.sleep(_POLL_SECONDS)
        self.poll()

    def _works(self) -> bool:
        """Whether some process trains in the folder of work."""
        from LatentSpaceRestorationLib.training.engine.work_lock import is_held

        return is_held(self.own.work)

    def _launch(self) -> None:
        library = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH", ""))))
        hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows alone
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [pythonOfSlicer(), "-m", "LatentSpaceRestorationLib", *self._commands.pop(0)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                creationflags=hidden,
                # PythonSlicer is a launcher that passes no signals on: both get them as a group.
                start_new_session=os.name != "nt",
            )

    def _read(self) -> None:
        from LatentSpaceRestorationLib.training.engine.progress import progress_in

        if self._reader is None:
            return
        *lines, self._rest = (self._rest + self._reader.read()).split("\n")
        for line in lines:
            self.progress = progress_in(line) or self.progress
            if line.startswith(_ERROR):
                self.error = line.removeprefix(_ERROR)

    def _end(self, state: State) -> None:
        self.state = state
        self._isStopping = False
        if self._reader is not None:
            self._reader.close()
            self._reader = None
