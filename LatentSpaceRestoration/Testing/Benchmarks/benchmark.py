"""The whole benchmark: first score, samplers, whole scans, growth. ``make benchmark`` runs it.

Writes ``benchmark.json``, ``benchmark.md`` and ``growth.png`` into a folder; the main figures of
what was there before are kept as history. About half an hour on two idle cores; ``--quick`` takes a
few minutes, with small cases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import first_score
import growth
import nibabel
import scaling
import torch
from cases import LAYOUTS, PUBLISHED, scan_of
from LatentSpaceRestorationLib import __version__
from LatentSpaceRestorationLib.bundle.bundle import find_bundle, read_bundle
from machine import child_environment, describe
from report import markdown
from samplers import Comparison, compare

_HERE = Path(__file__).resolve().parent
SHARES = (0.1, 0.02)


def comparisons(model: str, quick: bool) -> list[Comparison]:
    """What is compared: the published prior and a model's; 10% spread, on many slices, is first."""
    if quick:
        return [
            Comparison(slices=4, repeats=1, skip_sequences=(2, 2)),
            Comparison(model=model, slices=8, repeats=1, loop_sequences=(1, 1)),
            Comparison(model=model, layout="blobs", slices=8, repeats=1),
        ]
    found = []
    for name, slices, skip in ((PUBLISHED, 8, (2, 1)), (model, 16, (4, 2))):
        for layout in LAYOUTS:
            for share in SHARES:
                usual = layout == "spread" and share == SHARES[0]
                main = usual and name == PUBLISHED
                found.append(
                    Comparison(
                        model=name,
                        layout=layout,
                        share=share,
                        slices=32 if main else slices,
                        loop_sequences=(1, 1) if usual else (0, 0),
                        skip_sequences=(4, 2) if main else skip,
                    )
                )
    return found


def whole_scan(options: argparse.Namespace, scan: Path, threads: int) -> dict[str, Any]:
    """The figures of ``whole_scan.py``, in a new process."""
    command = [sys.executable, str(_HERE / "whole_scan.py"), str(scan), "--model", options.model]
    command += ["--threads", str(threads), "--device", options.device]
    command += ["--restorations", "3" if options.quick else "15"]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    if done.returncode != 0:
        raise RuntimeError(f"whole_scan.py: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def run(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[dict[str, Any], Any]:
    """Measure everything; gives what goes into ``benchmark.json``, and the growth to draw."""
    started = time.perf_counter()
    machine = describe(options.threads, options.device)
    torch.set_num_threads(options.threads)
    given = scan_of(options.scan)
    first = None
    if read_bundle(find_bundle(options.model)).has_network("masked"):
        found = first_score.measure(
            options.model, given, 1 if options.quick else 3, options.device, say
        )
        first = asdict(found)
    rows = [
        asdict(compare(comparison, options.threads, options.device, say))
        for comparison in comparisons(options.model, options.quick)
    ]
    say("a whole scan, cold and warm")
    with tempfile.TemporaryDirectory() as folder:
        file = options.scan or Path(folder) / "template.nii.gz"
        if options.scan is None:
            nibabel.save(nibabel.Nifti1Image(given.array, given.affine), file)
        scan = whole_scan(options, file, options.threads)
        say("a whole scan, on one core")
        by_threads = [(options.threads, scan["warm"])]
        if options.threads > 1:
            by_threads.insert(0, (1, whole_scan(options, file, 1)["warm"]))
    sizes = scaling.sizes(
        options.model,
        given,
        (2.0,) if options.quick else scaling.SPACINGS_MM,
        3 if options.quick else 15,
        options.device,
        say,
    )
    grown = growth.measure(
        options.model,
        given,
        slices=(16, 32) if options.quick else growth.SLICES,
        restorations=(1, 3, 7) if options.quick else growth.RESTORATIONS,
        device=options.device,
        usual=3 if options.quick else growth.USUAL,
        say=say,
    )
    results = {
        "machine": machine,
        "options": {"quick": options.quick, "model": Path(options.model).name},
        "seconds": time.perf_counter() - started,
        "version": __version__,
        "first_score": first,
        "samplers": rows,
        "whole_scan": scan,
        "cores": [asdict(cores) for cores in scaling.cores(by_threads)],
        "sizes": [asdict(size) for size in sizes],
        "growth": asdict(grown),
    }
    return results, grown


def history(file: Path) -> list[dict[str, Any]]:
    """The main figures of the results that are there, and of those before, the oldest first."""
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if before.get("options", {}).get("quick", True):
        return list(before.get("history", []))
    first, scan = before.get("first_score"), before["whole_scan"]
    figures = {
        "version": before.get("version", ""),
        "date": before["machine"]["date"],
        "processor": before["machine"]["processor"],
        "threads": before["machine"]["threads"],
        "tflop": first["ways"][-1]["tflop"] if first else None,
        "slices": scan["slices"],
        **{
            f"{key}_{name}": scan[name][key]
            for key in ("first_score", "final_map")
            for name in ("cold", "warm")
        },
        "rate": before["samplers"][0]["rate"],
    }
    return [*before.get("history", []), figures]


def write(results: dict[str, Any], grown: growth.Growth, folder: Path) -> None:
    """Write the three files, each in one piece, so that what stands there is never half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {**results, "history": history(folder / "benchmark.json")}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder) as parts:
        new = Path(parts)
        growth.draw(grown, new / "growth.png")
        (new / "benchmark.md").write_text(markdown(results), encoding="utf-8")
        text = json.dumps(results, indent=1, allow_nan=False) + "\n"
        (new / "benchmark.json").write_text(text, encoding="utf-8")
        for file in sorted(new.iterdir()):
            os.replace(file, folder / file.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, and say where; 1 if the samplers' codes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small cases, about two minutes")
    parser.add_argument("--model", default="brain-t1", help="a model's name or folder")
    parser.add_argument("--scan", type=Path, help="for the whole scan; by default the template")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--results", type=Path, default=_HERE / "results", help="a folder")
    options = parser.parse_args(arguments)
    results, grown = run(options, lambda line: print(f"  {line}", file=sys.stderr))
    write(results, grown, options.results)
    print(f"Written: {options.results / 'benchmark.md'}")
    same = all(
        found["identical"] for row in results["samplers"] for found in row["agreement"].values()
    )
    if not same:
        print("The samplers did not give the same codes.", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
