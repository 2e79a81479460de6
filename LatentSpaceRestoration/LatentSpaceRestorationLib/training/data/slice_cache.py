"""From scans to prepared slices on disk, made once: an epoch reads no scan.

A scan's slices lie in a file of their own, named by a hash of everything that they follow from: the
bytes of the scan and of its mask, the grid, the augmentation. The note beside it, ``.json``, is
written last: without it, or where the sizes differ, the slices count for nothing and are made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.bundle import Bundle, find_bundle, read_bundle
from ...bundle.schema import BRAIN_BUNDLE
from ...datasets.subjects import Subject
from ...errors import BundleError, InputError
from ...io.files import content_hash, write_whole
from ...io.images import files_of, read_labels, read_mask, read_volume
from ...model_space import CLIP, Grid
from ...preprocessing.brain_extraction import load_networks
from ...preprocessing.pipeline import AlignedScan, BrainFinder, Preprocessing
from ...preprocessing.resampling import resample
from ...preprocessing.slices import PreparedScan, cut_like
from ...runtime.placement import Placement
from ...volume import Volume, check
from .augmentation import TISSUES
from .slices import Pieces, Slices, to_uint8
from .volume_augmentation import VolumeAugmentation, vary_head, version

#: Changes with every change of the way from a scan to its slices.
VERSION = 3
#: Spacings that differ by less than this, in mm, are one.
_SAME_SPACING_MM = 0.05

Report = Callable[[str], None]


@dataclass(frozen=True)
class PreparedSet:
    """The slices of a set of scans.

    Attributes:
        slices: of all scans that could be used.
        scans: SHA-256 of each scan's bytes, by name.
        left_out: why others could not be used, by name.
        key: hash of all of this.
    """

    slices: Slices
    scans: dict[str, str]
    left_out: dict[str, str]
    key: str


@dataclass(frozen=True)
class _Entry:
    """One scan's slices, or one copy's, on disk."""

    file: Path
    position: np.ndarray
    spacing: tuple[float, ...]
    tissue: Path | None


class Brains:
    """Brain masks: the subjects' own, or found by the brain-extraction model.

    Args:
        search: folders that hold models, looked in first.
        device: torch device.
    """

    def __init__(self, search: Iterable[Path] = (), device: str = "cpu") -> None:
        self._device = device
        try:
            found: Bundle | None = read_bundle(find_bundle(BRAIN_BUNDLE, tuple(search)))
        except BundleError:
            found = None  # scans with a mask, and extracted ones, do without
        self._bundle = found

    def key(self, subject: Subject) -> str:
        """What decides a subject's mask."""
        if subject.mask is not None:
            return content_hash(files_of(subject.mask))
        return hashed(self._bundle.config["files"]) if self._bundle else ""

    @cached_property
    def finder(self) -> BrainFinder:
        """Finds brains. Loaded when it is first asked for: most sets have masks."""
        placement = Placement(self._device, {"brain": 1})
        if self._bundle is None:
            return BrainFinder(None, 0.0, lambda: placement)
        spacing_mm = self._bundle.spacing_mm
        return BrainFinder(load_networks(self._bundle), spacing_mm, lambda: placement)


def laid_scan(
    subject: Subject, grid: Grid, brains: Brains, atlas: np.ndarray | None, shading: int = 0
) -> tuple[AlignedScan, tuple[float, ...]]:
    """A subject's scan as detection would lay it, with its own brain mask if it has one.

    Args:
        subject: which.
        grid: the model's.
        brains: finds the masks that are missing.
        atlas: the model's; None takes heads as they lie.
        shading: order of the field that is taken out of the scan; 0 takes out none.

    Returns:
        the scan, and the spacing of its voxels in mm.

    Raises:
        InputError: it cannot be used.
    """
    volume = read_volume(subject.scan, series=subject.series)
    check(volume)
    mask = None if subject.mask is None else read_mask(subject.mask, volume)
    finder = brains.finder if mask is None else _NO_FINDER
    laid = Preprocessing.of(grid, finder, atlas, shading).lay(volume, mask)
    return laid, tuple(round(float(s), 3) for s in volume.spacing)


_NO_FINDER = BrainFinder(None, 0.0, lambda: Placement("cpu", {"brain": 1}))


def prepare_set(
    subjects: list[Subject],
    grid: Grid,
    cache: Path,
    brains: Brains,
    *,
    atlas: np.ndarray | None = None,
    shading: int = 0,
    augmentation: VolumeAugmentation | None = None,
    balance: float = 0.0,
    report: Report = print,
    progress: Callable[[list[Subject]], Iterable[Subject]] = iter,
) -> PreparedSet:
    """Prepare the slices of scans, or find them prepared.

    A scan that cannot be used is reported in a line and left out.

    Args:
        subjects: a set's scans.
        grid: the model's.
        cache: folder of prepared slices.
        brains: finds masks.
        atlas: from :func:`atlas.make_atlas`; None takes heads as they lie.
        shading: order of the field that is taken out of each scan; 0 takes out none.
        augmentation: of the copies of each scan; None makes none.
        balance: a scan of a site of few stands for several: for the share of the largest site's
            number in its own's, to this power; 0 takes each once.
        report: takes a line of text.
        progress: goes through the subjects, and may tell how far it is.

    Raises:
        InputError: no scan can be used.
        OutputError: the cache cannot be written.
    """
    copies = augmentation.copies if augmentation is not None else 0
    scans: dict[str, str] = {}
    left_out: dict[str, str] = {}
    entries: list[_Entry] = []
    owner: list[int] = []
    count = Counter(subject.site for subject in subjects)
    for subject in progress(subjects):
        try:
            digest = content_hash(files_of(subject.scan, subject.series))
            made = _entries(subject, digest, grid, cache, brains, atlas, shading, augmentation)
        except InputError as error:
            left_out[subject.name] = str(error)
            report(f"left out: {subject.name}: {error}")
            continue
        made *= round((max(count.values()) / count[subject.site]) ** balance)
        owner += [len(scans)] * len(made)
        scans[subject.name] = digest
        entries += made
    if not scans:
        first = next(iter(left_out.values()), "there are none")
        raise InputError(f"none of the {len(subjects)} scans can be used; the first: {first}")
    _report_spacings(entries, grid, report)
    lengths = [len(entry.position) for entry in entries]
    tissues = [entry.tissue for entry in entries]
    slices = Slices(
        Pieces([entry.file for entry in entries], lengths),
        np.concatenate([entry.position for entry in entries]),
        np.repeat(owner, lengths),
        list(scans),
        Pieces(tissues, lengths) if any(tissues) else None,
    )
    key = hashed([entry.file.stem for entry in entries] + [str(copies)])
    return PreparedSet(slices, scans, left_out, key)


def _entries(
    subject: Subject,
    digest: str,
    grid: Grid,
    cache: Path,
    brains: Brains,
    atlas: np.ndarray | None,
    shading: int,
    augmentation: VolumeAugmentation | None,
) -> list[_Entry]:
    """The scan's own slices, and those of its copies."""
    lying = "" if atlas is None else hashlib.sha256(atlas.tobytes()).hexdigest()
    tissue = "" if subject.tissue is None else content_hash(files_of(subject.tissue))
    base = [digest, brains.key(subject), asdict(grid), CLIP, VERSION, lying, shading, tissue]
    copies = augmentation.copies if augmentation is not None else 0
    keys = [hashed(base)]
    if augmentation is not None and copies:
        # How many copies there are does not change the first of them.
        ranges = {**asdict(augmentation), "copies": None}
        keys += [hashed([*base, ranges, n, version()]) for n in range(1, copies + 1)]
    found = [_cached(cache, key) for key in keys]
    if all(entry is not None for entry in found):
        return [entry for entry in found if entry is not None]
    laid, spacing = laid_scan(subject, grid, brains, atlas, shading)
    tissues = None if subject.tissue is None else _tissues(subject.tissue, laid)
    entries = []
    for number, (key, entry) in enumerate(zip(keys, found, strict=True)):
        if entry is None:
            copy, labels = laid, tissues
            if number and augmentation is not None:
                seed = int(hashed([digest, augmentation.seed, number])[:8], 16)
                head, mask = laid.head, laid.mask & laid.head.inside
                head, mask, labels = vary_head(
                    head, mask, grid.spacing_mm, augmentation, seed, labels
                )
                copy = replace(laid, head=head, mask=mask)
            prepared = copy.prepared()
            if labels is not None:
                labels = cut_like(labels, copy.head, prepared, 0, copy.turn)
            entry = _keep(cache, key, prepared, labels, list(spacing))
        entries.append(entry)
    return entries


def hashed(parts: Any) -> str:
    """A short name of what something follows from, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _tissues(file: Path, laid: AlignedScan) -> np.ndarray:
    """(slices, rows, columns) uint8 on the head's grid, the tissue that fills most of a voxel."""
    labels = read_labels(file, laid.volume, TISSUES - 1)
    affine, shape = laid.turn @ laid.volume.affine, laid.head.array.shape
    most = np.full(shape, 0.5, np.float32)
    found = np.zeros(shape, np.uint8)
    for label in range(1, TISSUES):
        source = Volume((labels == label).astype(np.float32), affine)
        share = resample(source, shape, laid.head.affine)
        found[share > most] = label
        most = np.maximum(most, share)
    return found


def _keep(
    cache: Path,
    key: str,
    prepared: PreparedScan,
    tissues: np.ndarray | None,
    spacing: list[float],
) -> _Entry:
    """Write slices, and then the note that says that they are whole."""
    file = cache / f"{key}.npy"
    size = _write_array(file, to_uint8(prepared.slices))
    if tissues is not None:
        _write_array(_tissue_file(file), tissues)
    note = {
        "shape": list(prepared.slices.shape),
        "bytes": size,
        "position": [float(p) for p in prepared.position],
        "spacing_mm": spacing,
        "tissue": tissues is not None,
    }
    write_whole(file.with_suffix(".json"), json.dumps(note).encode())
    return _entry(file, note)


def _write_array(file: Path, array: np.ndarray) -> int:
    """Bytes that were written."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_whole(file, buffer.getbuffer())
    return buffer.getbuffer().nbytes


def _tissue_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}-tissue.npy")


def _entry(file: Path, note: Mapping[str, Any]) -> _Entry:
    position = np.array(note["position"], dtype=np.float32)
    tissue = _tissue_file(file) if note["tissue"] else None
    return _Entry(file, position, tuple(note["spacing_mm"]), tissue)


def _cached(cache: Path, key: str) -> _Entry | None:
    """Slices that were kept whole; None if there are none."""
    file = cache / f"{key}.npy"
    try:
        told: Mapping[str, Any] = json.loads(file.with_suffix(".json").read_bytes())
        entry = _entry(file, told)
        tissue_size = entry.tissue.stat().st_size if entry.tissue is not None else told["bytes"]
        is_whole = file.stat().st_size == told["bytes"] == tissue_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return entry if is_whole else None


def _report_spacings(entries: list[_Entry], grid: Grid, report: Report) -> None:
    """Say so where the scans' voxels differ in size."""
    spacings = sorted({tuple(sorted(entry.spacing)) for entry in entries})
    first, last = spacings[0], max(spacings, key=lambda s: (s[2], s))
    differences = [abs(a - b) for other in spacings for a, b in zip(first, other, strict=True)]
    if max(differences) > _SAME_SPACING_MM:
        words = [" x ".join(f"{s:.3g}" for s in spacing) for spacing in (first, last)]
        report(
            f"the scans have voxels of {words[0]} to {words[1]} mm; all are resampled to "
            f"{grid.spacing_mm:g} mm"
        )
