"""The benchmark's figures as Markdown tables, with a line on how each was got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SAMPLERS = ("loop", "skip-ahead", "cached")


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
        results: what ``benchmark.py`` writes as JSON: ``machine``, ``options``, ``seconds``,
            ``samplers`` (rows of ``samplers.Row``), ``whole_scan`` and ``growth``.
    """
    machine = results["machine"]
    parts = [
        "# Benchmark",
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads used; "
        f"device {machine['device']}; PyTorch {machine['torch']}, Python {machine['python']}, "
        f"{machine['system']}; {machine['date']}. "
        f"All of it took {results['seconds'] / 60:.0f} minutes"
        + (", in the quick form, whose cases are small." if results["options"]["quick"] else "."),
        "Times depend on what else the machine was doing"
        + (f" (its load was {machine['load']} when this began)" if machine["load"] >= 0 else "")
        + ". CPU seconds do so less than wall time, and ratios, whose two sides were measured by "
        "turns, least.",
        "## Samplers",
        _samplers(results["samplers"], machine["device"]),
        _agreement(results["samplers"]),
        _how_samplers(),
        "## A whole scan",
        _whole_scan(results["whole_scan"]),
        "## Growth",
        _growth(results["growth"]),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns but the first are right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(value: float) -> str:
    """A duration in a few characters."""
    if value >= 5400:
        return f"{value / 3600:.1f} h"
    if value >= 600:
        return f"{value / 60:.0f} min"
    return f"{value:.0f} s" if value >= 20 else f"{value:.2g} s" if value < 1 else f"{value:.1f} s"


def _title(row: Mapping[str, Any]) -> str:
    what = row["comparison"]
    return (
        f"{Path(what['model']).name}, {100 * what['share']:g}% {what['layout']}, "
        f"{what['slices']} x {what['restorations']}"
    )


def _samplers(rows: Sequence[Mapping[str, Any]], device: str) -> str:
    head = ["case (slices x restorations)", "sampler", "prior evaluations", "CPU time", "wall time"]
    head += ["times less than the loop", "bound", "times the bound", "peak memory"]
    lines = []
    for row in rows:
        for sampler in SAMPLERS:
            cost, is_cached = row["cost"][sampler], sampler == "cached"
            mark = "" if cost["measured"] == "in full" else "~"
            peak = f"{cost['peak_gb']:.2f} GB"
            if cost["device_peak_gb"]:
                peak += f" + {cost['device_peak_gb']:.2f} GB GPU"
            lines.append(
                [
                    _title(row) if sampler == SAMPLERS[0] else "",
                    sampler,
                    f"{mark}{cost['evaluations']:,.0f}",
                    mark + seconds(cost["cpu_seconds"]),
                    mark + seconds(cost["wall_seconds"]),
                    f"{cost['times_less']:.3g}",
                    seconds(row["bound_seconds"]) if is_cached else "",
                    f"{row['times_the_bound']:.2f}" if is_cached else "",
                    peak,
                ]
            )
    return table(head, lines)


def _agreement(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line on the codes, and one for each case where they differ."""
    checks = [
        (_title(row), sampler, found) for row in rows for sampler, found in row["agreement"].items()
    ]
    wrong = [
        f"- **{name}: {sampler} gave other codes than cached.**"
        for name, sampler, found in checks
        if not found["identical"]
    ]
    codes = sum(found["codes"] for *_, found in checks)
    replaced = sum(found["replaced"] for *_, found in checks)
    if not wrong:
        return (
            f"Codes: identical in all {len(checks)} comparisons with the cached sampler made in "
            f"this run ({codes:,} codes, of which {replaced:,} were replaced)."
        )
    return "\n".join(["Codes:", "", *wrong])


def _how_samplers() -> str:
    return (
        "How: codes are drawn from the prior itself. *Spread*: the threshold is a percentile of "
        "their likelihoods, at every place; *blobs*: it is finite only in a disc a slice, whose "
        "codes are random. Each measurement is a process of its own; those of the loop and the "
        "cached sampler are repeated by turns, and medians are given. The cached sampler runs in "
        "full, with its pass that finds what is flagged. `~` is scaled up: the loop from a few of "
        "its passes over its first chunk of sequences (one pass a place), skip-ahead from a few "
        "sequences; `benchmark.json` says how many. Prior evaluations are whole grids of one "
        "sequence; places, where they are evaluated one by one, count as their share of a grid. "
        "Threads that wait for each other sleep, so that CPU time is work done. "
        "Ratios are of CPU time, of wall time on a GPU. The bound is the multiply-adds that an "
        "exact sampler needs (`bound.py`) over this machine's measured rate for matrix products "
        "of the prior's width in float32, on one thread: the CPU time of a sampler that did "
        "nothing else. Peak memory is the whole process's, with Python and PyTorch, as measured."
    )


def _whole_scan(found: Mapping[str, Any]) -> str:
    runs = {name: found[name] for name in ("cold", "warm") if name in found}
    steps = list(dict.fromkeys(step for run in runs.values() for step in run["steps"]))
    named = {
        "start": "program, model and scan are there",
        "first_score": "first score",
        "first_restoration": "first restoration",
        "final_map": "final map",
    }
    lines = [
        [f"**{title}**", *(f"**{run[key]:.1f} s**" for run in runs.values())]
        for key, title in named.items()
    ]
    lines += [
        [f"of which {step}", *(f"{run['steps'].get(step, 0):.1f} s" for run in runs.values())]
        for step in steps
        if step != "first_score"
    ]
    lines.append(["peak memory", *(f"{run['peak_gb']:.2f} GB" for run in runs.values())])
    size = " x ".join(str(n) for n in found["scan"])
    made = next(iter(runs.values()))["restorations"]
    return "\n\n".join(
        [
            f"{found['model']}, mode {found['mode']}, a scan of {size} voxels, {found['slices']} "
            f"slices, {made} restorations, {found['threads']} threads, {found['device']}.",
            table(["until", *runs], lines),
            "How: *cold* counts from the first line of a new process, with the imports, the check "
            "of the model's files and reading the scan (files that were read before may still be "
            "in the system's cache); *warm* from the call that starts a second detection in the "
            "same process. The final map does not count the time that the first restoration's "
            "images took. `undo` brings images back to the scan's grid.",
        ]
    )


def _growth(found: Mapping[str, Any]) -> str:
    head = ["slices", "restorations", "CPU time", "final map", "first score"]
    points = [*found["by_slices"]]
    points += [point for point in found["by_restorations"] if point not in points]
    rows = [
        [
            str(p["slices"]),
            str(p["restorations"]),
            *(f"{p[key]:.1f} s" for key in ("cpu_seconds", "wall_seconds", "first_score")),
        ]
        for p in points
    ]
    fits = []
    for axis in ("slices", "restorations"):
        line = found[f"{axis}_lines"]["cpu_seconds"]
        fits.append(
            f"{line['intercept']:.1f} s + {line['slope']:.2g} s a {axis.removesuffix('s')} "
            f"(R² = {line['r_squared']:.4f})"
        )
    return "\n\n".join(
        [
            "![Seconds against slices and against restorations](growth.png)",
            table(head, rows),
            f"CPU time is {fits[0]} by slices, and {fits[1]} by restorations.",
            "How: one detection a point, in one process, from when the brain was found to the last "
            "estimate, on evenly spread slices of one scan; lines are least-squares fits.",
        ]
    )
