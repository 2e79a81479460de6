"""Files that are written whole or not at all, and what they hold."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError, OutputError

#: Byte-order marks, and what they begin.
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@contextmanager
def written_whole(target: Path, remedy: str) -> Iterator[Path]:
    """A file to write, which takes the target's place once it is whole; else nothing is left of it.

    Args:
        target: replaced if it exists; its folder must be there.
        remedy: what to do if it cannot be written, to end the message with.

    Yields:
        a path of the same name in a folder beside the target.

    Raises:
        OutputError: it cannot be written; what was there is left.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".lsr-", dir=target.parent) as folder:
            beside = Path(folder) / target.name
            yield beside
            os.replace(beside, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({reason(error)}); {remedy}") from error


def reason(error: BaseException) -> str:
    """What an exception of the system says, in one line and without the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def content_hash(files: Sequence[Path]) -> str:
    """SHA-256 of the bytes of files, in their order; not of their names.

    Args:
        files: such as :func:`images.files_of` gives of a scan.

    Raises:
        InputError: one cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from error
    return digest.hexdigest()


def write_whole(file: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place, make sure that it is on the disk, and rename it.

    Raises:
        OutputError: it cannot be written; what was there before is still there.
    """
    kept = "; the one before it is kept" if file.is_file() else ""
    remedy = f"make room, then run again{kept}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({reason(error)}); {remedy}") from error
    with written_whole(file, remedy) as beside, beside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resources(name: str) -> Path:
    """A folder of the extension's resources, such as ``Models``.

    Beside the library in a checkout, in an editable install and in Slicer; inside it, in lower
    case, in a wheel.
    """
    library = Path(__file__).resolve().parents[1]
    beside = library.parent / "Resources" / name
    return beside if beside.is_dir() else library / name.lower()


def read_text(file: Path) -> str:
    """The text of a file of whatever program: with or without a byte-order mark, UTF-16, Latin-1.

    Raises:
        OSError: it cannot be read.
    """
    data = file.read_bytes()
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def printable(name: object) -> str:
    """A name on one line that any terminal and file can take: what is no text is escaped.

    Names of files are bytes; those that are no UTF-8 become such as ``\\udcfc``, and line feeds
    ``\\n``.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
