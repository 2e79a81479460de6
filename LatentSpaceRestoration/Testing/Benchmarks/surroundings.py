"""Whether what lies around a head changes what is found in it.

    python surroundings.py SUBJECTS.tsv ... [--subjects N] [--scored N] [--deepbet N] [--jobs N]

Whole heads with a given brain mask: of the first table those of split `tune`, of others those of
`unseen-site` first, and then the others. Each is changed in the ways of
`surroundings_conditions.py`. Writes results/surroundings.md and results/surroundings.json. A run
that was cut short goes on when it is started again.
`--deepbet` sets the brain extraction of that name beside ours in so many heads of a group; it must
be installed, and is no part of the project.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from LatentSpaceRestorationLib.bundle.bundle import digest_of_models, find_bundle, read_bundle
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy
from LatentSpaceRestorationLib.io.images import read_mask, read_volume
from LatentSpaceRestorationLib.results.provenance import key_of
from LatentSpaceRestorationLib.volume import dice
from surroundings_conditions import EXTRACTED, HEADS, Condition

RESULTS = Path(__file__).parent / "results"
#: What may change: share of the brain's volume; of the score, and points of it; flagged ml.
VOLUME, SCORE, POINTS, FLAGGED_ML = 0.02, 0.10, 0.2, 1.0


@dataclass(frozen=True)
class Head:
    """One head: its name, the group that it is shown in, and itself."""

    name: str
    group: str
    scan: Healthy


@dataclass(frozen=True)
class Found:
    """One head in one condition.

    Attributes:
        head, group, condition: which.
        dice: of the brain found and the given one; 0 if the scan was refused.
        given: volume of the brain found over the given one's.
        plain: volume of the brain found over that in the scan as it is.
        score, flagged_ml, share: of a detection with one restoration; None if not examined.
        score_change, flagged_change: less those of the scan as it is.
        other_dice, other_plain: as ``dice`` and ``plain``, by deepbet.
        seconds: to find the brain and bring the scan into model space.
        said: what the user is told.
    """

    head: str
    group: str
    condition: str
    dice: float
    given: float
    plain: float
    score: float | None
    flagged_ml: float | None
    share: float | None
    score_change: float | None
    flagged_change: float | None
    other_dice: float | None
    other_plain: float | None
    seconds: float
    said: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """What is beyond what may change."""
        wrong = []
        if abs(self.plain - 1.0) > VOLUME:
            wrong.append(f"volume {100 * (self.plain - 1):+.1f}%")
        if self.score is not None and self.score_change is not None:
            allowed = SCORE * (self.score - self.score_change) + POINTS
            if abs(self.score_change) > allowed:
                wrong.append(f"score {self.score_change:+.1f}")
        if self.flagged_change is not None and self.flagged_change > FLAGGED_ML:
            wrong.append(f"flagged {self.flagged_change:+.1f} ml")
        return wrong


class Bench:
    """The shipped model, and deepbet beside it."""

    def __init__(self, beside: bool) -> None:
        self._detector = Detector.load("brain-t1", "cpu")
        self._seen: dict[str, tuple[float, float, float]] = {}
        self._deepbet = None
        if beside:
            from deepbet import BrainExtraction

            self._deepbet = BrainExtraction(no_gpu=True)

    def measure(self, head: Head, scored: bool) -> Iterator[Found]:
        """A head in every condition; if not ``scored``, it is examined only as it is."""
        plain, plain_ml, other_ml = None, 0.0, 0.0
        for condition in (*HEADS, *EXTRACTED):
            scan = head.scan
            if condition in EXTRACTED and plain is not None:
                scan = Healthy(scan.volume, plain)
            changed = condition.change(scan)
            voxel_ml = changed.volume.voxel_volume_ml
            given_ml = float(changed.brain.sum()) * voxel_ml
            began = time.perf_counter()
            try:
                opened = self._detector.open(changed.volume)
            except InputError as error:
                yield self._refused(head, condition, str(error))
                continue
            seconds = time.perf_counter() - began
            brain, _ = opened.prepared.brain_to_native()
            found_ml = float(brain.sum()) * voxel_ml
            if plain is None:
                plain, plain_ml = brain, found_ml
            score = flagged = share = None
            if scored or condition is HEADS[0]:
                digest = hashlib.sha256(np.round(opened.prepared.slices, 4).tobytes())
                digest.update(np.round(opened.prepared.position, 5).tobytes())
                digest.update(head.name.encode())
                key = digest.hexdigest()
                # What comes to the same slices gives the same.
                if key not in self._seen:
                    detection = self._detector.detect(opened, restorations=1)
                    ml = float(detection.anomaly_mask.sum()) * voxel_ml
                    self._seen[key] = detection.sample_score, ml, ml / found_ml
                score, flagged, share = self._seen[key]
                if condition is HEADS[0]:
                    plain_score, plain_flagged = score, flagged
            other_dice = other_plain = None
            if self._deepbet is not None and condition not in EXTRACTED:
                other = self._other_brain(changed)
                if condition is HEADS[0]:
                    other_ml = float(other.sum()) * voxel_ml
                other_dice = dice(other, changed.brain)
                other_plain = float(other.sum()) * voxel_ml / max(other_ml, 1e-6)
            yield Found(
                head.name,
                head.group,
                condition.name,
                dice(brain, changed.brain),
                found_ml / given_ml,
                found_ml / plain_ml,
                score,
                flagged,
                share,
                None if score is None else score - plain_score,
                None if flagged is None else flagged - plain_flagged,
                other_dice,
                other_plain,
                seconds,
                opened.warnings,
            )

    def _other_brain(self, scan: Healthy) -> np.ndarray:
        image = nib.Nifti1Image(scan.volume.array.astype(np.float32), scan.volume.affine)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                _, mask, _ = self._deepbet.run(image)
        except (AssertionError, RuntimeError, ValueError):
            return np.zeros(scan.brain.shape, bool)
        return np.asarray(mask.dataobj) > 0

    @staticmethod
    def _refused(head: Head, condition: Condition, why: str) -> Found:
        nothing = (None,) * 7
        return Found(head.name, head.group, condition.name, 0.0, 0.0, 0.0, *nothing, 0.0, (why,))


def _measured(head: Head, scored: bool, beside: bool) -> list[Found]:
    """A head in every condition, in a process of its own."""
    rows = []
    for row in Bench(beside).measure(head, scored):
        rows.append(row)
        print(
            f"{row.head}, {row.condition}: Dice {row.dice:.3f} volume {row.plain:.3f} "
            f"({row.given:.3f} of given) score {row.score} flagged {row.flagged_ml} {row.said}",
            file=sys.stderr,
            flush=True,
        )
    return rows


def heads_of(tables: list[Path], count: int) -> list[Head]:
    """Whole heads with a mask: at most so many held out of each table, and of other sites."""
    heads = []
    for number, table in enumerate(tables):
        with table.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        whole = [r for r in rows if r.get("skull", "head") == "head"]
        held_out = [r for r in whole if r["split"] == ("unseen-site" if number else "tune")][:count]
        others = [r for r in whole if r["split"] == "train"][:count] if number else []
        for row in (*held_out, *others):
            volume = read_volume(table.parent / row["t1w"])
            brain = read_mask(table.parent / row["brainmask"], volume)
            group = "other sites" if row in others else f"{row.get('site') or 'tune'}"
            heads.append(Head(row["subject"], group, Healthy(volume, brain)))
    return heads


def table(rows: list[Found]) -> str:
    """The figures as Markdown."""
    groups = list(dict.fromkeys(row.group for row in rows))
    lines = [
        "# What lies around a head",
        "",
        "Healthy whole heads at 2 mm, changed as `surroundings_conditions.py` says. *Volume* is "
        "that of the brain found over that in the scan as it is, the one that differs most; *Dice* "
        "is that of the brain found and the given one, median and least; *score* and *flagged* are "
        "the greatest changes of a detection with one restoration, of those examined; "
        f"*beyond* counts the heads whose brain differs by more than {100 * VOLUME:.0f}%, score by "
        f"more than {100 * SCORE:.0f}% + {POINTS}, or flagged volume grows by more than "
        f"{FLAGGED_ML:g} ml. Beside it the first heads by deepbet (PyPI, MIT), and *ours* of the "
        "same; the given masks of all scans but those of `tune` are deepbet's own. Scans that come "
        "to the same slices are examined once. Extracted scans have the brain that is found in the "
        "scan as it is. Made by "
        "`surroundings.py`.",
    ]
    for group in groups:
        these = [row for row in rows if row.group == group]
        heads = dict.fromkeys(row.head for row in these)
        changed = [row for row in these if row.condition != HEADS[0].name]
        examined = len({row.head for row in changed if row.score is not None})
        lines += [
            "",
            f"## {group}: {len(heads)} heads, {examined} of them examined",
            "",
            "| condition | volume | Dice | least | score | flagged ml | beyond "
            "| deepbet: volume | Dice | ours |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name in dict.fromkeys(row.condition for row in these):
            lines.append(_line(name, [row for row in these if row.condition == name]))
    lines += ["", "## As they are", ""]
    lines += [
        "| heads | n | brain over given: median, furthest | flagged: median, worst | scores |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for group in groups:
        plain = [r for r in rows if r.group == group and r.condition == HEADS[0].name]
        ratios = np.array([r.given for r in plain])
        furthest = ratios[np.abs(ratios - 1.0).argmax()]
        shares = [r.share for r in plain if r.share is not None]
        scores = [r.score for r in plain if r.score is not None]
        lines.append(
            f"| {group} | {len(plain)} | {np.median(ratios):.3f}, {furthest:.3f} | "
            + (
                f"{100 * np.median(shares):.2f}%, {100 * max(shares):.2f}% | "
                f"{min(scores):.1f} to {max(scores):.1f} |"
                if shares
                else "| |"
            )
        )
    wrong = [row for row in rows if row.faults]
    lines += ["", f"Beyond what may change: {len(wrong)} of {len(rows)}."]
    lines += [f"- {row.head}, {row.condition}: {', '.join(row.faults)}" for row in wrong]
    seconds = [row.seconds for row in rows if row.seconds]
    lines += ["", f"Finding the brain and preparing the scan took {np.median(seconds):.1f} s."]
    return "\n".join(lines) + "\n"


def _line(name: str, rows: list[Found]) -> str:
    def furthest(values: list[float]) -> str:
        return f"{values[int(np.abs(np.array(values) - 1.0).argmax())]:.3f}" if values else ""

    def most(values: list[float | None]) -> str:
        known = [v for v in values if v is not None]
        return f"{max(known, key=abs):+.1f}" if known else ""

    others = [r for r in rows if r.other_dice is not None and r.other_plain is not None]
    cells = [
        name,
        furthest([r.plain for r in rows]),
        f"{np.median([r.dice for r in rows]):.3f}",
        f"{min(r.dice for r in rows):.3f}",
        most([r.score_change for r in rows]),
        most([r.flagged_change for r in rows]),
        str(sum(bool(r.faults) for r in rows)),
        furthest([r.other_plain for r in others if r.other_plain is not None]),
        f"{np.median([r.other_dice for r in others]):.3f}" if others else "",
        f"{np.median([r.dice for r in others]):.3f}" if others else "",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path, nargs="+", metavar="SUBJECTS.tsv")
    parser.add_argument("--subjects", type=int, default=10, help="heads of a group, at most")
    parser.add_argument(
        "--scored", type=int, default=10, help="heads of a group to examine as changed"
    )
    parser.add_argument("--deepbet", type=int, default=0, help="heads of a group (default: none)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="heads at a time")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    asked = []
    for head in heads_of(options.tables, options.subjects):
        counts[head.group] += 1
        number = counts[head.group]
        asked.append((head, number <= options.scored, number <= options.deepbet))
    # What torch has begun in this process must not be copied into others.
    fresh = multiprocessing.get_context("spawn")
    options.output.mkdir(exist_ok=True)
    kept = options.output / "surroundings.json"
    made_with = key_of("anomaly", model=digest_of_models(read_bundle(find_bundle("brain-t1"))))
    done = _kept(kept, made_with)
    left = [each for each in asked if _asked(*each) not in done]
    left.sort(key=lambda each: not each[1])  # what takes longest comes first
    with ProcessPoolExecutor(options.jobs, fresh, torch.set_num_threads, (1,)) as pool:
        for each, found in zip(left, pool.map(_measured, *zip(*left, strict=True)), strict=True):
            done[_asked(*each)] = found
            # After each head, so that a run that is cut short goes on from there.
            told = {
                "made_with": made_with,
                "heads": {name: [asdict(row) for row in rows] for name, rows in done.items()},
            }
            kept.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    text = table([row for each in asked for row in done[_asked(*each)]])
    (options.output / "surroundings.md").write_text(text, encoding="utf-8")
    print(text)


def _asked(head: Head, scored: bool, beside: bool) -> str:
    """What is measured of a head, in words."""
    return f"{head.name}{', examined' * scored}{', deepbet' * beside}"


def _kept(file: Path, made_with: str) -> dict[str, list[Found]]:
    """What an earlier run of the same program and models has measured."""
    if not file.is_file():
        return {}
    told = json.loads(file.read_text(encoding="utf-8"))
    if told["made_with"] != made_with:
        return {}
    return {
        name: [Found(**{**row, "said": tuple(row["said"])}) for row in rows]
        for name, rows in told["heads"].items()
    }


if __name__ == "__main__":
    main()
