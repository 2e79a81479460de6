"""The first yardstick: spheres painted into held-out healthy scans, scored at native resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..detection import Detection
from ..detector import Detector
from ..io import read_mask, read_volume
from ..training.subjects import Subject
from .overlap import dice
from .synthetic import Sphere, paint_sphere, random_sphere


@dataclass(frozen=True)
class Case:
    """One scan's result.

    Attributes:
        subject: name of the scan.
        sphere: what was painted; None for the scan as it is.
        detection: result.
        label: (I, J, K) bool, where the scan was changed.
    """

    subject: str
    sphere: Sphere | None
    detection: Detection
    label: np.ndarray


def run_cases(
    detector: Detector,
    subjects: Iterable[Subject],
    *,
    per_subject: int = 1,
    mode: str = "default",
    restorations: int = 15,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> list[Case]:
    """Detect in every scan as it is and with spheres painted in.

    The sphere of a case depends on the scan's place in the list alone: half are darker than the
    brain, half brighter.

    Args:
        detector: the model.
        subjects: healthy scans with a brain mask, not trained on.
        per_subject: spheres per scan, each in a scan of its own.
        mode, restorations, seed: of the detection.
        report: takes a line of text.
    """
    cases = []
    for number, subject in enumerate(subjects):
        scan = read_volume(subject.scan)
        if subject.mask is None:
            raise ValueError(f"{subject.name} has no brain mask to paint into")
        brain = read_mask(subject.mask, scan)
        for turn in range(per_subject + 1):
            sphere, volume, label = None, scan, np.zeros(scan.shape, bool)
            if turn:
                sphere = random_sphere(scan, brain, number * per_subject + turn - 1)
                volume, label = paint_sphere(scan, brain, sphere)
            found = detector.detect(volume, mode=mode, restorations=restorations, seed=seed)
            cases.append(Case(subject.name, sphere, found, label))
            report(
                f"{subject.name} {'healthy' if sphere is None else 'painted'}: "
                f"score {found.sample_score:.3f}, percentile {found.percentile:.0f}"
            )
    return cases


def summarise(cases: list[Case]) -> dict[str, Any]:
    """Figures over all cases.

    Returns:
        ``sample_auroc`` and ``sample_ap``; ``pooled_ap`` and ``pooled_auroc`` over all voxels of
        all files, as the MOOD challenge pools; ``case_ap_median``; Dice of the mask at the
        calibrated threshold (``dice_calibrated_median``) and at the best one per case
        (``dice_best_median``); ``healthy_flagged_median``, the share of the brain in the mask of
        healthy scans; ``hit_rate``, the share of cases with the map's peak in the label;
        and ``cases``, one entry each.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    truth = np.array([case.sphere is not None for case in cases])
    scores = np.array([case.detection.sample_score for case in cases])
    rows, flagged = [], []
    for case in cases:
        found = case.detection
        row: dict[str, Any] = {
            "subject": case.subject,
            "score": found.sample_score,
            "percentile": found.percentile,
            "seconds": sum(found.seconds.values()),
        }
        if case.sphere is None:
            flagged.append(float(found.anomaly_mask.sum() / max(1, found.brain_mask.sum())))
            row["flagged"] = flagged[-1]
        else:
            label, values = case.label.ravel(), found.anomaly_map.ravel()
            precision, recall, _ = precision_recall_curve(label, values)
            best = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            peak = np.unravel_index(np.argmax(found.anomaly_map), found.anomaly_map.shape)
            row |= {
                "sphere": asdict(case.sphere),
                "ap": float(average_precision_score(label, values)),
                "dice": dice(found.anomaly_mask, case.label),
                "dice_best": float(best.max()),
                "hit": bool(case.label[peak]),
            }
        rows.append(row)
    painted = [row for row in rows if "ap" in row]
    labels = np.concatenate([case.label.ravel() for case in cases])
    values = np.concatenate([case.detection.anomaly_map.ravel() for case in cases])
    return {
        "scans": len(cases),
        "sample_auroc": float(roc_auc_score(truth, scores)),
        "sample_ap": float(average_precision_score(truth, scores)),
        "pooled_ap": float(average_precision_score(labels, values)),
        "pooled_auroc": float(roc_auc_score(labels, values)),
        "case_ap_median": float(np.median([row["ap"] for row in painted])),
        "dice_calibrated_median": float(np.median([row["dice"] for row in painted])),
        "dice_best_median": float(np.median([row["dice_best"] for row in painted])),
        "hit_rate": float(np.mean([row["hit"] for row in painted])),
        "healthy_flagged_median": float(np.median(flagged)),
        "cases": rows,
    }
