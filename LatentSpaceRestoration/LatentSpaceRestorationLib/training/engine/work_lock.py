"""One training at a time in a folder of work, whoever asks: a shell, the panel, another panel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ...errors import ConfigError, OutputError
from ...io.files import reason

_NAME = ".lock"
#: Somebody who only looks whether it is held has it no longer than this.
_SECONDS = 1.0


@contextlib.contextmanager
def work_lock(folder: Path) -> Iterator[None]:
    """Keep others from training in a folder; the system gives it free when the process ends.

    Args:
        folder: of work; it is made, and goes again if nothing was put into it.

    Raises:
        ConfigError: somebody else trains there.
        OutputError: the folder cannot be written.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / _NAME)
        held.acquire(timeout=_SECONDS)
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another training works there; wait for its end, stop it, or choose "
            "another folder"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({reason(error)}); choose another folder"
        ) from error
    try:
        yield
    finally:
        held.release()
        if is_new and {file.name for file in folder.iterdir()} <= {_NAME}:
            (folder / _NAME).unlink(missing_ok=True)
            folder.rmdir()


def is_held(folder: Path) -> bool:
    """Whether a training works in a folder."""
    if not (folder / _NAME).is_file():
        return False
    held = FileLock(folder / _NAME)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    held.release()
    return False
