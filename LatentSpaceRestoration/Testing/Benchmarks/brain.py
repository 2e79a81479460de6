"""How well brains are found, in scans of every sort.

    python brain.py SUBJECTS.tsv [--lesions FOLDER] [--subjects N]

Scans of split `tune` are changed in the ways of `brain_conditions.py`, and the brain that is found
is set beside the given one. Scans of the folder, `*_T1w.nii.gz`, have no skull: what is not 0 in
them is brain. Writes results/brain.md and results/brain.json. Overlaps are on the scan's own grid.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from brain_conditions import CONDITIONS
from LatentSpaceRestorationLib.datasets.read import read_subjects
from LatentSpaceRestorationLib.datasets.subjects import of_split
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy
from LatentSpaceRestorationLib.io.images import read_mask, read_volume
from LatentSpaceRestorationLib.volume import dice

RESULTS = Path(__file__).parent / "results"
#: Less than this is a failure, which the software must notice.
FAILED = 0.9


@dataclass(frozen=True)
class Found:
    """One scan.

    Attributes:
        condition, scan: which.
        dice: of the brain found and the given one; 0 if the scan was refused.
        volume: of the brain found over the given one's.
        source: where the brain came from.
        said: what the user is told: the doubts in the result, or why the scan was refused.
    """

    condition: str
    scan: str
    dice: float
    volume: float
    source: str
    said: tuple[str, ...]


class Bench:
    """The shipped models, as a detection uses them."""

    def __init__(self) -> None:
        self._detector = Detector.load("brain-t1", "cpu")

    def find(self, condition: str, scan: Healthy) -> Found:
        """The brain of a scan, beside the given one."""
        volume = scan.volume
        try:
            prepared, laid = self._detector.prepare(volume)
            said = self._detector.open(volume).warnings
        except InputError as error:
            return Found(condition, volume.name, 0.0, 0.0, "refused", (str(error),))
        # That a brain was taken as extracted is no doubt.
        doubts = tuple(line for line in said if line not in laid.found.warnings)
        brain, _ = prepared.brain_to_native()
        ratio = float(brain.sum() / scan.brain.sum())
        overlap = dice(brain, scan.brain)
        return Found(condition, volume.name, overlap, ratio, laid.found.source, doubts)


def scans_of(subjects_table: Path, count: int) -> list[Healthy]:
    """The first so many scans of split `tune`, with their brains."""
    scans = []
    for subject in list(of_split(read_subjects(subjects_table), "tune"))[:count]:
        assert subject.mask is not None
        volume = read_volume(subject.scan)
        scans.append(Healthy(volume, read_mask(subject.mask, volume)))
    return scans


def measure(bench: Bench, scans: Sequence[Healthy], lesions: Path | None) -> Iterator[Found]:
    """Every scan in every condition, and those of the folder as they are."""
    for condition in CONDITIONS:
        for scan in scans:
            yield bench.find(condition.name, condition.change(scan))
    for path in sorted(lesions.glob("*_T1w.nii.gz")) if lesions else ():
        volume = read_volume(path)
        yield bench.find("lesions, no skull", Healthy(volume, volume.array != 0))


def table(rows: Sequence[Found], subjects: int) -> str:
    """The figures as Markdown."""
    lines = [
        "# Brain extraction",
        "",
        f"The first {subjects} healthy scans of split `tune`, whole heads at 2 mm, changed in ways "
        "that are all synthetic (`brain_conditions.py` says how), and scans with lesions and "
        "without a skull as they are. Dice of the brain that is found and the given one, on the "
        "scan's own grid; *volume* is found over given; *noticed* counts the scans that are "
        f"refused or doubted in a line, and *failed* those of a Dice below {FAILED}. "
        "Made by `brain.py`.",
        "",
        "| condition | scans | median Dice | least | volume | failed | noticed | found by |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in dict.fromkeys(row.condition for row in rows):
        these = [row for row in rows if row.condition == name]
        values = [row.dice for row in these]
        cells = [
            name,
            f"{len(these)}",
            f"{np.median(values):.3f}",
            f"{min(values):.3f}",
            f"{np.median([row.volume for row in these]):.2f}",
            f"{sum(value < FAILED for value in values)}",
            f"{sum(bool(row.said) for row in these)}",
            ", ".join(sorted({row.source for row in these})),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    missed = [row for row in rows if row.dice < FAILED and not row.said]
    lines += ["", f"Failed and not noticed: {len(missed)} of {len(rows)} scans."]
    lines += [f"- {row.condition}, {row.scan}: Dice {row.dice:.3f}" for row in missed]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects_table", type=Path, metavar="SUBJECTS.tsv")
    parser.add_argument("--lesions", type=Path, metavar="FOLDER")
    parser.add_argument("--subjects", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scans = scans_of(options.subjects_table, options.subjects)
    rows = []
    for row in measure(Bench(), scans, options.lesions):
        rows.append(row)
        print(f"{row.condition}, {row.scan}: {row.dice:.3f} {row.said}", file=sys.stderr)
    text = table(rows, len(scans))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "brain.md").write_text(text, encoding="utf-8")
    told = json.dumps([asdict(row) for row in rows], indent=1)
    (RESULTS / "brain.json").write_text(told + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
