"""Cohorts on a real Dask cluster of worker processes, of which some come to an early end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cohort_tasks
import pytest
import torch
from conftest import ROOT, Lsr, save_scan
from LatentSpaceRestorationLib.cohort import cluster
from LatentSpaceRestorationLib.cohort.engine import ATTEMPTS, Failure, OnCluster
from LatentSpaceRestorationLib.cohort.run import prepared, run
from LatentSpaceRestorationLib.cohort.scores import read_scores
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import Cancelled, LSRError
from LatentSpaceRestorationLib.io.images import read_volume
from LatentSpaceRestorationLib.options import RunOptions
from tiny_model import generated_brain

pytest.importorskip("distributed")
pytest.importorskip("cryptography")

SCANS = 4
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT / "LatentSpaceRestoration"),
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of scans that can be used, and one that cannot."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed in range(SCANS):
        brain = generated_brain(seed=seed)
        save_scan(folder / f"s{seed}.nii.gz", brain.array, brain.affine)
    (folder / "bad.nii.gz").write_bytes(b"no image")
    return folder


def check_table(table: Path, scans: Path, model: Path) -> None:
    """Every scan has one row, with the score that it has alone."""
    rows = {row["id"]: row for row in read_scores(table.parent)}
    assert len(table.read_text(encoding="utf-8").splitlines()) == 1 + len(rows) == 2 + SCANS
    assert rows.pop("bad")["status"] == "failed"
    detector = Detector.load(model, "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(3)  # as `lsr detect` on a machine of three cores; workers have one each
    found = {n: detector.detect(read_volume(scans / f"{n}.nii.gz"), restorations=1) for n in rows}
    torch.set_num_threads(threads)
    for name, row in rows.items():
        alone = found[name]
        assert row["score"] == repr(alone.sample_score)
        assert row["p"] == repr(alone.p_value)
        figures = json.loads((table.parent / row["result"]).read_text(encoding="utf-8"))
        assert figures["sample_score"] == alone.sample_score


@pytest.mark.slow
def test_a_worker_that_ends_is_replaced_and_its_scan_done_once(
    scans: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("LatentSpaceRestorationLib.cohort.run.look", cohort_tasks.marked_look)
    options = RunOptions(model=str(tiny_model), restorations=1, device="cpu")
    engine = OnCluster(partial(cluster.local, 2, "cpu"))
    marks, over, victims = tmp_path / "run" / "marks", threading.Event(), []

    def kill_one() -> None:
        """The first worker that is seen to be at its second scan, in the midst of it."""
        while not over.is_set():
            begun: dict[str, list[str]] = defaultdict(list)
            for mark in sorted(marks.glob("*"), key=lambda mark: mark.stat().st_mtime_ns):
                begun[mark.name.split(".")[1]].append(mark.name.split(".")[0])
            for pid, its in begun.items():
                if len(its) >= 2:
                    os.kill(int(pid), signal.SIGKILL)
                    victims.append((pid, its[-1]))
                    return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    try:
        with prepared(tmp_path / "run", [scans], options) as plan:
            given = Counter(row.id for row in run(plan, engine))
    finally:
        over.set()
        killer.join()
    ((pid, name),) = victims
    assert given == Counter([*(f"s{seed}" for seed in range(SCANS)), "bad"])
    others = {mark.name for mark in marks.glob(f"{name}.*")} - {f"{name}.{pid}"}
    assert others, "another process did the scan again"
    check_table(tmp_path / "run" / "scores.tsv", scans, tiny_model)


@pytest.mark.slow
def test_a_job_that_ends_its_workers_is_given_up_and_the_others_done(tmp_path: Path) -> None:
    jobs = [(str(tmp_path), number) for number in range(6)]
    engine = OnCluster(partial(cluster.local, 2, "cpu"))
    results = dict(engine.results(cohort_tasks.poison, jobs))
    assert results.keys() == set(jobs)
    failure = results.pop(jobs[3])
    assert isinstance(failure, Failure)
    assert failure.reason.startswith(f"{ATTEMPTS} workers ended while they did nothing else")
    assert results == {job: f"did {job[1]}" for job in jobs if job[1] != 3}
    assert len(list(tmp_path.glob("ended.*"))) == 2 * ATTEMPTS, "among others, and alone"

    answers = iter([False, True])
    with pytest.raises(Cancelled):
        list(engine.results(cohort_tasks.poison, jobs[:1], lambda: next(answers)))


@pytest.mark.parametrize("jobs", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_whose_main_process_is_killed_goes_on(
    lsr: Lsr, scans: Path, tiny_model: Path, tmp_path: Path, jobs: int
) -> None:
    arguments = ["cohort", tmp_path / "run", scans, "--model", tiny_model, "--restorations", 1]
    arguments += ["--device", "cpu", "--jobs"]
    command = [sys.executable, "-m", "LatentSpaceRestorationLib", *arguments, jobs]
    first = subprocess.Popen(
        [str(part) for part in command], env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    try:
        results = tmp_path / "run" / ".cohort"
        while first.poll() is None and not list(results.glob("sub-s*")):
            time.sleep(0.01)
        assert first.poll() is None, "it was done before it could be killed"
    finally:
        first.kill()
        first.wait()
    status, _, err = lsr(*arguments, 0)
    assert status == 3
    assert f"of {SCANS + 1} scans were done before and are kept" in err
    assert err.count("lsr: error: ") == 1
    check_table(tmp_path / "run" / "scores.tsv", scans, tiny_model)


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Address of a scheduler with one worker, both programs of their own, as on other machines."""
    script = (
        "from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)\n"
        "    print(cluster.scheduler_address, flush=True)\n"
        "    input()\n"
    )
    tasks = str(Path(cohort_tasks.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([ENVIRONMENT["PYTHONPATH"], tasks])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate("\n")


@pytest.mark.slow
def test_a_cluster_that_is_there(scheduler: str, tmp_path: Path) -> None:
    engine = OnCluster(partial(cluster.existing, scheduler))
    jobs = [(str(tmp_path), number) for number in range(3)]
    assert dict(engine.results(cohort_tasks.poison, jobs)) == {job: f"did {job[1]}" for job in jobs}
    nobody = OnCluster(partial(cluster.existing, "tcp://127.0.0.1:9"))
    with pytest.raises(LSRError, match="no scheduler answers there"):
        list(nobody.results(cohort_tasks.poison, jobs))
