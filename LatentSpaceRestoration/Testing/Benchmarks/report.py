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
            ``first_score`` or None, ``samplers`` (rows of ``samplers.Row``), ``whole_scan``,
            ``sizes``, ``cores``, ``growth`` and ``history``.
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
        *(_first_score(results) if results.get("first_score") else []),
        "## Samplers",
        _samplers(results["samplers"], machine["device"]),
        _agreement(results["samplers"]),
        _how_samplers(),
        "## A whole scan",
        _whole_scan(results["whole_scan"]),
        "## Finer scans",
        _sizes(results["sizes"]),
        "## Cores",
        _cores(results["cores"]),
        "## Growth",
        _growth(results["growth"]),
        *(["## Before", _history(results["history"])] if results.get("history") else []),
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


def _first_score(results: Mapping[str, Any]) -> list[str]:
    found = results["first_score"]
    own = found["ways"][-1]

    def line(name: str, tflop: str, cpu: float, wall: str, mark: str = "") -> list[str]:
        return [name, tflop, mark + seconds(cpu), wall, f"{cpu / own['cpu_seconds']:.3g}"]

    rows = []
    loop = _published_loop(results)
    if loop is not None:
        rows.append(line("the published loop, 15 restorations of all slices", "", loop, "", "~"))
    for way in found["ways"]:
        mark = "" if way["measured"] == "in full" else "~"
        wall = mark + seconds(way["wall_seconds"])
        tflop = f"{way['tflop']:.3g}"
        rows.append(line(way["name"], tflop, way["cpu_seconds"], wall, mark))
    if found["in_precision"] is not None:
        rows.append(line(f"the same in {found['precision']}", "", found["in_precision"], ""))
    rows.append(line("its convolutions alone: the bound", "", found["bound_seconds"], ""))
    head = ["reading a scan", "TFLOP", "CPU time", "wall time", "times the model's own"]
    parts = ", ".join(f"{name} {tflop:.3f}" for name, tflop in found["parts"].items())
    short = (
        "The machine has no instructions for bfloat16: all of it is in float32."
        if found["precision"] == "float32"
        else ""
    )
    return [
        "## What a first score is read from",
        f"{found['slices']} slices. TFLOP of the model's own way: {parts}.",
        table(head, rows),
        "How: the same masked prior reads one scan in several ways (`first_score.py`), each in the "
        "same run; CPU times are medians of what all cores spent. *Each code by itself* is the "
        "likelihood of a code given all others, as masked priors are usually asked; *tiles* are "
        "hidden whole, so that a lesion does not vouch for itself. The loop restores by PixelSNAIL "
        "and is the one under Samplers, by the slice. TFLOP are 10^12 operations by PyTorch's "
        "count. The bound is the time of each convolution and matrix product of the model's own "
        f"way alone, at the best of several trials: {found['gflop_rate']:.0f} GFLOP/s and core "
        f"here. {short}".rstrip(),
    ]


def _published_loop(results: Mapping[str, Any]) -> float | None:
    """CPU seconds of the published loop on the model's own prior, for all slices of the scan."""
    model = results["options"]["model"]
    for row in results["samplers"]:
        if Path(row["comparison"]["model"]).name == model:
            loop = row["cost"]["loop"]["cpu_seconds"] / row["comparison"]["slices"]
            share = 15 / row["comparison"]["restorations"]
            return float(loop * share * results["first_score"]["slices"])
    return None


def _sizes(found: Sequence[Mapping[str, Any]]) -> str:
    usual = next((size for size in found if size["spacing_mm"] == 1.0), found[0])
    rows = [
        [
            f"{size['spacing_mm']:g} mm, {' x '.join(map(str, size['shape']))}",
            seconds(size["first_score"]),
            seconds(size["wall_seconds"]),
            f"{size['wall_seconds'] / usual['wall_seconds']:.2f}",
            f"{size['peak_gb']:.2f} GB",
            f"{size['peak_gb'] / usual['peak_gb']:.2f}",
        ]
        for size in found
    ]
    title = f"times that of {usual['spacing_mm']:g} mm"
    head = ["scan", "first score", "command", title, "peak memory", title]
    return "\n\n".join(
        [
            table(head, rows),
            "How: the same scan brought to each spacing, with noise, as 16-bit integers; each is "
            "`lsr detect` from a cold start to its last file (`scaling.py`). The first score "
            "counts from when the scan was read.",
        ]
    )


def _cores(found: Sequence[Mapping[str, Any]]) -> str:
    one = found[0]
    rows = [
        [
            f"{row['threads']}" + ("" if row["measured"] else " (told)"),
            seconds(row["first_score"]),
            f"{one['first_score'] / row['first_score']:.2f}",
            seconds(row["final_map"]),
            f"{one['final_map'] / row['final_map']:.2f}",
        ]
        for row in found
    ]
    head = ["cores", "first score, warm", "times faster", "final map, warm", "times faster"]
    return "\n\n".join(
        [
            table(head, rows),
            "How: the whole scan above with so many threads; *told* is Amdahl's law by the two "
            "that were measured. A cohort does one scan on each core or two: `cohort.py`.",
        ]
    )


def _history(found: Sequence[Mapping[str, Any]]) -> str:
    head = ["date", "version", "slices", "TFLOP", "first score, cold", "warm", "final map, cold"]
    head += ["warm", "matrix products, GFLOP/s and core"]
    rows = [
        [
            one["date"].split("T")[0],
            one["version"],
            str(one["slices"]),
            "" if one["tflop"] is None else f"{one['tflop']:.3g}",
            *(
                seconds(one[key])
                for key in (
                    *("first_score_cold", "first_score_warm"),
                    *("final_map_cold", "final_map_warm"),
                )
            ),
            f"{2 * one['rate'] / 1e9:.0f}",
        ]
        for one in found
    ]
    return "\n\n".join(
        [
            table(head, rows),
            "What this file said before, of whatever the default mode was then. Machines and their "
            "load differ: the last column says what one did.",
        ]
    )


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
        "first_map": "its map on the scan's grid",
        "first_restoration": "first restoration",
        "final_map": "final map",
    }
    last = [*runs.values()][-1]

    def of_all(value: float) -> str:
        return f"{100 * value / last['final_map']:.0f}%"

    lines = [
        [f"**{title}**", *(f"**{run[key]:.1f} s**" for run in runs.values()), of_all(last[key])]
        for key, title in named.items()
    ]
    lines += [
        [
            f"of which {step}",
            *(f"{run['steps'].get(step, 0):.1f} s" for run in runs.values()),
            of_all(last["steps"].get(step, 0)),
        ]
        for step in steps
        if step != "first_score"
    ]
    lines.append(["peak memory", *(f"{run['peak_gb']:.2f} GB" for run in runs.values()), ""])
    size = " x ".join(str(n) for n in found["scan"])
    made = next(iter(runs.values()))["restorations"]
    return "\n\n".join(
        [
            f"{found['model']}, mode {found['mode']}, a scan of {size} voxels, {found['slices']} "
            f"slices, {made} restorations, {found['threads']} threads, {found['device']}.",
            table(["until", *runs, "of the final map, warm"], lines),
            "How: *cold* counts from the first line of a new process, with the imports, the check "
            "of the model's files and, meanwhile, reading the scan (files that were read before "
            "may still be in the system's cache); *warm* from the call that starts a second "
            "detection in the same process. Images of one estimate do not count for the next. "
            "`undo` brings images back to the scan's grid.",
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
