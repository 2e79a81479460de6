"""A training that is shared by two processes is the training of one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from LatentSpaceRestorationLib.networks import distributed
from tiny_training import write_training

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="PyTorch was built without gloo",
)


# As ``-m LatentSpaceRestorationLib``, and the threads that outlive it: those of gloo abort at exit.
_LSR = """
import sys
from pathlib import Path
from LatentSpaceRestorationLib.cli import main
status = main()
threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
sys.exit(status or ", ".join(name for name in threads if "gloo" in name) or 0)
"""


def train(network: str, settings: Path, work: str, number: int, *more: str) -> tuple[int, str, str]:
    """``lsr train`` in so many processes: status, output and errors."""
    launch = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
        if number > 1
        else []
    )
    script = settings.parent / "lsr.py"
    script.write_text(_LSR, encoding="utf-8")
    command = [sys.executable, *launch, str(script), "train", network]
    path = os.pathsep.join([str(ROOT / "LatentSpaceRestoration"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, settings.name, "--work", work, "--device", "cpu", "--no-tensorboard", *more],
        cwd=settings.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def figures(output: str) -> dict[str, float]:
    """The means that the last report of the losses gives."""
    last = [line for line in output.splitlines() if line.startswith("step ")][-1]
    return {key: float(value) for key, value in re.findall(r"(\w+) (\d+\.\d+)", last)}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["vqvae", "baseline"])
def test_two_processes_give_the_losses_of_one(tmp_path: Path, network: str) -> None:
    settings = write_training(tmp_path, people=9)
    # Aligned, these scans have ties between keys, each of which moves a tenth of the perplexity.
    as_they_lie = settings.read_text() + "[alignment]\nalign = false\n"
    settings.write_text(as_they_lie)
    results = {}
    for number in (1, 2):
        status, out, err = train(network, settings, f"work{number}", number)
        assert status == 0, err
        assert sum(line.startswith("step ") for line in out.splitlines()) == 1, out
        results[number] = figures(out)
    assert results[1].keys() == results[2].keys()
    assert results[1].keys() >= ({"l1", "perplexity"} if network == "vqvae" else {"error", "kl"})
    # A tie of two keys that rounding decides otherwise moves a whole code of the perplexity.
    for figure, value in results[1].items():
        rel = 1e-2 if figure == "perplexity" else 2e-3
        assert results[2][figure] == pytest.approx(value, rel=rel), figure
    one, two = (
        torch.load(next((tmp_path / f"work{n}").glob("*.pt")), weights_only=True)["averaged"]
        for n in (1, 2)
    )
    assert one.keys() == two.keys()
    # Weights before a BatchNorm's mean are free, and keys follow ties of k-means: neither is to be
    # compared, but what the layers saw is.
    for key in (key for key in one if key.endswith(("running_var", "batches_tracked"))):
        torch.testing.assert_close(one[key], two[key], rtol=5e-3, atol=1e-3)
    if network == "vqvae":
        # A training begun by two goes on with one.
        status, out, err = train("vqvae", settings, "work2", 1, "--resume")
        assert status == 0, err
        assert "resumed at step 12" in out


def test_a_batch_that_cannot_be_shared_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = write_training(tmp_path, people=6, slices=12)
    status, _, err = train("vqvae", settings, "work", 2, "--set", "vqvae.training.batch=7")
    assert status != 0
    lines = [line for line in err.splitlines() if "lsr: error" in line]
    assert lines == [
        "lsr: error: a batch of 7 cannot be shared by 2 processes; change batch, or the number of "
        "processes"
    ]


def test_alone_a_process_is_the_first_of_one() -> None:
    values = torch.arange(6.0).view(3, 2)
    assert (distributed.rank(), distributed.size(), distributed.part(5)) == (0, 1, slice(0, 5))
    assert distributed.total(values) is distributed.all_rows(values) is values
    assert distributed.mean(1.5) == 1.5
    taken = distributed.gather_rows(values, torch.tensor([2, 0]))
    torch.testing.assert_close(taken, values[[2, 0]])
