"""The files of a result: named after the scan, written all or none."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibration.quantiles import Quantiles
from ..detection import Detection
from ..errors import InputError, OutputError
from ..io.files import printable, reason
from ..io.images import scan_name, write_volume
from ..runtime.side_by_side import side_by_side
from ..volume import Volume
from .record import DetectionRecord

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Pair

#: What is written for each scan, after the scan's name.
IMAGES = {
    "anomaly-map.nii.gz": lambda detection: detection.anomaly_map,
    "anomaly-mask.nii.gz": lambda detection: detection.anomaly_mask,
    "restoration.nii.gz": lambda detection: detection.restoration,
    "restoration-sd.nii.gz": lambda detection: detection.restoration_sd,
}
PICTURE, FIGURES = "anomaly.png", "anomaly.json"
ENDINGS = (*IMAGES, PICTURE, FIGURES)


@dataclass(frozen=True)
class FileResult:
    """What was found in one scan and where it was written.

    Attributes:
        scan: the file.
        volume: the scan.
        detection: the result.
        record: its figures.
        healthy: what the map is in healthy brain voxels, made in the same way.
        files: paths by what follows the scan's name (``anomaly.png``).
    """

    scan: Path
    volume: Volume
    detection: Detection
    record: DetectionRecord
    healthy: Quantiles
    files: dict[str, Path]

    @property
    def figures(self) -> dict[str, Any]:
        """Content of the JSON file."""
        return self.record.to_json(self.scan.name)


#: Writes further files of a result, by what follows the scan's name.
Writer = Callable[[FileResult, Mapping[str, Path]], None]


@dataclass(frozen=True)
class Extra:
    """Further files of a result, for those who ask for them.

    Attributes:
        endings: of the files, after the scan's name.
        prepare: called with the scan, and the series as in :func:`detect_file`, before it is read;
            raises an InputError if it cannot serve, and gives what writes the files.
    """

    endings: tuple[str, ...]
    prepare: Callable[[Path, str], Writer]


def result_files(
    scan: str | Path, folder: str | Path, extras: Sequence[Extra] = ()
) -> dict[str, Path]:
    """The paths that a scan's results have in a folder, by what follows the scan's name."""
    return named_files(scan_name(scan), folder, extras)


def named_files(name: str, folder: str | Path, extras: Sequence[Extra] = ()) -> dict[str, Path]:
    """The paths that results of this name have in a folder, by what follows the name."""
    endings = [*ENDINGS, *(ending for extra in extras for ending in extra.endings)]
    return {ending: Path(folder) / f"{name}_{ending}" for ending in endings}


def check_names(
    scans: Sequence[str | Path], folder: str | Path, extras: Sequence[Extra] = ()
) -> None:
    """Refuse scans whose results would replace each other's, a scan, or a folder.

    Raises:
        OutputError: naming the files.
    """
    # Not only equal names: many file systems take letters of either case for the same.
    names: dict[str, str | Path] = {}
    for scan in scans:
        name = scan_name(scan).casefold()
        if name in names:
            raise OutputError(
                f"{scan}: its results would have the names of those of {names[name]}; "
                "rename one of the two, or give them different folders in two calls"
            )
        names[name] = scan
    inputs = {os.path.realpath(scan) for scan in scans}
    for scan in scans:
        for file in result_files(scan, folder, extras).values():
            if os.path.realpath(file) in inputs:
                raise OutputError(f"{file}: a result would replace this scan; use another folder")
            if os.path.isdir(file):
                raise OutputError(f"{file}: is a folder where a result is to be; use another one")


@contextlib.contextmanager
def results_folder(folder: str | Path) -> Iterator[Path]:
    """Make sure, before anything is computed, that results can be written into a folder.

    The folder and those above it are made if they are missing, and those that were made are
    removed again on leaving if nothing was written.

    Raises:
        OutputError: naming the folder, if it cannot be made or written.
    """
    path = Path(folder)
    made: list[Path] = []
    try:
        made = [above for above in (path, *path.parents) if not above.exists()]
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        _remove_empty(made)
        raise OutputError(
            f"{folder}: results cannot be written there ({reason(error)}); choose another folder"
        ) from error
    try:
        yield path
    finally:
        _remove_empty(made)


def write_result(
    result: FileResult, folder: Path, geometry: Nifti1Pair | None, writers: Sequence[Writer]
) -> None:
    """The files in the folder; what became of the scan and of the folder meanwhile is no matter."""
    from .picture import draw

    scan, volume, detection = result.scan, result.volume, result.detection
    files, figures = result.files, result.figures
    picture = draw(volume, detection, printable(scan.name))
    text = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".lsr-", dir=folder) as parts:
            new = {ending: Path(parts) / file.name for ending, file in files.items()}

            def write_image(ending: str) -> None:
                image = Volume(IMAGES[ending](detection), volume.affine, volume.name)
                write_volume(new[ending], image, like=geometry)

            side_by_side(write_image, IMAGES)
            picture.save(new[PICTURE])
            # What is no text becomes an escape, as JSON has it.
            new[FIGURES].write_text(text, encoding="utf-8", errors="backslashreplace")
            refused = None
            for write in writers:
                try:
                    write(result, new)
                except InputError as error:  # the others are kept in any case
                    refused = error
            there = [(new[ending], file) for ending, file in files.items() if new[ending].exists()]
            with _uninterrupted():
                _move(there, Path(parts))
        if refused is not None:
            raise refused
    except (OSError, OutputError) as error:
        # The other one names a hidden file.
        cause = error.__cause__ if isinstance(error, OutputError) and error.__cause__ else error
        raise OutputError(
            f"{folder}: the results of {scan.name} cannot be written ({reason(cause)}); "
            "make room, or choose another folder"
        ) from error


def _move(moves: Sequence[tuple[Path, Path]], parts: Path) -> None:
    """Put new files into place; if one cannot be, all is as it was before."""
    replaced: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for new, target in moves:
            old = parts / f"old-{target.name}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(target, old)
                replaced.append((old, target))
            os.replace(new, target)
            placed.append(target)
    except OSError:
        for target in placed:
            target.unlink()
        for old, target in replaced:
            os.replace(old, target)
        raise


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back, and let it through afterwards."""
    held: list[int] = []
    try:
        before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    except ValueError:  # not the main thread, which alone is interrupted
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            raise KeyboardInterrupt


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, as far as nothing is in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
